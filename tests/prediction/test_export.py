"""``python -m gt.export``: files that say what the network says, for graphs of any size."""

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
from tests.data.modules import over
from tests.prediction.tables import graph_tables, write_tables
from tests.runs import network, run_of


def of_many_sizes(folder: Path, *overrides: str) -> tuple[Path, GraphData]:
    """A run on graphs of 3 to 9 nodes, and its data."""
    nodes, edges, graphs = graph_tables(with_numbers=True)
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
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        main([str(run), "--graphs", "9", "--aoti"])
    folder = run / "export"
    said = capsys.readouterr().out
    assert "model.pt2: within" in said
    assert "for each graph: active, one of 2 classes" in (folder / "README.md").read_text()
    task = gt.load(run)
    data.open(encodings_of(task.hparams["config"]))
    one, batches = OneGraph(task.net), single_graphs(data, 100)
    with torch.no_grad():
        expected = [task(batch) for batch in batches]
    assert largest_error(run_program(folder / "model.pt2", one, batches), expected) < TOLERANCE
    assert largest_error(run_compiled(folder / "model-aoti.pt2", one, batches), expected) < TOLERANCE
    from safetensors.torch import load_file

    weights = load_file(folder / "weights.safetensors")
    for name, value in task.net.state_dict().items():
        assert torch.equal(weights[name], value), name
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert largest_error(run_onnx(folder / "model.onnx", one, batches), expected) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("mask.hops=2", "encoding=[rwse]", "encoding.rwse.dim=8"),
        ("model=transformer", "mask.hops=null", "encoding=[laplacian]", "encoding.laplacian.dim=8"),
    ],
)
def test_molecules_of_all_sizes_are_answered_as_by_the_network(
    overrides: tuple[str, ...], real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 of ESOL's molecules, those of one atom and of the most among them."""
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
    run = run_of(tmp_path, Molecules, network("model.width=32", "model.depth=3", *overrides), **options)
    data = over(GraphData, Molecules, root=str(tmp_path / "root"), **options)
    task = gt.load(run)
    data.open(encodings_of(task.hparams["config"]))
    every = sorted(single_graphs(data, 2000), key=lambda graph: graph.num_nodes)
    batches = [every[place] for place in torch.linspace(0, len(every) - 1, 100).long().tolist()]
    assert len({graph.num_nodes for graph in batches}) > 20
    one, example = OneGraph(task.net), example_of(batches)
    with torch.no_grad():
        expected = [task(batch) for batch in batches]
    results = save_traced(one, example, batches, expected, tmp_path, compiled=True)
    assert all(isinstance(off, float) for off in results.values()), results
    ways = ((run_program, "model.pt2"), (run_onnx, "model.onnx"), (run_compiled, "model-aoti.pt2"))
    for ask, name in ways:
        answers = ask(tmp_path / name, one, batches)
        off = max(float((answer - said).abs().max()) for answer, said in zip(answers, expected, strict=True))
        print(f"{name}: within {off:.1e} on graphs of {every[0].num_nodes} to {every[-1].num_nodes} nodes")
        assert off < 1e-4


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


def test_a_table_of_positions_is_traced_for_as_many_nodes_as_it_has_rows(tmp_path: Path) -> None:
    run, data = of_many_sizes(tmp_path, "mask.hops=null", "encoding=[learned]")
    task = gt.load(run)
    data.open([])
    one, batches = OneGraph(task.net), single_graphs(data, 100)
    program = program_of(one, example_of(batches)).module()
    for batch in batches:
        others = one.inputs(batch)
        x, edge_index = others.pop("x"), others.pop("edge_index")
        with torch.no_grad():
            torch.testing.assert_close(program(x, edge_index, others), task(batch), atol=TOLERANCE, rtol=TOLERANCE)


def fails(error: Exception) -> Callable[..., None]:
    def fail(*given: object) -> None:
        raise error

    return fail


def test_what_is_off_is_not_left_and_the_card_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = of_many_sizes(tmp_path, "mask.hops=1")
    wrong = lambda path, one, batches: [torch.full((1, 2), 9.0) for _ in batches]  # noqa: E731
    monkeypatch.setattr("gt.prediction.export.run_program", wrong)
    monkeypatch.setattr("gt.prediction.export.save_onnx", fails(RuntimeError("no such operator\nmore")))
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


def test_a_network_that_has_no_onnx_form_has_a_card_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = of_many_sizes(tmp_path, "mask.hops=1")
    monkeypatch.setattr("gt.prediction.export.save_onnx", fails(ImportError("gone", name="onnx")))
    main([str(run)])
    assert "no model.onnx: onnx is not installed" in capsys.readouterr().out
    card = (run / "export" / "README.md").read_text()
    assert "- `model.pt2`: within" in card
    assert "- `model.onnx`: not written: onnx is not installed" in card
    assert "Inputs of the traced network" in card


def test_without_a_compiler_there_is_no_compiled_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = of_many_sizes(tmp_path, "mask.hops=1")
    monkeypatch.setattr("gt.prediction.export.save_onnx", fails(ImportError("gone", name="onnx")))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    with pytest.raises(UserError, match=r"^no model-aoti\.pt2: PyTorch finds no C\+\+ compiler: install one"):
        main([str(run), "--aoti"])
    assert "model.pt2: within" in capsys.readouterr().out
    assert not (run / "export" / "model-aoti.pt2").exists()


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("mask=virtual",), "virtual nodes"),
        (("model=san",), "SAN computes a row for each pair of nodes"),
        (("+model.block.attention.edges=true",), "Attention computes a row for each pair of nodes"),
    ],
)
def test_a_network_that_is_not_traced_has_its_weights_and_a_card(
    overrides: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    run, _ = of_many_sizes(tmp_path, *overrides)
    with pytest.raises(UserError, match=rf"no model\.pt2 and no model\.onnx: {why}"):
        main([str(run)])
    assert {path.name for path in (run / "export").iterdir()} == {"weights.safetensors", "README.md"}


def test_a_trace_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = of_many_sizes(tmp_path)

    def fails(*given: object, **options: object) -> None:
        print("def forward(self, arg0_1):", file=sys.stderr)  # as PyTorch does where sizes go by values
        raise RuntimeError("no sizes")

    monkeypatch.setattr(torch.export, "export", fails)
    with pytest.raises(UserError, match=r"^no model\.pt2 and no model\.onnx: this network cannot be traced") as caught:
        main([str(run)])
    assert "\n" not in str(caught.value)
    assert not capsys.readouterr().err


def test_low_rank_changes_are_merged_in_a_copy(tmp_path: Path) -> None:
    run, data = of_many_sizes(tmp_path, "mask.hops=2")
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
        one = OneGraph(task.net)
        answers = [one(*(inputs.pop("x"), inputs.pop("edge_index"), inputs)) for inputs in map(one.inputs, batches)]
        again = [task(batch) for batch in batches]  # the network that was copied is as it was
    for first, copy, later in zip(expected, answers, again, strict=True):
        torch.testing.assert_close(copy, first, rtol=1e-4, atol=1e-4)
        assert torch.equal(later, first)
