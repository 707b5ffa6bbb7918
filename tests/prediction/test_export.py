"""``python -m gt.export``: exported files give the outputs of the network, for graphs of any size."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gt
from gt.data.graphs import GraphData
from gt.data.own.csv_graphs import CSVGraphs
from gt.errors import UserError
from gt.export import main
from gt.prediction.asking import single_graphs
from gt.prediction.export import (
    TOLERANCE,
    example_of,
    largest_error,
    program_of,
    run_compiled,
    run_onnx,
    run_program,
    save_traced,
)
from gt.prediction.one_graph import OneGraph
from gt.train.low_rank import add_low_rank
from gt.train.network import encodings_of
from tests.data.modules import make_data
from tests.prediction.tables import graph_tables, write_tables
from tests.runs import network, write_run


def make_run(folder: Path, *overrides: str) -> tuple[Path, GraphData]:
    """A run on graphs of 3 to 9 nodes, and its data."""
    nodes, edges, graphs = graph_tables(with_numbers=True)
    for older, newer in (("m24", "m25"), ("m26", "m27"), ("m27", "m28")):  # merge the former into the latter
        nodes.loc[nodes["graph"] == older, "graph"] = newer
        edges.loc[edges["graph"] == older, "graph"] = newer
        graphs = graphs[graphs["graph"] != older]
    write_tables(folder / "mine", nodes, edges, graphs)
    options = {"path": str(folder / "mine"), "undirected": True}
    run = write_run(folder, CSVGraphs, network(*overrides), **options)
    return run, make_data(GraphData, CSVGraphs, root=str(folder / "root"), **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("mask.hops=2", "encoding=[rwse]", "encoding.rwse.dim=4"),
        ("model=transformer", "mask.hops=null", "encoding=[laplacian]", "encoding.laplacian.dim=4"),
    ],
)
def test_exported_files_match_network(
    overrides: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = make_run(tmp_path, *overrides)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        main([str(run), "--graphs", "9", "--aoti"])
    folder = run / "export"
    output = capsys.readouterr().out
    assert "model.pt2: within" in output
    assert "for each graph: active, one of 2 classes" in (folder / "README.md").read_text()
    task = gt.load(run)
    data.open(encodings_of(task.hparams["config"]))
    one_graph, batches = OneGraph(task.net), single_graphs(data, 100)
    with torch.no_grad():
        expected = [task(batch) for batch in batches]
    assert largest_error(run_program(folder / "model.pt2", one_graph, batches), expected) < TOLERANCE
    assert largest_error(run_compiled(folder / "model-aoti.pt2", one_graph, batches), expected) < TOLERANCE
    from safetensors.torch import load_file

    weights = load_file(folder / "weights.safetensors")
    for name, value in task.net.state_dict().items():
        assert torch.equal(weights[name], value), name
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert largest_error(run_onnx(folder / "model.onnx", one_graph, batches), expected) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("mask.hops=2", "encoding=[rwse]", "encoding.rwse.dim=8"),
        ("model=transformer", "mask.hops=null", "encoding=[laplacian]", "encoding.laplacian.dim=8"),
    ],
)
def test_exports_match_network_on_molecules_of_all_sizes(
    overrides: tuple[str, ...], real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 molecules of ESOL, the smallest and the largest among them."""
    pytest.importorskip("rdkit")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from gt.data.molecules.molecules import Molecules

    options = {
        "path": str(real_data / "moleculenet" / "ESOL_delaney-processed.csv"),
        "target": "measured log solubility in mols per litre",
        "split": "random",
        "fractions": [0.05, 0.05, 0.9],
        "processes": 1,
    }
    run = write_run(tmp_path, Molecules, network("model.width=32", "model.depth=3", *overrides), **options)
    data = make_data(GraphData, Molecules, root=str(tmp_path / "root"), **options)
    task = gt.load(run)
    data.open(encodings_of(task.hparams["config"]))
    by_size = sorted(single_graphs(data, 2000), key=lambda graph: graph.num_nodes)
    batches = [by_size[place] for place in torch.linspace(0, len(by_size) - 1, 100).long().tolist()]
    assert len({graph.num_nodes for graph in batches}) > 20
    one_graph, example = OneGraph(task.net), example_of(batches)
    with torch.no_grad():
        expected = [task(batch) for batch in batches]
    results = save_traced(one_graph, example, batches, expected, tmp_path, compiled=True)
    assert all(isinstance(error, float) for error in results.values()), results
    runners = ((run_program, "model.pt2"), (run_onnx, "model.onnx"), (run_compiled, "model-aoti.pt2"))
    for run_export, name in runners:
        answers = run_export(tmp_path / name, one_graph, batches)
        error = max(
            float((actual - reference).abs().max()) for actual, reference in zip(answers, expected, strict=True)
        )
        print(f"{name}: within {error:.1e} on graphs of {by_size[0].num_nodes} to {by_size[-1].num_nodes} nodes")
        assert error < 1e-4


