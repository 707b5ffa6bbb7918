"""Several targets of custom data: their names, their requested order and their units."""

import json
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.prediction.by_target import ErrorsByTarget
from gt.schema import Schema
from gt.train.breakdown import Breakdown
from gt.train.extremes import sample_losses
from gt.train.figures import MAX_TARGETS, prediction_figure
from tests.data.modules import make_data
from tests.data.tables_of import write_tables
from tests.runs import float_columns, predictions, write_run
from tests.small_runs import train

UNITS = Schema(
    kind="regression", outputs=3, names=("logS", "twice", "tiny"), mean=(-5, 1000, 1e-4), scale=(2, 50, 1e-5)
)


def make_rows(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and targets in the units of `UNITS`; some targets are missing."""
    rng = np.random.default_rng(0)
    standardised = rng.normal(size=(2, count, 3))
    prediction, target = standardised * UNITS.scale + np.array(UNITS.mean)
    target[rng.random(target.shape) < 0.3] = np.nan
    return prediction.astype(np.float32), target.astype(np.float32)


@pytest.fixture
def nodes_run(tmp_path: Path, capsys: Any) -> tuple[Path, str]:
    """A run on a graph whose nodes have an age before a score, with targets in the reverse order; and its output."""
    graph = nx.cycle_graph(60)
    for node, data in graph.nodes.data():
        data |= {"age": 20 + node % 7 + 0.5, "kind": "ab"[node % 2], "score": 1000.0 * node}
    nx.write_graphml(graph, tmp_path / "g.graphml")
    options: dict[str, Any] = {"path": str(tmp_path / "g.graphml"), "target": ["score", "age"]}
    run = write_run(tmp_path, GraphFiles, module=NodeData, **options)
    return run, capsys.readouterr().out


def test_targets_keep_requested_order_and_names(nodes_run: tuple[Path, str], capsys: Any) -> None:
    run, printed = nodes_run
    assert "nodes  target: score, age; categories: kind\n" in printed
    table = predictions(run, "--split", "test")
    names = ["prediction_score", "prediction_age", "target_score", "target_age"]
    assert table.columns.tolist() == ["node", *names]
    node = table["node"].astype(int).to_numpy()
    np.testing.assert_allclose(float_columns(table, *names[2:]), np.stack([1000 * node, 20.5 + node % 7], axis=1))
    capsys.readouterr()
    new = predictions(run, f"data.path={run.parent / 'g.graphml'}")
    assert new.columns.tolist() == ["node", "age", "kind", "score", *names[:2]]
    lines = capsys.readouterr().out.splitlines()
    for name, line in zip(("score", "age"), lines[-2:], strict=True):
        error = np.subtract(*float_columns(new, f"prediction_{name}", name).T)
        label, mae, mae_value, rmse, rmse_value = line.split()
        assert (label, mae, rmse) == (name, "mae", "rmse")
        assert float(mae_value) == pytest.approx(np.abs(error).mean(), rel=1e-3)
        assert float(rmse_value) == pytest.approx(np.sqrt((error**2).mean()), rel=1e-3)
    assert "prediction" in lines[-3]
    assert "mae_" not in lines[-3]


def test_checkpoint_without_names_numbers_its_targets(nodes_run: tuple[Path, str]) -> None:
    run = nodes_run[0]
    path = run / "checkpoints" / "best.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["hyper_parameters"]["schema"]["names"] = []
    torch.save(saved, path)
    for arguments in (["--split", "test"], [f"data.path={run.parent / 'g.graphml'}"]):
        names = [name for name in predictions(run, *arguments) if name.startswith("prediction")]
        assert names == ["prediction_0", "prediction_1"]


def test_graph_targets_are_named_and_deduplicated(tmp_path: Path) -> None:
    graphs = "graph,b,a,split\nm3,1.5,7,train\nm1,0.25,8,valid\nm2,-2,9,train\n"
    path = write_tables(tmp_path / "csv", graphs=graphs)
    for requested, names in (
        (["a", "b"], ("a", "b")), (None, ("b", "a")), (["a", "b", "a"], ("a", "b")), ("b", ("b",))
    ):  # fmt: skip
        data = make_data(GraphData, CSVGraphs, path=str(path), target=requested, root=str(tmp_path / "root"))
        data.open([])
        assert data.schema.names == data.schema.target == names
        roles = data.graphs.notes["attributes"]["graphs"]
        assert [name for name, role in roles.items() if role == "target"] == list(names)


def test_each_target_has_its_own_axes() -> None:
    prediction, target = make_rows()
    figure = prediction_figure(UNITS, prediction, target)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == list(UNITS.names)
    for n, axes in enumerate(figure.axes):
        known = ~np.isnan(target[:, n])
        points: Any = axes.collections[0].get_offsets()
        np.testing.assert_allclose(points, np.stack([target[known, n], prediction[known, n]], axis=1))
        low, high = axes.get_xlim()
        assert high - low < 2 * np.ptp(target[known, n])
    target[:, 1] = np.nan
    figure = prediction_figure(UNITS, prediction, target)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["logS", "tiny"]  # the other has nothing to show


def test_figure_shows_first_targets_and_counts_the_rest() -> None:
    schema = Schema(kind="regression", outputs=MAX_TARGETS + 4)
    values = np.random.default_rng(0).normal(size=(2, 30, schema.outputs))
    figure = prediction_figure(schema, *values)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == [f"target {n}" for n in range(MAX_TARGETS)]
    assert "4 more" in figure.get_suptitle()
    single = prediction_figure(Schema(kind="regression"), *values[:, :, :1])
    assert single is not None
    assert single.get_suptitle() == ""


def test_errors_by_target_match_loop() -> None:
    prediction, target = map(torch.tensor, make_rows())
    target[:, 2] = torch.nan
    breakdown, metric = Breakdown(UNITS), ErrorsByTarget(UNITS)
    for part in (slice(0, 15), slice(15, None)):
        breakdown.add(prediction[part], target[part], None)
        metric.update(prediction[part], target[part])
    scores = {name: float(value) for name, value in metric.compute().items()}
    lines = metric.lines(scores)
    for n, row in enumerate(breakdown.targets().to_dict("records")):
        error = (prediction - target)[:, n].double().numpy()
        known = error[~np.isnan(error)]
        assert (row["target"], row["targets"]) == (UNITS.names[n], len(known))
        mae, rmse = (np.abs(known).mean(), np.sqrt((known**2).mean())) if len(known) else (np.nan, np.nan)
        actual = [row["mae"], row["rmse"], *(scores[f"{score}_{UNITS.names[n]}"] for score in ("mae", "rmse"))]
        np.testing.assert_allclose(actual, [mae, rmse, mae, rmse], rtol=1e-5)
        assert lines[n].startswith(f"  {UNITS.names[n].ljust(5)}  mae ")
    assert "undefined" in lines[2]
    many = ErrorsByTarget(Schema(kind="regression", outputs=12))
    assert many.lines(dict.fromkeys(many.reported, 0.5))[-1] == "  and 3 more"
    assert len(Breakdown(Schema(kind="regression")).targets()) == 0


def test_sample_losses_are_in_units_of_the_scale() -> None:
    mean, scale = (torch.tensor(values) for values in (UNITS.mean, UNITS.scale))
    errors = torch.tensor([[0.1, 0.1, 0.1], [torch.nan, torch.nan, 3.0], [torch.nan, 0.5, torch.nan]])
    target = (mean + errors * scale).where(~errors.isnan(), torch.nan)
    actual = sample_losses(UNITS, mean.expand(3, 3), target)
    torch.testing.assert_close(actual, torch.tensor([0.1, 3.0, 0.5]), rtol=1e-3, atol=1e-4)
    single = Schema(kind="regression", mean=(3.0,), scale=(10.0,))
    assert sample_losses(single, torch.tensor([[5.0]]), torch.tensor([[9.0]])).item() == 4  # in the unit of the data


def test_report_has_a_row_for_each_target(tmp_path: Path) -> None:
    rng, lines = np.random.default_rng(0), []
    for n in range(36):
        attributes = {
            "split": ("train", "valid", "test")[n % 3],
            "tiny": 1e-4 * rng.normal(),
            "twice": 1e3 + rng.normal(),
        }
        nodes = [{"id": k, "kind": int(rng.integers(3))} for k in range(2 + n % 5)]
        lines.append(json.dumps({"graph": attributes, "nodes": nodes, "edges": [{"source": 0, "target": 1}]}))
    (tmp_path / "g.jsonl").write_text("\n".join(lines))
    options = (f"path={tmp_path / 'g.jsonl'}", f"root={tmp_path}", "target=[twice,tiny]")
    train(tmp_path / "run", *(f"data.source.{option}" for option in options), "trainer.max_epochs=1")
    page = (tmp_path / "run" / "report.html").read_text().partition("Errors by target")[2]
    assert page.index("twice") < page.index("tiny")
    assert "units of its standard deviation" in page
