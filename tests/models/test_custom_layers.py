"""Custom layers, pools and blocks in a folder outside the package: training, resuming, and every kind of inference."""

import json
import shutil
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import gt.predict
import train
from gt.cli.command import prepare_arguments
from gt.cli.composing import compose_config
from gt.errors import UserError
from gt.graph import path_graphs
from gt.inference.decode import obstacle, reader
from gt.inference.whole_graph import predict_chunks
from gt.schema import Schema
from gt.train.network import build, network_config
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture
from tests.graphs import random_batch
from tests.small_runs import weights, write_graphs

CONV = "model.block.local.conv"
PARTS = {  # overrides; the part named where chunked inference, decoding, or a decoding cache is rejected, or None
    "SAGEConv": (["model/local=pyg"], None, None, "SAGEConv"),
    "GATv2Conv": (
        ["model/local=pyg", f"{CONV}._target_=torch_geometric.nn.GATv2Conv", f"{CONV}.heads=2"],
        None, None, "GATv2Conv",
    ),
    "PNAConv": (
        ["model/local=pyg", f"{CONV}._target_=torch_geometric.nn.PNAConv", f"{CONV}.aggregators=[mean,max]",
         f"{CONV}.scalers=[identity,amplification]"],
        None, None, "PNAConv",
    ),
    "linear attention": (
        ["model.block.attention._target_=mylayers.LinearAttention"], "LinearAttention", "LinearAttention", None,
    ),
    "recurrent": (["hydra.searchpath=[conf]", "model/local=recurrent"], "Recurrent", None, "Recurrent"),
    "virtual node": (["hydra.searchpath=[conf]", "model/local=virtual_node"], "VirtualNode", "VirtualNode", None),
    "pairs": (["model.block.attention._target_=mylayers.PairAttention"], "PairAttention", None, "PairAttention"),
    "pool": (["model.head.pool=[{_target_:mylayers.GatedPool,_partial_:true}]"], None, None, None),
    "own block": (["hydra.searchpath=[conf]", "model=own_gps"], None, None, "GatedGCN"),
    "one block for each": (
        ["hydra.searchpath=[conf]", "model=all_parts"], "LinearAttention", "LinearAttention", None,
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of tests/own as the working directory, importable; it lies outside the project."""
    shutil.copytree(Path(__file__).parents[1] / "own", tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "own")])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    yield tmp_path / "own"
    sys.modules.pop("mylayers", None)


def command(monkeypatch, *arguments: str) -> None:
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    train.command()


@pytest.mark.parametrize(
    "name", [name if name == "one block for each" else pytest.param(name, marks=pytest.mark.slow) for name in PARTS]
)
def test_training_resuming_and_prediction(name, folder, monkeypatch):
    data = write_graphs(folder)
    options = ["data=graph_files", *data, "data.batch_size=8", "logger=csv", "trainer=cpu", "hydra.run.dir=run",
               "model.head.hidden=0"]  # fmt: skip
    command(monkeypatch, *PARTS[name][0], "model.width=8", "encoding=none", *options, "trainer.max_epochs=1")
    before = weights(folder / "run")
    command(monkeypatch, "resume=run", "trainer.max_epochs=2")
    after = weights(folder / "run")
    assert before.keys() == after.keys()
    trained = {key for key, value in after.items() if not torch.equal(value, before[key])}
    modules = {".".join(key.split(".")[:4]) for key in after if key.startswith("net.")}
    assert modules == {".".join(key.split(".")[:4]) for key in trained}
    gt.predict.main(["run", "--trust", "--device", "cpu", "--out", "predicted.csv"])
    table = pd.read_csv("predicted.csv")
    assert len(table) == 20
    assert np.isfinite(table.select_dtypes("number")).all().all()


@pytest.fixture
def node_data(folder):
    """Overrides that train on a file with one graph of forty labelled nodes."""
    ends = [{"source": (3 * i) % 40, "target": (7 * i + i // 40) % 40} for i in range(90)]
    nodes = [{"id": i, "kind": "abc"[i * i % 3], "label": "xy"[i * i % 3 % 2]} for i in range(40)]
    (folder / "nodes.json").write_text(json.dumps({"directed": True, "nodes": nodes, "links": ends}))
    return ["data=graph_file_nodes", "data.path=nodes.json", f"data.root={folder}", "trainer.max_epochs=2",
            "model.width=8", "logger=csv", "trainer=cpu"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PNAConv", "own block"])
def test_scores_in_chunks_match_whole_graph_scores(name, node_data, folder, monkeypatch):
    results = []
    for chunk in (30, 1000):
        command(monkeypatch, *PARTS[name][0], *node_data, f"data.chunk={chunk}", f"hydra.run.dir={chunk}")
        results.append(json.loads((folder / str(chunk) / "result.json").read_text())["scores"])
    assert results[0] == pytest.approx(results[1], abs=1e-5)


@pytest.mark.parametrize("name", ["recurrent"])
def test_unsupported_chunked_scoring_fails_in_one_line(name, node_data, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, *PARTS[name][0], *node_data, "data.chunk=30", "hydra.run.dir=run")
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "Recurrent in block 0" in errors[0]


@cache
def network_json(*arguments: str) -> str:
    """The network configuration of a command in the working directory, as JSON."""
    search_path = f"hydra.searchpath=[file://{Path.cwd()}/conf]"
    lines = [search_path if line == "hydra.searchpath=[conf]" else line for line in prepare_arguments([*arguments])]
    return json.dumps(network_config(compose_config(lines)))


def network(
    arguments: list[str], schema: Schema, mask: str = "Complete", without_local: bool = False, **mask_options: int
):
    """The network of a command with the given mask; ``without_local`` removes its local branch."""
    settings = json.loads(network_json(*arguments, "model.width=8", "encoding=none"))
    settings["mask"] = {"_target_": f"gt.masks.{mask}", **mask_options}
    if without_local:
        settings["model"]["block"]["local"] = None
    torch.manual_seed(0)
    net = build(settings, schema)
    net.set_degrees([random_batch((9, 9))])
    return net.eval()


@pytest.mark.parametrize("name", PARTS)
def test_chunked_inference_is_exact_or_rejected(name, folder):
    arguments, rejected, _, _ = PARTS[name]
    batch = random_batch((40,), density=0.05)
    schema = Schema((5, 5), edge_vocab=(3,), level="node", outputs=3)
    net = network(arguments, schema, "Hops", hops=1)
    if rejected is None:
        with torch.no_grad():
            torch.testing.assert_close(predict_chunks(net, batch, 20), net(batch), atol=1e-5, rtol=1e-5)
        return
    with pytest.raises(UserError, match=f"{rejected} in block 0") as caught:
        predict_chunks(net, batch, 20)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PARTS)
def test_incremental_reading_is_exact_or_rejected(name, folder):
    arguments, _, rejected, uncached = PARTS[name]
    schema = Schema((11,), level="node", outputs=11, max_nodes=12)
    net = network(arguments, schema, "Causal", without_local=name in ("linear attention", "pairs", "pool"))
    if rejected is not None:
        with pytest.raises(UserError, match=rf"block 0 \({rejected}\)"):
            reader(net, 12)
        return
    read, reason = reader(net, 12), obstacle(net) or ""
    assert uncached in reason if uncached else not reason
    tokens = torch.randint(11, (2, 12))
    read.restart()
    with torch.no_grad():
        for length in range(1, 13):
            batch = path_graphs([length] * 2)
            batch.x = tokens[:, :length].reshape(-1, 1)
            expected = net(batch).view(2, length, -1)[:, -1]
            torch.testing.assert_close(read(tokens[:, :length]), expected, atol=1e-5, rtol=1e-5)


def test_composed_block_equals_the_built_in_gps_block(folder):
    schema = Schema((5, 5), edge_vocab=(3,), outputs=3)
    custom = network(["hydra.searchpath=[conf]", "model=own_gps"], schema)
    built_in = network(["model=gps"], schema)
    names = {
        "steps.mix.branches.local.layer": "local",
        "steps.mix.branches.attention.layer": "attention",
        "steps.feed_forward.layer": "feed_forward",
        "steps.mix.branches.local.norm.x": "norm_local",
        "steps.mix.branches.attention.norm.x": "norm_attention",
        "steps.feed_forward.norm.x": "norm_feed_forward",
        "steps.mix.blend": "blend",
    }

    def built_in_name(name: str) -> str:
        for custom_part, part in names.items():
            name = name.replace(f".{custom_part}.", f".{part}.")
        return name

    weights = {name: torch.randn_like(value) * 0.3 for name, value in custom.state_dict().items()}
    custom.load_state_dict(weights)
    built_in.load_state_dict({built_in_name(name): value for name, value in weights.items()})
    batch, results = random_batch((1, 7, 4)), []
    for net in (custom.train(), built_in.train()):
        torch.manual_seed(0)  # the same dropout masks
        out = net(batch)
        out.square().sum().backward()
        grads = {built_in_name(name): parameter.grad for name, parameter in net.named_parameters()}
        results.append({"out": out, **grads})
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.block.steps.mix.branches.local.layer.dorpout=0.1", "did you mean 'dropout'"),
        ("model.block.steps.mxi.blend.weight=0.1", "did you mean 'mix'"),
    ],
)
def test_misspelled_keys_inside_a_custom_block_are_reported(override, message, folder):
    with pytest.raises(UserError, match=message):
        prepare_arguments(["--config-dir", "conf", "model=own_gps", override])