def test_one_graph_matches_network_unless_mask_is_wrong(tmp_path: Path) -> None:
    run, data = make_run(tmp_path, "mask.hops=1")
    task = gt.load(run)
    data.open([])
    one_graph = OneGraph(task.net)
    batch = max(single_graphs(data, 100), key=lambda graph: graph.num_nodes)
    inputs = one_graph.inputs(batch)
    x, edge_index = inputs.pop("x"), inputs.pop("edge_index")
    with torch.no_grad():
        torch.testing.assert_close(one_graph(x, edge_index, inputs), task(batch))
        inputs["reads_0"] = torch.ones_like(inputs["reads_0"])
        assert not torch.allclose(one_graph(x, edge_index, inputs), task(batch))


def test_position_table_is_traced_for_all_its_rows(tmp_path: Path) -> None:
    run, data = make_run(tmp_path, "mask.hops=null", "encoding=[learned]")
    task = gt.load(run)
    data.open([])
    one_graph, batches = OneGraph(task.net), single_graphs(data, 100)
    program = program_of(one_graph, example_of(batches)).module()
    for batch in batches:
        inputs = one_graph.inputs(batch)
        x, edge_index = inputs.pop("x"), inputs.pop("edge_index")
        with torch.no_grad():
            torch.testing.assert_close(program(x, edge_index, inputs), task(batch), atol=TOLERANCE, rtol=TOLERANCE)


def failing(error: Exception) -> Callable[..., None]:
    def fail(*args: object) -> None:
        raise error

    return fail


def test_inaccurate_export_is_removed_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = make_run(tmp_path, "mask.hops=1")
    wrong = lambda path, one, batches: [torch.full((1, 2), 9.0) for _ in batches]  # noqa: E731
    monkeypatch.setattr("gt.prediction.export.run_program", wrong)
    monkeypatch.setattr("gt.prediction.export.save_onnx", failing(RuntimeError("no such operator\nmore")))
    (run / "export").mkdir()
    (run / "export" / "model.onnx").write_text("of an earlier export")
    with pytest.raises(
        UserError, match=r"no model\.pt2: its error of .*; no model\.onnx: RuntimeError: no such operator$"
    ):
        main([str(run)])
    assert {path.name for path in (run / "export").iterdir()} == {"weights.safetensors", "README.md"}
    card = (run / "export" / "README.md").read_text()
    assert "- `weights.safetensors`: parameters" in card
    assert "- `model.pt2`: not written: its error of" in card
    assert "- `model.onnx`: not written: RuntimeError: no such operator\n" in card
    assert "Inputs of" not in card


def test_card_reports_missing_onnx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = make_run(tmp_path, "mask.hops=1")
    monkeypatch.setattr("gt.prediction.export.save_onnx", failing(ImportError("gone", name="onnx")))
    main([str(run)])
    assert "no model.onnx: onnx is not installed" in capsys.readouterr().out
    card = (run / "export" / "README.md").read_text()
    assert "- `model.pt2`: within" in card
    assert "- `model.onnx`: not written: onnx is not installed" in card
    assert "Inputs of the traced network" in card


def test_missing_compiler_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = make_run(tmp_path, "mask.hops=1")
    monkeypatch.setattr("gt.prediction.export.save_onnx", failing(ImportError("gone", name="onnx")))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    with pytest.raises(UserError, match=r"^no model-aoti\.pt2: PyTorch finds no C\+\+ compiler: install one"):
        main([str(run), "--aoti"])
    assert "model.pt2: within" in capsys.readouterr().out
    assert not (run / "export" / "model-aoti.pt2").exists()


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("mask=virtual",), "virtual nodes"),
        (("model=san",), "SAN computes a row for each pair of nodes"),
        (("+model.block.attention.edges=true",), "Attention computes a row for each pair of nodes"),
    ],
)
def test_untraceable_network_exports_weights_and_card(overrides: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    run, _ = make_run(tmp_path, *overrides)
    with pytest.raises(UserError, match=rf"no model\.pt2 and no model\.onnx: {reason}"):
        main([str(run)])
    assert {path.name for path in (run / "export").iterdir()} == {"weights.safetensors", "README.md"}


def test_failed_trace_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = make_run(tmp_path)

    def fail(*args: object, **options: object) -> None:
        print("def forward(self, arg0_1):", file=sys.stderr)  # as PyTorch does for data-dependent sizes
        raise RuntimeError("no sizes")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(UserError, match=r"^no model\.pt2 and no model\.onnx: this network cannot be traced") as caught:
        main([str(run)])
    assert "\n" not in str(caught.value)
    assert not capsys.readouterr().err


def test_low_rank_updates_are_merged_in_a_copy(tmp_path: Path) -> None:
    run, data = make_run(tmp_path, "mask.hops=2")
    task = gt.load(run)
    add_low_rank(task.net, 2)
    with torch.no_grad():
        for name, parameter in task.net.named_parameters():
            if name.endswith("0.up"):
                parameter.normal_()
    data.open(encodings_of(task.hparams["config"]))
    batches = single_graphs(data, 5)
    with torch.no_grad():
        expected = [task(batch) for batch in batches]
        one_graph = OneGraph(task.net)
        answers = [
            one_graph(*(inputs.pop("x"), inputs.pop("edge_index"), inputs)) for inputs in map(one_graph.inputs, batches)
        ]
        after_copy = [task(batch) for batch in batches]  # the original network is unchanged
    for reference, actual, repeated in zip(expected, answers, after_copy, strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-4, atol=1e-4)
        assert torch.equal(repeated, reference)
