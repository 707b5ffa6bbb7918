"""Predictions for new graphs and nodes from tables, JSON and GraphML: categories, the order of rows, and misfits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.errors import UserError
from tests.prediction.tables import as_graphml, as_json, graph_tables, single_graph_tables, write_tables
from tests.runs import float_columns, predictions, write_run

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module", params=[False, True], ids=["categories", "real numbers too"])
def tables_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder / "mine", *graph_tables(request.param))
    return write_run(folder, CSVGraphs, path=str(folder / "mine"), undirected=True)


def reversed_rows(tables: tuple[pd.DataFrame, ...], graphs: list[str]) -> tuple[pd.DataFrame, ...]:
    """The rows of some graphs, with rows and columns in reverse order."""
    return tuple(table[table["graph"].isin(graphs)].iloc[::-1, ::-1] for table in tables)


def test_categories_of_new_tables_keep_their_codes(tables_run: Path, tmp_path: Path) -> None:
    split = predictions(tables_run, "--split", "test").set_index("graph")
    tables = graph_tables("charge" in (tables_run.parent / "mine" / "nodes.csv").read_text())
    for graph in split.index[:3]:  # a single graph has fewer categories than the training data
        nodes, edges, graphs = reversed_rows(tables, [graph])
        new = write_tables(tmp_path / graph, nodes, edges, graphs.drop(columns=["active", "split"]))
        table = predictions(tables_run, f"data.path={new}")
        assert table["graph"].tolist() == [graph]
        assert table["prediction"].tolist() == [split["prediction"][graph]]
        np.testing.assert_allclose(float(table["probability"][0]), float(split["probability"][graph]), **CLOSE)
    new = write_tables(tmp_path / "all", *reversed_rows(tables, list(split.index)))
    table = predictions(tables_run, f"data.path={new}")
    assert table.columns.tolist() == ["split", "active", "graph", "prediction", "probability"]
    assert table["graph"].tolist() == list(split.index)[::-1]
    np.testing.assert_allclose(float_columns(table, "probability")[::-1], float_columns(split, "probability"), **CLOSE)


def test_table_of_graphs_is_optional(tables_run: Path, tmp_path: Path) -> None:
    split = predictions(tables_run, "--split", "test")
    nodes, edges, _ = reversed_rows(
        graph_tables("charge" in (tables_run.parent / "mine" / "nodes.csv").read_text()), ["m25", "m24"]
    )
    table = predictions(tables_run, f"data.path={write_tables(tmp_path / 'new', nodes, edges, None)}")
    assert table["graph"].tolist() == ["m25", "m24"]
    np.testing.assert_allclose(
        float_columns(table, "probability")[::-1], float_columns(split, "probability")[:2], **CLOSE
    )


def test_text_of_digits_stays_text(tmp_path: Path) -> None:
    nodes, edges, graphs = graph_tables(with_numbers=False)
    for graph, element in (("m24", "01"), ("m25", "1")):
        nodes.loc[nodes["graph"] == graph, "element"] = element
    run = write_run(tmp_path, CSVGraphs, path=str(write_tables(tmp_path / "mine", nodes, edges, graphs)))
    split = predictions(run, "--split", "test").set_index("graph")
    for graph in ("m24", "m25"):
        new = write_tables(tmp_path / graph, *reversed_rows((nodes, edges, graphs), [graph]))
        table = predictions(run, f"data.path={new}")
        np.testing.assert_allclose(float(table["probability"][0]), float(split["probability"][graph]), **CLOSE)
    assert split["probability"]["m24"] != split["probability"]["m25"]


def test_node_predictions_keep_file_order(tmp_path: Path) -> None:
    nodes, edges, graphs = graph_tables(with_numbers=True)
    nodes["label"] = np.arange(90) % 2
    graphs = graphs[["graph", "split"]]
    run = write_run(tmp_path, CSVGraphs, path=str(write_tables(tmp_path / "mine", nodes, edges, graphs)))
    split = predictions(run, "--split", "test").set_index("node")
    new_nodes = nodes[nodes["graph"].isin(graphs["graph"][24:])].sort_values("charge")  # the rows of graphs are mixed
    new_edges = edges[edges["graph"].isin(graphs["graph"][24:])]
    table = predictions(
        run, f"data.path={write_tables(tmp_path / 'new', new_nodes.drop(columns='label'), new_edges, None)}"
    )
    assert table["node"].tolist() == new_nodes["node"].tolist()
    table = table.set_index("node").loc[split.index]
    np.testing.assert_allclose(float_columns(table, "probability"), float_columns(split, "probability"), **CLOSE)


def test_graph_with_unknown_value_has_no_prediction(tables_run: Path, tmp_path: Path) -> None:
    split = predictions(tables_run, "--split", "test").set_index("graph")
    tables = graph_tables("charge" in (tables_run.parent / "mine" / "nodes.csv").read_text())
    nodes, edges, graphs = reversed_rows(tables, ["m24", "m25", "m26", "m27"])
    nodes.iloc[0, nodes.columns.get_loc("element")] = "Xe"  # of m27, in line 2
    edges.iloc[-1, edges.columns.get_loc("bond")] = np.nan  # of m24, in line 9
    new = write_tables(tmp_path / "new", nodes, edges, graphs)
    table = predictions(tables_run, f"data.path={new}").set_index("graph")
    assert list(table.index) == ["m27", "m26", "m25", "m24"]
    assert table["prediction"].astype(bool).tolist() == [False, True, True, False]
    np.testing.assert_allclose(
        float_columns(table.loc[["m26", "m25"]], "probability"),
        float_columns(split.loc[["m26", "m25"]], "probability"),
        **CLOSE,
    )
    reasons = pd.read_csv(tables_run.parent / "predicted.unreadable.csv").set_index("row")["reason"]
    assert set(reasons.index) == {0, 3}
    assert all(words in reasons[0] for words in ("line 2", "element", "Xe"))
    assert all(words in reasons[3] for words in ("line 9", "bond"))


def test_missing_column_is_reported_by_name(tables_run: Path, tmp_path: Path) -> None:
    nodes, edges, graphs = graph_tables(with_numbers=True)
    new = write_tables(tmp_path / "new", nodes.rename(columns={"element": "elem"}), edges, graphs)
    with pytest.raises(UserError, match=r"nodes\.csv.*'element'.*'elem'"):
        predictions(tables_run, f"data.path={new}")


@pytest.mark.parametrize("ending", ["json", "graphml"])
def test_categories_of_new_graph_files_keep_their_codes(tmp_path: Path, ending: str) -> None:
    write = {"json": lambda tables: json.dumps(as_json(tables)), "graphml": as_graphml}[ending]
    tables = graph_tables(with_numbers=False)
    (tmp_path / f"mine.{ending}").write_text(write(tables))
    run = write_run(tmp_path, GraphFiles, path=str(tmp_path / f"mine.{ending}"))
    split = predictions(run, "--split", "test")
    (tmp_path / f"new.{ending}").write_text(write(reversed_rows(tables, [f"m{n}" for n in range(24, 30)])))
    table = predictions(run, f"data.path={tmp_path / f'new.{ending}'}")
    np.testing.assert_allclose(float_columns(table, "probability")[::-1], float_columns(split, "probability"), **CLOSE)
    (tmp_path / f"one.{ending}").write_text(write(reversed_rows((tables[0], tables[1], tables[2][["graph"]]), ["m24"])))
    one = predictions(run, f"data.path={tmp_path / f'one.{ending}'}")
    np.testing.assert_allclose(float_columns(one, "probability")[0], float_columns(split, "probability")[0], **CLOSE)


def test_edge_direction_must_match_training(tmp_path: Path) -> None:
    tables = graph_tables(with_numbers=False)
    (tmp_path / "mine.json").write_text(json.dumps(as_json(tables)))
    run = write_run(tmp_path, GraphFiles, path=str(tmp_path / "mine.json"))
    new = [graph | {"directed": True} for graph in as_json(tables)]
    (tmp_path / "new.json").write_text(json.dumps(new))
    with pytest.raises(UserError, match=r"new\.json.*data\.undirected=true"):
        predictions(run, f"data.path={tmp_path / 'new.json'}")
    assert len(predictions(run, f"data.path={tmp_path / 'new.json'}", "data.undirected=true")) == 30


def test_every_node_of_a_new_graph_is_predicted(tmp_path: Path, capsys: Any) -> None:
    nodes, edges = single_graph_tables()
    write_tables(tmp_path / "mine", nodes, edges, None)
    run = write_run(tmp_path, CSVGraphs, module=NodeData, path=str(tmp_path / "mine"))
    split = predictions(run, "--split", "test").set_index("node")
    new_nodes = nodes.iloc[::-1].drop(columns=["label", "split"])
    table = predictions(run, f"data.path={write_tables(tmp_path / 'new', new_nodes, edges.iloc[::-1], None)}")
    assert table.columns.tolist() == ["node", "field", "prediction", "probability"]
    assert table["node"].tolist() == new_nodes["node"].tolist()
    table = table.set_index("node").loc[split.index]
    np.testing.assert_allclose(float_columns(table, "probability"), float_columns(split, "probability"), **CLOSE)
    new_nodes["field"] = new_nodes["field"].replace("law", "sport")
    with pytest.raises(UserError, match=r"nodes\.csv, line \d+: 'field' is 'sport'"):
        predictions(run, f"data.path={write_tables(tmp_path / 'strange', new_nodes, edges, None)}")


def test_new_nodes_without_features_use_degrees(tmp_path: Path) -> None:
    nodes, edges = single_graph_tables()
    nodes = nodes.drop(columns="field")

    def write(name: str, nodes: pd.DataFrame) -> str:
        records = nodes.rename(columns={"node": "id"}).to_dict("records")
        records = [{key: None if pd.isna(value) else value for key, value in record.items()} for record in records]
        graph = {"nodes": records, "links": edges.to_dict("records")}
        (tmp_path / name).write_text(json.dumps({"directed": True, **graph}))
        return str(tmp_path / name)

    run = write_run(tmp_path, GraphFiles, module=NodeData, path=write("mine.json", nodes))
    split = predictions(run, "--split", "test").set_index("node")
    new_nodes = nodes.drop(columns="split").iloc[::-1]
    new_nodes["label"] = np.array([label if label == "u" else None for label in new_nodes["label"]], dtype=object)
    table = predictions(run, f"data.path={write('new.json', new_nodes)}").set_index("node").loc[split.index]
    np.testing.assert_allclose(float_columns(table, "probability"), float_columns(split, "probability"), **CLOSE)
    # a degree above those in training counts as the largest of these
    hub = pd.DataFrame({"source": nodes["node"][1:], "target": "p0"})
    edges = pd.concat([edges[edges["target"] != "p0"], hub])
    assert len(predictions(run, f"data.path={write('hub.json', new_nodes)}")) == 40
