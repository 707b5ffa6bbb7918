"""``gt.predict --attention`` and ``task.attention``: the attention weights of each sample, against the formula."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gt
from gt.cli.explanation import explain
from gt.cli.new_data import open_run_data
from gt.data.batch_sampler import Request
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.text.classification import TextClassification
from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData
from gt.errors import UserError
from gt.layers import attention_layers
from gt.prediction.models import Models
from tests.prediction.tables import single_graph_tables, write_tables
from tests.runs import network, predictions, write_run

SMALL = ("model=gps", "model.depth=2", "model.block.attention.heads=4", "mask.hops=1")
NEW_TEXTS = ["word1 word2 word3", "  ", "word4", "word5 word1 word1 word2 word9 word3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on texts of 1 to 6 words, each of which reads itself and its neighbours; two layers, four heads."""
    folder = tmp_path_factory.mktemp("texts")
    words = [" ".join(f"word{(n + step) % 10}" for step in range(1 + n % 6)) for n in range(60)]
    rows = [f"{text}\t{'good' if n % 2 else 'bad'}" for n, text in enumerate(words)]
    (folder / "mine.tsv").write_text("\n".join(["review\tlabel", *rows]))
    return write_run(folder, TextClassification, network(*SMALL), path=str(folder / "mine.tsv"))


@pytest.fixture
def exported(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Any, Any, str]:
    """The table of new texts, the arrays of their attention weights, and the output."""
    (tmp_path / "new.csv").write_text("\n".join(["review", *(f'"{text}"' for text in NEW_TEXTS)]))
    out = tmp_path / "below" / "weights.npz"
    table = predictions(run, f"data.path={tmp_path / 'new.csv'}", "--attention", str(out))
    return table, np.load(out, allow_pickle=False), capsys.readouterr().out


