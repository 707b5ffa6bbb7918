"""Data that are new to a trained model: read as it has learned to read, every row in order, targets or not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.data.text.classification import TextClassification
from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData
from gt.errors import UserError
from tests.runs import network, numbers, predictions, run_of

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 60 texts whose words differ from row to row."""
    folder = tmp_path_factory.mktemp("text")
    rng, words = np.random.default_rng(0), [f"word{n}" for n in range(40)]
    rows = [f"{' '.join(rng.choice(words, 6))}\t{'good' if n % 2 else 'bad'}" for n in range(60)]
    (folder / "mine.tsv").write_text("\n".join(["review\tlabel", *rows]) + "\n")
    return run_of(folder, TextClassification, path=str(folder / "mine.tsv"), vocabulary=30)


def test_new_texts_use_the_training_tokenizer(text_run: Path, capsys: Any) -> None:
    split = predictions(text_run, "--split", "test")
    new = text_run.parent / "fresh.tsv"
    rows = zip(split["text"], split["target"], strict=True)
    new.write_text("\n".join(["number\tlabel\treview", *(f"{n}\t{y}\t{text}" for n, (text, y) in enumerate(rows))]))
    scores = capsys.readouterr().out.partition(".csv")[2]
    table = predictions(text_run, f"data.path={new}")
    assert table.columns.tolist() == ["number", "label", "review", "prediction", "probability"]
    assert table["number"].tolist() == list(map(str, range(len(split))))
    assert table["prediction"].tolist() == split["prediction"].tolist()
    np.testing.assert_allclose(numbers(table, "probability"), numbers(split, "probability"), **CLOSE)
    assert capsys.readouterr().out.partition(".csv")[2] == scores != ""


@pytest.mark.parametrize("name", ["one_column.csv", "lines.txt", "objects.jsonl", "no_header.csv"])
def test_unlabelled_texts_are_predicted(text_run: Path, name: str, capsys: Any) -> None:
    texts = ["word1 word2", "  ", "never seen before", "word3"]
    contents = {"one_column.csv": ["review", *(f'"{text}"' for text in texts)], "lines.txt": texts}
    contents["objects.jsonl"] = [json.dumps({"review": text, "id": n}) for n, text in enumerate(texts)]
    contents["no_header.csv"] = [f'"{text}"' for text in texts]
    path = text_run.parent / name
    path.write_text("\n".join(contents[name]) + "\n")
    table = predictions(text_run, f"data.path={path}")
    assert len(table) == 4
    assert [bool(cell) for cell in table["prediction"]] == [True, False, True, True]
    listed = pd.read_csv(text_run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [1]
    assert f"{path}, line {3 if name == 'one_column.csv' else 2}" in listed["reason"][0]
    assert "accuracy" not in capsys.readouterr().out  # there is nothing to score by


def test_training_options_need_not_be_repeated(tmp_path: Path) -> None:
    rows = [f"this is text {n} of many words\t{'good' if n % 2 else 'bad'}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    run = run_of(tmp_path, TextClassification, path=str(tmp_path / "mine.tsv"), longest=4, tokens="bytes")
    every = predictions(run, "--split", "all")
    path = f"data.path={tmp_path / 'mine.tsv'}"
    assert predictions(run, "data=text_classification", path).equals(every)
    with pytest.raises(UserError, match=r"data\.longest=9"):
        predictions(run, path, "data.longest=9")


def test_file_with_only_a_header(text_run: Path) -> None:
    path = text_run.parent / "nothing.tsv"
    path.write_text("review\tnumber\n")
    assert predictions(text_run, f"data.path={path}").columns.tolist()[:3] == ["review", "number", "prediction"]
    path.write_text("")
    with pytest.raises(UserError, match=r"nothing\.tsv is empty"):
        predictions(text_run, f"data.path={path}")


def test_header_is_recognised_by_training_columns(tmp_path: Path, capsys: Any) -> None:
    rows = [f"this is text {n},{'good' if n % 2 else 'bad'}" for n in range(40)]
    (tmp_path / "mine.csv").write_text("\n".join(["phrase,polarity", *rows]))
    run = run_of(tmp_path, TextClassification, path=str(tmp_path / "mine.csv"))
    capsys.readouterr()
    path = tmp_path / "new.csv"
    for header in ("id,phrase", "author,phrase"):
        path.write_text(f"{header}\nann,text 3\nbob,text 4\n")
        table = predictions(run, f"data.path={path}")
        assert (table.columns.tolist()[:2], len(table)) == (header.split(","), 2)
    assert "line 1" not in capsys.readouterr().out
    path.write_text("author,remark\nann,text 3\nbob,text 4\n")  # nothing tells whether these are names
    assert len(predictions(run, f"data.path={path}")) == 3
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "line 1" in line)
    assert str(path) in line
    assert "'phrase'" in line
    assert len(predictions(run, f"data.path={path}", "data.text=remark")) == 2
    path.write_text("id,remark\n1,text 3\n2,text 4\n")
    with pytest.raises(UserError, match=r"'phrase'.* id, remark, such as data\.text=remark"):
        predictions(run, f"data.path={path}")


def test_unknown_label_is_not_scored(text_run: Path, capsys: Any) -> None:
    path = text_run.parent / "strange.tsv"
    path.write_text("label\treview\ngood\tword1\nugly\tword2\n\tword3\n")
    table = predictions(text_run, f"data.path={path}")
    assert table["label"].tolist() == ["good", "ugly", ""]
    assert all(table["prediction"])
    assert "'ugly'" in capsys.readouterr().out


def test_changed_file_is_rejected_as_training_data(tmp_path: Path) -> None:
    rows = [f"this is text {n}\t{'good' if n % 2 else 'bad'}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    run = run_of(tmp_path, TextClassification, path=str(tmp_path / "mine.tsv"))
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows[::-1], "another word\tgood"]))
    with pytest.raises(UserError, match="--split all"):
        predictions(run, "--split", "test")
    assert len(predictions(run, "--split", "all")) == 41


