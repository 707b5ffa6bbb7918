"""Runs with self-supervised objectives: pretraining, fine-tuning, weighting, resuming, and rejected options."""

import json
from pathlib import Path

import pytest
import torch

from gt.cli.command import prepare_arguments
from gt.errors import UserError
from gt.losses import total_loss
from gt.objectives import run_objectives
from tests.small_runs import train, weights


def write_molecules(folder: Path) -> list[str]:
    """Write rings of letters, which determine their bonds and labels; returns the overrides for them."""
    generator, lines = torch.Generator().manual_seed(0), []
    for number in range(72):
        split = "train" if number < 36 else "valid" if number < 54 else "test"
        kinds = torch.randint(3, (6,), generator=generator).tolist()
        nodes = [{"id": n, "kind": "CON"[kind]} for n, kind in enumerate(kinds)]
        edges = [{"source": n, "target": (n + 1) % 6, "bond": "sd"[kinds[n] == kinds[(n + 1) % 6]]} for n in range(6)]
        attributes = {"split": split, "y": int(sum(kinds) > 6)}
        lines.append(json.dumps({"directed": False, "graph": attributes, "nodes": nodes, "edges": edges}))
    (folder / "graphs.jsonl").write_text("\n".join(lines))
    return [f"data.source.path={folder / 'graphs.jsonl'}", f"data.source.root={folder}", "data.source.target=y"]


def write_points(folder: Path) -> list[str]:
    """Write the same graphs with coordinates, which follow from the letters, in place of these."""
    overrides = write_molecules(folder)
    lines = [json.loads(line) for line in (folder / "graphs.jsonl").read_text().splitlines()]
    for line in lines:
        for node in line["nodes"]:
            node |= {"height": "CON".index(node.pop("kind")) + 0.5, "width": node["id"] / 3}
    (folder / "graphs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return overrides


def read_result(folder: Path) -> dict[str, float]:
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize(("data", "names"), [(write_molecules, "mask_nodes,mask_edges"), (write_points, "denoise")])
def test_fine_tuning_starts_from_pretrained_run(data, names, tmp_path, capsys):
    overrides = [*data(tmp_path), "model.depth=2", "optim.lr=0.01", "optim/schedule=constant", "optim.warmup=0"]
    train(tmp_path / "first", *overrides, f"objective=[{names}]", "supervised=0", "trainer.max_epochs=6")
    assert "trivial" not in capsys.readouterr().out
    result = read_result(tmp_path / "first")
    assert (result["criterion"], result["mode"], result["baseline"]) == ("loss", "min", {})
    assert result["scores"].keys() == {"loss", *names.split(",")}
    assert result["scores"]["loss"] == pytest.approx(sum(result["scores"][name] for name in names.split(",")))
    learned = weights(tmp_path / "first", "best")
    assert {name.split(".")[1] for name in learned if name.startswith("objectives.")} == set(names.split(","))
    train(
        tmp_path / "second", *overrides, f"init.run={tmp_path / 'first'}", "init.freeze=trunk", "trainer.max_epochs=1"
    )
    tuned = weights(tmp_path / "second")
    trunk = [name for name in tuned if name.startswith("net.") and not name.startswith("net.head.")]
    assert all(torch.equal(tuned[name], learned[name]) for name in trunk)
    assert not [name for name in tuned if name.startswith("objectives.")]
    assert "accuracy" in read_result(tmp_path / "second")["scores"]


def test_masked_bonds_are_learned(tmp_path):
    """A bond follows from its two letters, which a run learns without labels."""
    options = ["objective=[mask_edges]", "supervised=0", "objective.mask_edges.share=0.5", "trainer.max_epochs=30"]
    rate = ["optim.lr=0.02", "model.width=16", "model.depth=2", "model.block.dropout=0"]
    train(tmp_path / "run", *write_molecules(tmp_path), *options, *rate)
    assert read_result(tmp_path / "run")["scores"]["mask_edges"] < 0.3  # guessing: 0.64


def test_objective_is_weighted_against_supervised_loss(tmp_path, monkeypatch):
    seen = []
    train_step = "gt.train.task.Task.training_step"
    from gt.train.task import Task

    def step(self, batch, batch_idx, training_step=Task.training_step):
        state = torch.get_rng_state()
        loss = training_step(self, batch, batch_idx)
        torch.set_rng_state(state)
        draw = int(torch.randint(1 << 62, (1,)))
        prediction, [(total, count)] = run_objectives(self.net, batch, self.objectives.values(), draw)
        supervised, labels = total_loss(self.schema, prediction, batch.y)
        seen.append((loss.detach(), (0.5 * supervised / labels + 3 * total / count.clamp(min=1)).detach()))
        return loss

    monkeypatch.setattr(train_step, step)
    options = ["objective=[mask_nodes]", "objective.mask_nodes.weight=3", "supervised=0.5", "trainer.max_epochs=1"]
    train(tmp_path / "run", *write_molecules(tmp_path), *options)
    assert len(seen) == 5
    for loss, expected in seen:
        torch.testing.assert_close(loss, expected)
    scores = read_result(tmp_path / "run")["scores"]
    assert scores.keys() >= {"loss", "accuracy", "mask_nodes"}


def test_resumed_run_masks_identically(tmp_path):
    options = ["objective=[mask_nodes]", "optim.warmup=0", "optim/schedule=constant"]
    data = write_molecules(tmp_path)
    train(tmp_path / "whole", *data, *options, "trainer.max_epochs=2")
    train(tmp_path / "half", *data, *options, "trainer.max_epochs=1")
    train(tmp_path / "half", *data, *options, "trainer.max_epochs=2", resume=True)
    resumed = weights(tmp_path / "half")
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(resumed[name], value), name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["supervised=0"], "leaves nothing to learn"),
        (["supervised=-1", "objective=[mask_nodes]"], "0 or more"),
        (["supervised=0", "objective=[mask_nodes]", "baseline=classical"], "leave baseline out"),
        (["objective=[mask_nodes]", "objective.mask_nodes.share=2"], r"objective\.mask_nodes\.share=2"),
    ],
)
def test_invalid_objective_settings_are_rejected(overrides, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", *write_molecules(tmp_path), *overrides)


def test_objective_options_are_validated():
    prepare_arguments(["objective=[mask_nodes,denoise]", "objective.denoise.columns=[0,1]"])
    prepare_arguments(["objective=null"])
    for override, message in {"objective=[mask_node]": "mask_nodes", "objective.mask_nodes.shar=1": "share"}.items():
        with pytest.raises(UserError, match=message):
            prepare_arguments(["objective=[mask_nodes]", override])