def expected_attention(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """(heads, n, n) softmax of the scaled products of queries and keys, on a path whose neighbours read each other."""
    count, width = x.shape
    weight, bias = layer.project_in.weight, layer.project_in.bias
    q, k = (x @ weight[:width].T + bias[:width]), (x @ weight[width : 2 * width].T + bias[width : 2 * width])
    size = width // layer.heads
    out = torch.zeros(layer.heads, count, count)
    for head in range(layer.heads):
        for reader in range(count):
            visible = [node for node in (reader - 1, reader, reader + 1) if 0 <= node < count]
            part = slice(head * size, (head + 1) * size)
            score = torch.stack([q[reader, part] @ k[node, part] / size**0.5 for node in visible])
            out[head, reader, visible] = score.softmax(0)
    return out


def test_weights_come_with_rows_and_labels(run: Path, exported: tuple[Any, Any, str]) -> None:
    table, arrays, output = exported
    assert "attention of 3 samples in 2 layers" in output
    assert table["review"].tolist() == [text.strip() for text in NEW_TEXTS]
    task = gt.load(run)
    layers = attention_layers(task.net)
    assert arrays["layers"].tolist() == [name for name, _ in layers]
    assert arrays["samples"].tolist() == [0, 1, 2]
    assert [arrays[f"{sample}/rows"].tolist() for sample in range(3)] == [[0], [2], [3]]  # none for the unreadable text
    for sample in range(3):
        words = NEW_TEXTS[arrays[f"{sample}/rows"].item()].split()
        assert [word.strip() for word in arrays[f"{sample}/labels"].tolist()] == words
        for place in range(2):
            weights = arrays[f"{sample}/{place}"]
            assert weights.shape == (4, len(words), len(words))
            assert weights.dtype == np.float32
            np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_weights_match_explain_and_the_formula(
    run: Path, exported: tuple[Any, Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = exported[1]
    monkeypatch.setattr("gt.cli.explanation.RANDOM", 1)  # skip what takes long
    task = gt.load(run)
    new_file = run.parent / "new.csv"
    new_file.write_text("\n".join(["review", *(f'"{text}"' for text in NEW_TEXTS)]))
    data = open_run_data(run, [f"data.path={new_file}"], False, Models([task]), new=True)[1]
    inputs: dict[str, torch.Tensor] = {}
    for name, layer in attention_layers(task.net):
        layer.register_forward_pre_hook(lambda module, given, name=name: inputs.__setitem__(name, given[0].x))
    explained = explain(task, data, "all", 2, None, None)
    assert explained.target == "unknown"
    for place, (name, weights) in enumerate(explained.attention):
        assert name == arrays["layers"][place]
        torch.testing.assert_close(torch.from_numpy(arrays[f"2/{place}"]), weights, rtol=0, atol=0)
    for sample in range(3):
        with torch.no_grad():
            task.net(data.dataset("all")[Request((sample,))])
        for place, (name, layer) in enumerate(attention_layers(task.net)):
            actual = torch.from_numpy(arrays[f"{sample}/{place}"])
            torch.testing.assert_close(actual, expected_attention(layer, inputs[name]).detach(), rtol=1e-4, atol=1e-6)


def test_python_gives_the_same_weights(run: Path, exported: tuple[Any, Any, str]) -> None:
    arrays = exported[1]
    samples = gt.load(run).attention(NEW_TEXTS)
    assert [attended.rows.tolist() for attended in samples] == [[0], [2], [3]]
    for attended in samples:
        assert attended.labels == arrays[f"{attended.sample}/labels"].tolist()
        for place, name in enumerate(arrays["layers"].tolist()):
            np.testing.assert_array_equal(attended.weights[name], arrays[f"{attended.sample}/{place}"])


def test_nodes_of_mixed_graphs_keep_their_rows(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    order = [(atom, graph) for atom in "COH" for graph in range(10) if graph % 3 or atom != "H"]  # graphs interleave
    nodes = [f"mol{graph},{atom}{graph},{graph % 3},{graph % 2}" for atom, graph in order]
    (tmp_path / "mine" / "nodes.csv").write_text("\n".join(["graph,node,kind,label", *nodes]))
    edges = [f"mol{graph},C{graph},O{graph}" for graph in range(10)]
    (tmp_path / "mine" / "edges.csv").write_text("\n".join(["graph,source,target", *edges]))
    run = write_run(tmp_path, CSVGraphs, network(*SMALL), path=str(tmp_path / "mine"))
    out = tmp_path / "weights"
    table = predictions(run, f"data.path={tmp_path / 'mine'}", "--attention", str(out))
    arrays = np.load(f"{out}.npz")
    assert sorted(row for n in arrays["samples"] for row in arrays[f"{n}/rows"]) == list(range(len(table)))
    for sample in arrays["samples"]:
        rows = table.iloc[arrays[f"{sample}/rows"]]
        (graph,) = set(rows["graph"])
        assert [name[0] for name in rows["node"]] == list("COH" if int(graph[3:]) % 3 else "CO")
        assert arrays[f"{sample}/0"].shape == (4, len(rows), len(rows))


def test_causal_weights_and_virtual_nodes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("to be, or not to be\n" * 40)
    options = {"path": str(tmp_path / "a.txt"), "context": 20}
    task = gt.load(write_run(tmp_path, Text, network("mask=causal", "model=gpt"), LanguageData, **options))
    first, second = task.attention(["to be", "or"])
    assert ("".join(first.labels), "".join(second.labels)) == ("to be", "or")
    assert (first.rows.tolist(), second.rows.tolist()) == ([0, 1, 2, 3, 4], [5, 6])
    (weights,) = first.weights.values()
    assert not np.triu(weights, 1).any()
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    (tmp_path / "virtual").mkdir()
    rows = [f"text number {n}\t{n % 2}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    net = network("mask=virtual")
    task = gt.load(write_run(tmp_path / "virtual", TextClassification, net, path=str(tmp_path / "mine.tsv")))
    (first,) = task.attention(["text number"])
    assert len(first.labels) == 2
    count = task.net.virtual_nodes
    assert count > 0
    assert next(iter(first.weights.values())).shape[1:] == (2 + count, 2 + count)


def test_large_samples_are_left_out_and_reported(run: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("gt.prediction.attention.MAX_WEIGHTS", 2 * 4 * 3**2)  # layers, heads, three nodes
    (tmp_path / "new.csv").write_text("\n".join(["review", *(f'"{text}"' for text in NEW_TEXTS)]))
    table = predictions(run, f"data.path={tmp_path / 'new.csv'}", "--attention", str(tmp_path / "a.npz"))
    assert "; 1 sample of more than 3 nodes left out" in capsys.readouterr().out
    assert np.load(tmp_path / "a.npz")["samples"].tolist() == [0, 1]
    assert table["prediction"][3] != ""
    assert [len(attended.weights) for attended in gt.load(run).attention(NEW_TEXTS)] == [2, 2, 0]


def test_attention_without_weights_is_rejected(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.npz"
    with pytest.raises(UserError, match="one model: give one run"):
        predictions(run, str(run), "--attention", str(out))
    (tmp_path / "taken.npz").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        predictions(run, "--split", "test", "--attention", str(tmp_path / "taken.npz"))
    rows = [f"text number {n}\t{n % 2}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    plain = write_run(tmp_path, TextClassification, network("model=gin"), path=str(tmp_path / "mine.tsv"))
    with pytest.raises(UserError, match="no layer with pairwise attention"):
        predictions(plain, "--attention", str(out))
    nodes, edges = single_graph_tables()
    write_tables(tmp_path / "graph", nodes, edges, None)
    (tmp_path / "large").mkdir()
    large = write_run(tmp_path / "large", CSVGraphs, network(), NodeData, path=str(tmp_path / "graph"))
    with pytest.raises(UserError, match="a single graph"):
        predictions(large, "--attention", str(out))
    assert not out.exists()


def test_failed_write_leaves_no_file(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gt.prediction import attention

    def fail_on_second_call(*args: Any) -> Any:
        if fail_on_second_call.calls:  # type: ignore[attr-defined]
            raise OSError(28, "No space left on device")
        fail_on_second_call.calls += 1  # type: ignore[attr-defined]
        return write_array(*args)

    write_array, fail_on_second_call.calls = attention._write_array, 0  # type: ignore[attr-defined]
    monkeypatch.setattr(attention, "_write_array", fail_on_second_call)
    with pytest.raises(UserError, match=r"cannot write .*a\.npz \(No space left on device\)"):
        predictions(run, "--split", "test", "--attention", str(tmp_path / "a.npz"))
    assert not list(tmp_path.iterdir())