def test_characters_use_the_training_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("to be, or not to be\n" * 40)
    run = run_of(tmp_path, Text, network("mask=causal"), LanguageData, path=str(tmp_path / "a.txt"), context=8)
    (tmp_path / "b.txt").write_text("to be, or not to be\n" * 4)  # the validation text, with the same characters
    split = predictions(run, "--split", "valid")
    (tmp_path / "c.txt").write_text("not\n" * 9)
    assert predictions(run, f"data.path={tmp_path / 'b.txt'}").equals(split)
    assert len(predictions(run, f"data.path={tmp_path / 'c.txt'}")) == 35
    (tmp_path / "d.txt").write_text("quite\n" * 9)
    with pytest.raises(UserError, match=r"d\.txt: the character 'q'"):
        predictions(run, f"data.path={tmp_path / 'd.txt'}")


# --- tables of nodes, edges and graphs -------------------------------------------------------------------------------


def graph_tables(with_numbers: bool) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tables of 30 graphs, each a path of three atoms; ``with_numbers``: real numbers beside the categories."""
    rng = np.random.default_rng(1)
    splits = ["train"] * 18 + ["valid"] * 6 + ["test"] * 6
    graphs = pd.DataFrame({"graph": [f"m{n}" for n in range(30)], "active": np.arange(30) % 2, "split": splits})
    owner = np.repeat(graphs["graph"], 3).to_numpy()
    nodes = pd.DataFrame(
        {"graph": owner, "node": [f"a{n}" for n in range(90)], "element": rng.choice(list("CNOS"), 90)}
    )
    nodes["ring"] = rng.integers(3, 6, 90)
    if with_numbers:
        nodes["charge"] = rng.normal(size=90).round(2)
    ends = {"source": nodes["node"][np.arange(90) % 3 < 2].to_numpy(), "target": nodes["node"][np.arange(90) % 3 > 0]}
    edges = pd.DataFrame({"graph": owner[np.arange(90) % 3 > 0], **ends, "bond": rng.choice(["one", "two", "ar"], 60)})
    return nodes, edges, graphs


def write_tables(folder: Path, nodes: pd.DataFrame, edges: pd.DataFrame, graphs: pd.DataFrame | None) -> Path:
    folder.mkdir()
    for name, table in {"nodes": nodes, "edges": edges, "graphs": graphs}.items():
        if table is not None:
            table.to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["categories", "real numbers too"])
def tables_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder / "mine", *graph_tables(request.param))
    return run_of(folder, CSVGraphs, path=str(folder / "mine"), undirected=True)


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
    np.testing.assert_allclose(numbers(table, "probability")[::-1], numbers(split, "probability"), **CLOSE)


def test_table_of_graphs_is_optional(tables_run: Path, tmp_path: Path) -> None:
    split = predictions(tables_run, "--split", "test")
    nodes, edges, _ = reversed_rows(
        graph_tables("charge" in (tables_run.parent / "mine" / "nodes.csv").read_text()), ["m25", "m24"]
    )
    table = predictions(tables_run, f"data.path={write_tables(tmp_path / 'new', nodes, edges, None)}")
    assert table["graph"].tolist() == ["m25", "m24"]
    np.testing.assert_allclose(numbers(table, "probability")[::-1], numbers(split, "probability")[:2], **CLOSE)


def test_text_of_digits_stays_text(tmp_path: Path) -> None:
    nodes, edges, graphs = graph_tables(with_numbers=False)
    for graph, element in (("m24", "01"), ("m25", "1")):
        nodes.loc[nodes["graph"] == graph, "element"] = element
    run = run_of(tmp_path, CSVGraphs, path=str(write_tables(tmp_path / "mine", nodes, edges, graphs)))
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
    run = run_of(tmp_path, CSVGraphs, path=str(write_tables(tmp_path / "mine", nodes, edges, graphs)))
    split = predictions(run, "--split", "test").set_index("node")
    new_nodes = nodes[nodes["graph"].isin(graphs["graph"][24:])].sort_values("charge")  # the rows of graphs are mixed
    new_edges = edges[edges["graph"].isin(graphs["graph"][24:])]
    table = predictions(
        run, f"data.path={write_tables(tmp_path / 'new', new_nodes.drop(columns='label'), new_edges, None)}"
    )
    assert table["node"].tolist() == new_nodes["node"].tolist()
    table = table.set_index("node").loc[split.index]
    np.testing.assert_allclose(numbers(table, "probability"), numbers(split, "probability"), **CLOSE)


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
        numbers(table.loc[["m26", "m25"]], "probability"), numbers(split.loc[["m26", "m25"]], "probability"), **CLOSE
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


def as_json(tables: tuple[pd.DataFrame, ...]) -> list[dict[str, Any]]:
    nodes, edges, graphs = tables
    converted = []
    for attributes in graphs.to_dict("records"):
        name = attributes.pop("graph")
        members, links = (rows[rows["graph"] == name].drop(columns="graph") for rows in (nodes, edges))
        records = members.rename(columns={"node": "id"}).to_dict("records")
        converted.append({"directed": False, "graph": attributes, "nodes": records, "links": links.to_dict("records")})
    return converted


def as_graphml(tables: tuple[pd.DataFrame, ...]) -> str:
    lines = ["<graphml>"]
    for name, kind in {
        "element": "string",
        "ring": "int",
        "bond": "string",
        "active": "int",
        "split": "string",
    }.items():
        lines.append(f'<key id="{name}" for="all" attr.name="{name}" attr.type="{kind}"/>')
    for graph in as_json(tables):
        lines.append('<graph edgedefault="undirected">')
        lines += [f'<data key="{name}">{value}</data>' for name, value in graph["graph"].items()]
        for node in graph["nodes"]:
            inner = "".join(f'<data key="{name}">{value}</data>' for name, value in node.items() if name != "id")
            lines.append(f'<node id="{node["id"]}">{inner}</node>')
        for edge in graph["links"]:
            ends = f'source="{edge["source"]}" target="{edge["target"]}"'
            lines.append(f'<edge {ends}><data key="bond">{edge["bond"]}</data></edge>')
        lines.append("</graph>")
    return "\n".join([*lines, "</graphml>"])


@pytest.mark.parametrize("ending", ["json", "graphml"])
def test_categories_of_new_graph_files_keep_their_codes(tmp_path: Path, ending: str) -> None:
    write = {"json": lambda tables: json.dumps(as_json(tables)), "graphml": as_graphml}[ending]
    tables = graph_tables(with_numbers=False)
    (tmp_path / f"mine.{ending}").write_text(write(tables))
    run = run_of(tmp_path, GraphFiles, path=str(tmp_path / f"mine.{ending}"))
    split = predictions(run, "--split", "test")
    (tmp_path / f"new.{ending}").write_text(write(reversed_rows(tables, [f"m{n}" for n in range(24, 30)])))
    table = predictions(run, f"data.path={tmp_path / f'new.{ending}'}")
    np.testing.assert_allclose(numbers(table, "probability")[::-1], numbers(split, "probability"), **CLOSE)
    (tmp_path / f"one.{ending}").write_text(write(reversed_rows((tables[0], tables[1], tables[2][["graph"]]), ["m24"])))
    one = predictions(run, f"data.path={tmp_path / f'one.{ending}'}")
    np.testing.assert_allclose(numbers(one, "probability")[0], numbers(split, "probability")[0], **CLOSE)


def test_edge_direction_must_match_training(tmp_path: Path) -> None:
    tables = graph_tables(with_numbers=False)
    (tmp_path / "mine.json").write_text(json.dumps(as_json(tables)))
    run = run_of(tmp_path, GraphFiles, path=str(tmp_path / "mine.json"))
    new = [graph | {"directed": True} for graph in as_json(tables)]
    (tmp_path / "new.json").write_text(json.dumps(new))
    with pytest.raises(UserError, match=r"new\.json.*data\.undirected=true"):
        predictions(run, f"data.path={tmp_path / 'new.json'}")
    assert len(predictions(run, f"data.path={tmp_path / 'new.json'}", "data.undirected=true")) == 30


# --- nodes -----------------------------------------------------------------------------------------------------------


def single_graph_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(2)
    nodes = pd.DataFrame({"node": [f"p{n}" for n in range(40)], "field": rng.choice(["bio", "art", "law"], 40)})
    nodes["label"] = rng.choice(["u", "v"], 40)
    nodes["split"] = ["train"] * 20 + ["valid"] * 10 + ["test"] * 10
    ends = np.unique(rng.integers(0, 40, (80, 2)), axis=0)
    return nodes, pd.DataFrame(
        {"source": nodes["node"].to_numpy()[ends[:, 0]], "target": nodes["node"].to_numpy()[ends[:, 1]]}
    )


def test_every_node_of_a_new_graph_is_predicted(tmp_path: Path, capsys: Any) -> None:
    nodes, edges = single_graph_tables()
    write_tables(tmp_path / "mine", nodes, edges, None)
    run = run_of(tmp_path, CSVGraphs, module=NodeData, path=str(tmp_path / "mine"))
    split = predictions(run, "--split", "test").set_index("node")
    new_nodes = nodes.iloc[::-1].drop(columns=["label", "split"])
    table = predictions(run, f"data.path={write_tables(tmp_path / 'new', new_nodes, edges.iloc[::-1], None)}")
    assert table.columns.tolist() == ["node", "field", "prediction", "probability"]
    assert table["node"].tolist() == new_nodes["node"].tolist()
    table = table.set_index("node").loc[split.index]
    np.testing.assert_allclose(numbers(table, "probability"), numbers(split, "probability"), **CLOSE)
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

    run = run_of(tmp_path, GraphFiles, module=NodeData, path=write("mine.json", nodes))
    split = predictions(run, "--split", "test").set_index("node")
    new_nodes = nodes.drop(columns="split").iloc[::-1]
    new_nodes["label"] = np.array([label if label == "u" else None for label in new_nodes["label"]], dtype=object)
    table = predictions(run, f"data.path={write('new.json', new_nodes)}").set_index("node").loc[split.index]
    np.testing.assert_allclose(numbers(table, "probability"), numbers(split, "probability"), **CLOSE)
    # a degree above those in training counts as the largest of these
    hub = pd.DataFrame({"source": nodes["node"][1:], "target": "p0"})
    edges = pd.concat([edges[edges["target"] != "p0"], hub])
    assert len(predictions(run, f"data.path={write('hub.json', new_nodes)}")) == 40
