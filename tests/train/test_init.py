"""Fine-tuning: copied and frozen weights, low-rank adapters, averages of runs, learning rates by layer."""

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gt
from gt.cli.command import prepare_arguments
from gt.errors import UserError
from gt.layers import EdgeGatedBlock
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.checkpoint import load
from gt.train.checkpoint_files import read, write
from gt.train.init import Init, distinct_weights, soup
from gt.train.low_rank import add_low_rank, is_adapter, merged
from gt.train.network import build
from gt.train.optim import Optimisation
from gt.train.task import Task
from tests.runs import network
from tests.small_runs import train, weights, write_graphs
from tests.train.signals import train_until_signal


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run of one epoch, and its data."""
    folder = tmp_path_factory.mktemp("pretrained")
    data = write_graphs(folder)
    train(folder / "run", *data, "trainer.max_epochs=1")
    return folder / "run", data


def write_three_classes(folder: Path, data: list[str]) -> list[str]:
    """Write the same graphs with three classes; returns the overrides for them."""
    path = Path(data[0].partition("=")[2])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        line["graph"]["y"] = "abc"[number % 3]
    (folder / "others.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return [f"data.source.path={folder / 'others.jsonl'}", f"data.source.root={folder}", *data[2:]]


def fine_tune(run: Path, folder: Path, data: list[str], *overrides: str) -> dict[str, torch.Tensor]:
    train(folder / "run", *data, f"init.run={run}", "trainer.max_epochs=1", *overrides)
    return weights(folder / "run")


def test_frozen_trunk_is_copied_and_new_head_trained(
    pretrained: tuple[Path, list[str]], tmp_path: Path, capsys: Any
) -> None:
    run, data = pretrained
    state, before = (
        fine_tune(run, tmp_path, write_three_classes(tmp_path, data), "init.freeze=trunk"),
        weights(run, "best"),
    )
    trunk = [name for name in before if name.startswith("net.") and not name.startswith("net.head.")]
    assert all(torch.equal(state[name], before[name]) for name in trunk)  # including the statistics of norms
    assert state["net.head.mlp.0.weight"].shape == before["net.head.mlp.0.weight"].shape
    assert not torch.equal(state["net.head.mlp.0.weight"], before["net.head.mlp.0.weight"])
    output = capsys.readouterr().out
    assert "a new head: head.mlp" in output
    assert f"{sum(state[name].numel() for name in state if name.startswith('net.head.')):,} of" in output
    record = json.loads((tmp_path / "run" / "init.json").read_text())
    assert set(record["taken"]) == {name.removeprefix("net.") for name in trunk}


def test_frozen_norms_stay_frozen_when_resumed_mid_epoch(pretrained: tuple[Path, list[str]], tmp_path: Path) -> None:
    run, data = pretrained
    overrides = (*write_three_classes(tmp_path, data), f"init.run={run}", "init.freeze=trunk", "trainer.max_epochs=1")
    train(tmp_path / "whole", *overrides)
    train_until_signal((Task, "training_step", 2), signal.SIGTERM, tmp_path / "run", *overrides)
    train(tmp_path / "run", *overrides, resume=True)
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "run")[name], value), name


@pytest.mark.slow
def test_fine_tuned_run_resumes_without_pretrained_run(pretrained: tuple[Path, list[str]], tmp_path: Path) -> None:
    run, data = pretrained
    run = run.rename(tmp_path / "elsewhere")
    overrides, resumed = (write_three_classes(tmp_path, data), tmp_path / "half")
    settings = ("init.freeze=trunk", f"init.run={run}", "optim.warmup=0", "optim/schedule=constant")
    train(tmp_path / "whole", *overrides, *settings, "trainer.max_epochs=2")
    train(resumed, *overrides, *settings, "trainer.max_epochs=1")
    run.rename(pretrained[0])
    train(resumed, *overrides, *settings, "trainer.max_epochs=2", resume=True)
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(resumed)[name], value), name


def test_lora_weights_are_trained_saved_and_merged(
    pretrained: tuple[Path, list[str]], tmp_path: Path, capsys: Any
) -> None:
    run, data = pretrained
    state, before = fine_tune(run, tmp_path, write_three_classes(tmp_path, data), "init.lora=2"), weights(run, "best")
    adapters = {name for name in state if name.endswith("parametrizations.weight.0.up")}
    assert {name.split(".")[3] for name in adapters} == {"attention", "feed_forward"}
    assert all(state[name].abs().sum() > 0 for name in adapters)
    merged_state = merged({name.removeprefix("net."): value for name, value in state.items()})
    for name, value in before.items():
        key = name.removeprefix("net.")
        if ".attention." in key and key.endswith("weight"):
            assert torch.linalg.matrix_rank(merged_state[key] - value, atol=1e-5) == 2
        elif key.startswith(("nodes.", "blocks.")) and value.is_floating_point() and "feed_forward" not in key:
            torch.testing.assert_close(merged_state[key], value, rtol=0, atol=0)
    assert "LoRA of rank 2" in capsys.readouterr().out
    task = gt.load(tmp_path / "run")
    assert task.hparams["config"]["lora"] == 2
    (tmp_path / "again").mkdir()
    fine_tuned = fine_tune(tmp_path / "run", tmp_path / "again", write_three_classes(tmp_path, data), "optim.lr=1e-9")
    name = "blocks.0.feed_forward.expand.weight"
    best = merged({k.removeprefix("net."): v for k, v in weights(tmp_path / "run", "best").items()})
    torch.testing.assert_close(fine_tuned[f"net.{name}"], best[name], rtol=0, atol=1e-6)


def test_soup_averages_the_weights_of_runs(pretrained: tuple[Path, list[str]], tmp_path: Path) -> None:
    first = pretrained[0] / "checkpoints" / "best.ckpt"
    saved = read(first)
    for name, change in {"other": lambda value: 3 * value, "wide": lambda value: value.repeat(2)}.items():
        state = {k: change(v) if v.dim() == 1 else v for k, v in saved["state_dict"].items()}
        write(saved | {"state_dict": state}, tmp_path / f"{name}.ckpt")
    mean, _ = soup([first, tmp_path / "other.ckpt"])
    for name, value in saved["state_dict"].items():
        if name.startswith("net.") and value.is_floating_point():
            expected = 2 * value if value.dim() == 1 else value
            torch.testing.assert_close(mean[name.removeprefix("net.")], expected)
    with pytest.raises(UserError, match=r"wide\.ckpt"):
        soup([first, tmp_path / "wide.ckpt"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"names": ["no", "yes"]}, "differ in what they predict$"),
        ({"undirected": False}, "differ in undirected: True and False"),
        ({"node_categories": [[3, 2, 1, 0]]}, "differ in node_categories"),
    ],
)
def test_soup_of_incompatible_runs_is_rejected(
    changes: dict[str, Any], reason: str, pretrained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    first, other = pretrained[0] / "checkpoints" / "best.ckpt", tmp_path / "other.ckpt"
    saved = read(first)
    hparams = saved["hyper_parameters"]
    write(saved | {"hyper_parameters": hparams | {"schema": hparams["schema"] | changes}}, other)
    with pytest.raises(UserError, match=f"best.ckpt and {other} cannot be averaged: they {reason}"):
        soup([first, other])
    write(saved | {"hyper_parameters": hparams | {"schema": hparams["schema"] | {"longest": 9}}}, other)
    assert soup([first, other])[0].keys() == soup([first])[0].keys()


def test_scalar_saved_as_vector_is_loaded(pretrained: tuple[Path, list[str]], tmp_path: Path) -> None:
    run, data = pretrained
    first, name = run / "checkpoints" / "best.ckpt", "blocks.0.blend.logit"
    saved = read(first)
    state, older = saved["state_dict"], tmp_path / "older.ckpt"
    value = state[f"net.{name}"]
    write(saved | {"state_dict": state | {f"net.{name}": value[None] + 2}}, older)
    mean, _ = soup([first, older])
    torch.testing.assert_close(mean[name], value + 1)
    fine_tuned = fine_tune(older, tmp_path, data, "init.freeze=trunk")
    torch.testing.assert_close(fine_tuned[f"net.{name}"], value + 2)


def test_embedding_rows_are_copied_by_category(pretrained: tuple[Path, list[str]], tmp_path: Path, capsys: Any) -> None:
    run, data = pretrained
    path = Path(write_three_classes(tmp_path, data)[0].partition("=")[2])
    path.write_text(path.read_text().replace('"kind": 3', '"kind": 9'))
    settings = ("init.freeze=['blocks.*']", "optim.lr=1e-30", "optim.warmup=0")  # nothing else changes
    state, before = fine_tune(run, tmp_path, data_at(path, data), *settings), weights(run, "best")
    message = "other columns or categories: 3 of 4 rows, which mean the same in both, are copied: nodes.table.weight"
    assert message in capsys.readouterr().out
    table, old = (each["net.nodes.table.weight"] for each in (state, before))
    torch.testing.assert_close(table[:3], old[:3])  # kinds 0, 1 and 2; the last was 3 and is now 9
    assert not torch.allclose(table[3], old[3])
    with pytest.raises(UserError, match=r"nodes\.table\.weight is new"):
        fine_tune(run, tmp_path / "frozen", data_at(path, data), "init.freeze=trunk")


def test_head_outputs_are_copied_by_class_name(pretrained: tuple[Path, list[str]], tmp_path: Path, capsys: Any) -> None:
    data = write_three_classes(tmp_path, pretrained[1])
    train(tmp_path / "abc", *data, "trainer.max_epochs=1")
    saved, last = read(tmp_path / "abc" / "checkpoints" / "best.ckpt"), ("head.mlp.4.weight", "head.mlp.4.bias")
    hparams, before = saved["hyper_parameters"], saved["state_dict"]
    assert hparams["schema"]["names"] == ["a", "b", "c"]
    for names, rows, message in (
        ("bca", [2, 0, 1], None),  # the positions of a, b and c
        ("cxa", [2, None, 0], ": 2 of 3 rows, which mean the same in both, are copied"),
        ("xyz", [None] * 3, ""),
    ):
        run = tmp_path / f"{names}.ckpt"
        write(saved | {"hyper_parameters": hparams | {"schema": hparams["schema"] | {"names": list(names)}}}, run)
        capsys.readouterr()
        (tmp_path / names).mkdir()
        state = fine_tune(run, tmp_path / names, data, "init.head=true", "optim.lr=1e-30", "optim.warmup=0")
        for name in last:
            value, old = state[f"net.{name}"], before[f"net.{name}"]
            origin = [next((index for index in range(3) if torch.equal(row, old[index])), None) for row in value]
            assert origin == rows, name
        assert torch.equal(state["net.head.mlp.2.weight"], before["net.head.mlp.2.weight"])
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  new, ")]
        assert lines == ([] if message is None else [f"  new, the data have other classes{message}: {', '.join(last)}"])


def data_at(path: Path, data: list[str]) -> list[str]:
    return [f"data.source.path={path}", f"data.source.root={path.parent}", *data[2:]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.width=16",), r"model\.width=8"),
        (("init.freeze=[heads.*]",), r"'head\.\*'"),
        (("init.freeze=['*']", "init.head=true"), "nothing to train"),
    ],
)
def test_invalid_initialisation_is_rejected(
    pretrained: tuple[Path, list[str]], tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    run, data = pretrained
    with pytest.raises(UserError, match=message):
        fine_tune(run, tmp_path, data, *overrides)


def test_lora_requires_a_pretrained_run() -> None:
    with pytest.raises(UserError, match="init=RUN"):
        Init(lora=4)


def test_short_form_on_command_line() -> None:
    assert "init.run=runs/a" in prepare_arguments(["init=runs/a"])


def test_layer_decay_lowers_rates_towards_the_embedding(pretrained: tuple[Path, list[str]]) -> None:
    net: Any = load(pretrained[0]).net
    net.blocks.append(net.blocks[0].__class__(8, feed_forward=lambda width: nn.Linear(width, width)))
    configured = Optimisation(lr=0.1, layer_decay=0.5, warmup=3).configure(net, 10)
    name_of = {parameter: name for name, parameter in net.named_parameters()}
    schedule, expected = (
        configured["lr_scheduler"]["scheduler"],
        {"head": 1, "blocks.1": 0.5, "blocks.0": 0.25, "nodes": 0.125},
    )
    for step in range(6):
        rates = {name_of[p]: group["lr"] for group in configured["optimizer"].param_groups for p in group["params"]}
        head = rates["head.mlp.0.weight"]
        assert step >= 3 or head == pytest.approx(0.1 * (step + 1) / 4)
        for name, rate in rates.items():
            factor = next(factor for part, factor in expected.items() if name.startswith(part))
            assert rate == pytest.approx(head * factor), name
        configured["optimizer"].step()
        schedule.step()


def test_lora_adapts_attention_within_edge_gated_block() -> None:
    net = GraphTransformer(Schema((5,), edge_vocab=(3,), outputs=3), 8, 2, partial(EdgeGatedBlock, heads=2))
    add_low_rank(net, 2)
    adapted = {name.split(".")[2] for name, _ in net.named_parameters() if is_adapter(name)}
    assert adapted == {"project_in", "project_edge", "project_out", "feed_forward"}


def test_tied_weights_are_counted_once(tmp_path: Path) -> None:
    schema = Schema(node_vocab=(7,), outputs=7, level="node", max_nodes=9)
    net = build(network("model=gpt", "model.depth=1"), schema)
    assert "head.mlp.0.weight" in net.state_dict()
    assert net.state_dict().keys() - distinct_weights(net).keys() == {"head.mlp.0.weight"}
