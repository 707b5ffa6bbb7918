"""``python -m gt.export``: files that say what the network says, for graphs of any size."""

from pathlib import Path

import pytest
import torch

import gt
from gt.data.graphs import GraphData
from gt.data.own.csv_graphs import CSVGraphs
from gt.errors import UserError
from gt.export import main
from gt.prediction.asking import single_graphs
from gt.prediction.export import CLOSE, furthest, run_onnx, run_program
from gt.prediction.one_graph import OneGraph
from gt.train.checkpoint import encodings_of
from tests.data.modules import over
from tests.runs import network, run_of
from tests.test_prediction import graphs_of, write_tables


def of_many_sizes(folder: Path, *overrides: str) -> tuple[Path, GraphData]:
    """A run on graphs of 3 to 9 nodes, and its data."""
    nodes, edges, graphs = graphs_of(real=True)
    for older, newer in (("m24", "m25"), ("m26", "m27"), ("m27", "m28")):  # which takes in the former
        nodes.loc[nodes["graph"] == older, "graph"] = newer
        edges.loc[edges["graph"] == older, "graph"] = newer
        graphs = graphs[graphs["graph"] != older]
    write_tables(folder / "mine", nodes, edges, graphs)
    options = {"path": str(folder / "mine"), "undirected": True}
    run = run_of(folder, CSVGraphs, network(*overrides), **options)
    return run, over(GraphData, CSVGraphs, root=str(folder / "root"), **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("mask.hops=2", "encoding=[rwse]", "encoding.rwse.dim=4"),
        ("model=transformer", "mask.hops=null", "encoding=[laplacian]", "encoding.laplacian.dim=4"),
    ],
)
def test_each_file_says_what_the_network_says(
    overrides: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = of_many_sizes(tmp_path, *overrides)
    main([str(run), "--graphs", "9"])
    folder = run / "export"
    said = capsys.readouterr().out
    assert "model.pt2: within" in said
    assert "for each graph: active, one of 2 classes" in (folder / "README.md").read_text()
    task = gt.load(run)
    data.open(encodings_of(task.hparams["config"]))
    one, batches = OneGraph(task.net), single_graphs(data, 100)
    with torch.no_grad():
        expected = [task(batch) for batch in batches]
    assert furthest(run_program(folder / "model.pt2", one, batches), expected) < CLOSE
    from safetensors.torch import load_file

    weights = load_file(folder / "weights.safetensors")
    for name, value in task.net.state_dict().items():
        assert torch.equal(weights[name], value), name
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert furthest(run_onnx(folder / "model.onnx", one, batches), expected) < CLOSE


def test_a_function_of_one_graph_is_the_network_and_a_wrong_mask_is_not(tmp_path: Path) -> None:
    run, data = of_many_sizes(tmp_path, "mask.hops=1")
    task = gt.load(run)
    data.open([])
    one = OneGraph(task.net)
    batch = max(single_graphs(data, 100), key=lambda each: each.num_nodes)
    others = one.inputs(batch)
    x, edge_index = others.pop("x"), others.pop("edge_index")
    with torch.no_grad():
        torch.testing.assert_close(one(x, edge_index, others), task(batch))
        others["reads_0"] = torch.ones_like(others["reads_0"])
        assert not torch.allclose(one(x, edge_index, others), task(batch))


def test_what_is_off_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = of_many_sizes(tmp_path, "mask.hops=1")
    wrong = lambda path, one, batches: [torch.full((1, 2), 9.0) for _ in batches]  # noqa: E731
    monkeypatch.setattr("gt.prediction.export.run_program", wrong)
    with pytest.raises(UserError, match=r"model\.pt2"):
        main([str(run)])
    assert not (run / "export" / "model.pt2").exists()
    assert (run / "export" / "weights.safetensors").exists()
