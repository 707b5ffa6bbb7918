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
    draw, words = np.random.default_rng(0), [f"word{n}" for n in range(40)]
    rows = [f"{' '.join(draw.choice(words, 6))}\t{'good' if n % 2 else 'bad'}" for n in range(60)]
    (folder / "mine.tsv").write_text("\n".join(["review\tlabel", *rows]) + "\n")
    return run_of(folder, TextClassification, path=str(folder / "mine.tsv"), vocabulary=30)


def test_new_texts_are_read_by_the_tokenizer_of_the_training(text_run: Path, capsys: Any) -> None:
    split = predictions(text_run, "--split", "test")
    fresh = text_run.parent / "fresh.tsv"
    rows = zip(split["text"], split["target"], strict=True)
    fresh.write_text("\n".join(["number\tlabel\treview", *(f"{n}\t{y}\t{text}" for n, (text, y) in enumerate(rows))]))
    scored = capsys.readouterr().out.partition(".csv")[2]
    found = predictions(text_run, f"data.path={fresh}")
    assert found.columns.tolist() == ["number", "label", "review", "prediction", "probability"]
    assert found["number"].tolist() == list(map(str, range(len(split))))
    assert found["prediction"].tolist() == split["prediction"].tolist()
    np.testing.assert_allclose(numbers(found, "probability"), numbers(split, "probability"), **CLOSE)
    assert capsys.readouterr().out.partition(".csv")[2] == scored != ""


@pytest.mark.parametrize("name", ["one_column.csv", "lines.txt", "objects.jsonl", "no_header.csv"])
def test_texts_without_labels(text_run: Path, name: str, capsys: Any) -> None:
    texts = ["word1 word2", "  ", "never seen before", "word3"]
    lines = {"one_column.csv": ["review", *(f'"{text}"' for text in texts)], "lines.txt": texts}
    lines["objects.jsonl"] = [json.dumps({"review": text, "id": n}) for n, text in enumerate(texts)]
    lines["no_header.csv"] = [f'"{text}"' for text in texts]
    path = text_run.parent / name
    path.write_text("\n".join(lines[name]) + "\n")
    found = predictions(text_run, f"data.path={path}")
    assert len(found) == 4
    assert [bool(cell) for cell in found["prediction"]] == [True, False, True, True]
    listed = pd.read_csv(text_run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [1]
    assert f"{path}, line {3 if name == 'one_column.csv' else 2}" in listed["reason"][0]
    assert "accuracy" not in capsys.readouterr().out  # nothing to score by


def test_the_options_of_the_training_need_not_be_repeated(tmp_path: Path) -> None:
    rows = [f"this is text {n} of many words\t{'good' if n % 2 else 'bad'}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    run = run_of(tmp_path, TextClassification, path=str(tmp_path / "mine.tsv"), longest=4, tokens="bytes")
    every = predictions(run, "--split", "all")
    path = f"data.path={tmp_path / 'mine.tsv'}"
    assert predictions(run, "data=text_classification", path).equals(every)
    with pytest.raises(UserError, match=r"data\.longest=9"):
        predictions(run, path, "data.longest=9")


def test_a_file_with_a_header_alone(text_run: Path) -> None:
    path = text_run.parent / "nothing.tsv"
    path.write_text("review\tnumber\n")
    assert predictions(text_run, f"data.path={path}").columns.tolist()[:3] == ["review", "number", "prediction"]
    path.write_text("")
    with pytest.raises(UserError, match=r"nothing\.tsv is empty"):
        predictions(text_run, f"data.path={path}")


def test_a_header_is_known_by_the_names_of_the_training(tmp_path: Path, capsys: Any) -> None:
    rows = [f"this is text {n},{'good' if n % 2 else 'bad'}" for n in range(40)]
    (tmp_path / "mine.csv").write_text("\n".join(["phrase,polarity", *rows]))
    run = run_of(tmp_path, TextClassification, path=str(tmp_path / "mine.csv"))
    capsys.readouterr()
    path = tmp_path / "new.csv"
    for header in ("id,phrase", "author,phrase"):
        path.write_text(f"{header}\nann,text 3\nbob,text 4\n")
        found = predictions(run, f"data.path={path}")
        assert (found.columns.tolist()[:2], len(found)) == (header.split(","), 2)
    assert "line 1" not in capsys.readouterr().out
    path.write_text("author,remark\nann,text 3\nbob,text 4\n")  # names or not, nothing tells
    assert len(predictions(run, f"data.path={path}")) == 3
    (said,) = (line for line in capsys.readouterr().out.splitlines() if "line 1" in line)
    assert str(path) in said
    assert "'phrase'" in said
    assert len(predictions(run, f"data.path={path}", "data.text=remark")) == 2
    path.write_text("id,remark\n1,text 3\n2,text 4\n")
    with pytest.raises(UserError, match=r"'phrase'.* id, remark, such as data\.text=remark"):
        predictions(run, f"data.path={path}")


def test_a_label_that_the_model_does_not_know_is_not_scored(text_run: Path, capsys: Any) -> None:
    path = text_run.parent / "strange.tsv"
    path.write_text("label\treview\ngood\tword1\nugly\tword2\n\tword3\n")
    found = predictions(text_run, f"data.path={path}")
    assert found["label"].tolist() == ["good", "ugly", ""]
    assert all(found["prediction"])
    assert "'ugly'" in capsys.readouterr().out


def test_a_file_that_has_changed_is_refused_as_the_data_of_the_run(tmp_path: Path) -> None:
    rows = [f"this is text {n}\t{'good' if n % 2 else 'bad'}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    run = run_of(tmp_path, TextClassification, path=str(tmp_path / "mine.tsv"))
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows[::-1], "another word\tgood"]))
    with pytest.raises(UserError, match="--split all"):
        predictions(run, "--split", "test")
    assert len(predictions(run, "--split", "all")) == 41


def test_characters_are_those_of_the_training(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("to be, or not to be\n" * 40)
    run = run_of(tmp_path, Text, network("mask=causal"), LanguageData, path=str(tmp_path / "a.txt"), context=8)
    (tmp_path / "b.txt").write_text("to be, or not to be\n" * 4)  # the validation text, of the same characters
    split = predictions(run, "--split", "valid")
    (tmp_path / "c.txt").write_text("not\n" * 9)
    assert predictions(run, f"data.path={tmp_path / 'b.txt'}").equals(split)
    assert len(predictions(run, f"data.path={tmp_path / 'c.txt'}")) == 35
    (tmp_path / "d.txt").write_text("quite\n" * 9)
    with pytest.raises(UserError, match=r"d\.txt: the character 'q'"):
        predictions(run, f"data.path={tmp_path / 'd.txt'}")


# --- tables of nodes, edges and graphs -------------------------------------------------------------------------------


def graphs_of(real: bool) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tables of 30 graphs of three atoms in a path; ``real`` numbers beside the categories, or these alone."""
    draw = np.random.default_rng(1)
    splits = ["train"] * 18 + ["valid"] * 6 + ["test"] * 6
    graphs = pd.DataFrame({"graph": [f"m{n}" for n in range(30)], "active": np.arange(30) % 2, "split": splits})
    owner = np.repeat(graphs["graph"], 3).to_numpy()
    nodes = pd.DataFrame(
        {"graph": owner, "node": [f"a{n}" for n in range(90)], "element": draw.choice(list("CNOS"), 90)}
    )
    nodes["ring"] = draw.integers(3, 6, 90)
    if real:
        nodes["charge"] = draw.normal(size=90).round(2)
    ends = {"source": nodes["node"][np.arange(90) % 3 < 2].to_numpy(), "target": nodes["node"][np.arange(90) % 3 > 0]}
    edges = pd.DataFrame({"graph": owner[np.arange(90) % 3 > 0], **ends, "bond": draw.choice(["one", "two", "ar"], 60)})
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
    write_tables(folder / "mine", *graphs_of(request.param))
    return run_of(folder, CSVGraphs, path=str(folder / "mine"), undirected=True)


def few(tables: tuple[pd.DataFrame, ...], graphs: list[str]) -> tuple[pd.DataFrame, ...]:
    """The rows of some graphs, the last rows first and the columns in another order."""
    return tuple(table[table["graph"].isin(graphs)].iloc[::-1, ::-1] for table in tables)


def test_categories_of_new_tables_keep_their_numbers(tables_run: Path, tmp_path: Path) -> None:
    split = predictions(tables_run, "--split", "test").set_index("graph")
    tables = graphs_of("charge" in (tables_run.parent / "mine" / "nodes.csv").read_text())
    for graph in split.index[:3]:  # alone, a graph has fewer categories than the training had
        nodes, edges, graphs = few(tables, [graph])
        fresh = write_tables(tmp_path / graph, nodes, edges, graphs.drop(columns=["active", "split"]))
        found = predictions(tables_run, f"data.path={fresh}")
        assert found["graph"].tolist() == [graph]
        assert found["prediction"].tolist() == [split["prediction"][graph]]
        np.testing.assert_allclose(float(found["probability"][0]), float(split["probability"][graph]), **CLOSE)
    fresh = write_tables(tmp_path / "all", *few(tables, list(split.index)))
    found = predictions(tables_run, f"data.path={fresh}")
    assert found.columns.tolist() == ["split", "active", "graph", "prediction", "probability"]
    assert found["graph"].tolist() == list(split.index)[::-1]
    np.testing.assert_allclose(numbers(found, "probability")[::-1], numbers(split, "probability"), **CLOSE)


def test_graphs_without_a_table_of_graphs(tables_run: Path, tmp_path: Path) -> None:
    split = predictions(tables_run, "--split", "test")
    nodes, edges, _ = few(graphs_of("charge" in (tables_run.parent / "mine" / "nodes.csv").read_text()), ["m25", "m24"])
    found = predictions(tables_run, f"data.path={write_tables(tmp_path / 'new', nodes, edges, None)}")
    assert found["graph"].tolist() == ["m25", "m24"]
    np.testing.assert_allclose(numbers(found, "probability")[::-1], numbers(split, "probability")[:2], **CLOSE)


def test_text_stays_text_where_all_of_it_are_numbers(tmp_path: Path) -> None:
    nodes, edges, graphs = graphs_of(real=False)
    for graph, element in (("m24", "01"), ("m25", "1")):
        nodes.loc[nodes["graph"] == graph, "element"] = element
    run = run_of(tmp_path, CSVGraphs, path=str(write_tables(tmp_path / "mine", nodes, edges, graphs)))
    split = predictions(run, "--split", "test").set_index("graph")
    for graph in ("m24", "m25"):
        fresh = write_tables(tmp_path / graph, *few((nodes, edges, graphs), [graph]))
        found = predictions(run, f"data.path={fresh}")
        np.testing.assert_allclose(float(found["probability"][0]), float(split["probability"][graph]), **CLOSE)
    assert split["probability"]["m24"] != split["probability"]["m25"]


def test_nodes_of_many_graphs_stay_in_the_order_of_their_file(tmp_path: Path) -> None:
    nodes, edges, graphs = graphs_of(real=True)
    nodes["label"] = np.arange(90) % 2
    graphs = graphs[["graph", "split"]]
    run = run_of(tmp_path, CSVGraphs, path=str(write_tables(tmp_path / "mine", nodes, edges, graphs)))
    split = predictions(run, "--split", "test").set_index("node")
    new = nodes[nodes["graph"].isin(graphs["graph"][24:])].sort_values("charge")  # the graphs' rows are mixed
    ends = edges[edges["graph"].isin(graphs["graph"][24:])]
    found = predictions(run, f"data.path={write_tables(tmp_path / 'new', new.drop(columns='label'), ends, None)}")
    assert found["node"].tolist() == new["node"].tolist()
    found = found.set_index("node").loc[split.index]
    np.testing.assert_allclose(numbers(found, "probability"), numbers(split, "probability"), **CLOSE)


def test_a_graph_with_a_value_that_was_not_learned_is_left_empty(tables_run: Path, tmp_path: Path) -> None:
    split = predictions(tables_run, "--split", "test").set_index("graph")
    tables = graphs_of("charge" in (tables_run.parent / "mine" / "nodes.csv").read_text())
    nodes, edges, graphs = few(tables, ["m24", "m25", "m26", "m27"])
    nodes.iloc[0, nodes.columns.get_loc("element")] = "Xe"  # of m27, in line 2
    edges.iloc[-1, edges.columns.get_loc("bond")] = np.nan  # of m24, in line 9
    fresh = write_tables(tmp_path / "new", nodes, edges, graphs)
    found = predictions(tables_run, f"data.path={fresh}").set_index("graph")
    assert list(found.index) == ["m27", "m26", "m25", "m24"]
    assert found["prediction"].astype(bool).tolist() == [False, True, True, False]
    np.testing.assert_allclose(
        numbers(found.loc[["m26", "m25"]], "probability"), numbers(split.loc[["m26", "m25"]], "probability"), **CLOSE
    )
    reasons = pd.read_csv(tables_run.parent / "predicted.unreadable.csv").set_index("row")["reason"]
    assert set(reasons.index) == {0, 3}
    assert all(said in reasons[0] for said in ("line 2", "element", "Xe"))
    assert all(said in reasons[3] for said in ("line 9", "bond"))


def test_a_column_that_is_missing_is_refused_by_name(tables_run: Path, tmp_path: Path) -> None:
    nodes, edges, graphs = graphs_of(real=True)
    fresh = write_tables(tmp_path / "new", nodes.rename(columns={"element": "elem"}), edges, graphs)
    with pytest.raises(UserError, match=r"nodes\.csv.*'element'.*'elem'"):
        predictions(tables_run, f"data.path={fresh}")


def as_json(tables: tuple[pd.DataFrame, ...]) -> list[dict[str, Any]]:
    nodes, edges, graphs = tables
    found = []
    for about in graphs.to_dict("records"):
        name = about.pop("graph")
        inner, links = (part[part["graph"] == name].drop(columns="graph") for part in (nodes, edges))
        records = inner.rename(columns={"node": "id"}).to_dict("records")
        found.append({"directed": False, "graph": about, "nodes": records, "links": links.to_dict("records")})
    return found


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
def test_categories_of_new_files_of_graphs_keep_their_numbers(tmp_path: Path, ending: str) -> None:
    write = {"json": lambda tables: json.dumps(as_json(tables)), "graphml": as_graphml}[ending]
    tables = graphs_of(real=False)
    (tmp_path / f"mine.{ending}").write_text(write(tables))
    run = run_of(tmp_path, GraphFiles, path=str(tmp_path / f"mine.{ending}"))
    split = predictions(run, "--split", "test")
    (tmp_path / f"new.{ending}").write_text(write(few(tables, [f"m{n}" for n in range(24, 30)])))
    found = predictions(run, f"data.path={tmp_path / f'new.{ending}'}")
    np.testing.assert_allclose(numbers(found, "probability")[::-1], numbers(split, "probability"), **CLOSE)
    (tmp_path / f"one.{ending}").write_text(write(few((tables[0], tables[1], tables[2][["graph"]]), ["m24"])))
    one = predictions(run, f"data.path={tmp_path / f'one.{ending}'}")
    np.testing.assert_allclose(numbers(one, "probability")[0], numbers(split, "probability")[0], **CLOSE)


def test_the_direction_of_edges_is_that_of_the_training(tmp_path: Path) -> None:
    tables = graphs_of(real=False)
    (tmp_path / "mine.json").write_text(json.dumps(as_json(tables)))
    run = run_of(tmp_path, GraphFiles, path=str(tmp_path / "mine.json"))
    new = [graph | {"directed": True} for graph in as_json(tables)]
    (tmp_path / "new.json").write_text(json.dumps(new))
    with pytest.raises(UserError, match=r"new\.json.*data\.undirected=true"):
        predictions(run, f"data.path={tmp_path / 'new.json'}")
    assert len(predictions(run, f"data.path={tmp_path / 'new.json'}", "data.undirected=true")) == 30


# --- nodes -----------------------------------------------------------------------------------------------------------


def one_graph() -> tuple[pd.DataFrame, pd.DataFrame]:
    draw = np.random.default_rng(2)
    nodes = pd.DataFrame({"node": [f"p{n}" for n in range(40)], "field": draw.choice(["bio", "art", "law"], 40)})
    nodes["label"] = draw.choice(["u", "v"], 40)
    nodes["split"] = ["train"] * 20 + ["valid"] * 10 + ["test"] * 10
    ends = np.unique(draw.integers(0, 40, (80, 2)), axis=0)
    return nodes, pd.DataFrame(
        {"source": nodes["node"].to_numpy()[ends[:, 0]], "target": nodes["node"].to_numpy()[ends[:, 1]]}
    )


def test_every_node_of_a_new_graph_is_predicted(tmp_path: Path, capsys: Any) -> None:
    nodes, edges = one_graph()
    write_tables(tmp_path / "mine", nodes, edges, None)
    run = run_of(tmp_path, CSVGraphs, module=NodeData, path=str(tmp_path / "mine"))
    split = predictions(run, "--split", "test").set_index("node")
    new = nodes.iloc[::-1].drop(columns=["label", "split"])
    found = predictions(run, f"data.path={write_tables(tmp_path / 'new', new, edges.iloc[::-1], None)}")
    assert found.columns.tolist() == ["node", "field", "prediction", "probability"]
    assert found["node"].tolist() == new["node"].tolist()
    found = found.set_index("node").loc[split.index]
    np.testing.assert_allclose(numbers(found, "probability"), numbers(split, "probability"), **CLOSE)
    new["field"] = new["field"].replace("law", "sport")
    with pytest.raises(UserError, match=r"nodes\.csv, line \d+: 'field' is 'sport'"):
        predictions(run, f"data.path={write_tables(tmp_path / 'strange', new, edges, None)}")


def test_nodes_of_a_new_file_without_features_have_their_degrees(tmp_path: Path) -> None:
    nodes, edges = one_graph()
    nodes = nodes.drop(columns="field")

    def write(name: str, nodes: pd.DataFrame) -> str:
        records = nodes.rename(columns={"node": "id"}).to_dict("records")
        records = [{key: None if pd.isna(value) else value for key, value in record.items()} for record in records]
        graph = {"nodes": records, "links": edges.to_dict("records")}
        (tmp_path / name).write_text(json.dumps({"directed": True, **graph}))
        return str(tmp_path / name)

    run = run_of(tmp_path, GraphFiles, module=NodeData, path=write("mine.json", nodes))
    split = predictions(run, "--split", "test").set_index("node")
    new = nodes.drop(columns="split").iloc[::-1]
    new["label"] = np.array([label if label == "u" else None for label in new["label"]], dtype=object)
    found = predictions(run, f"data.path={write('new.json', new)}").set_index("node").loc[split.index]
    np.testing.assert_allclose(numbers(found, "probability"), numbers(split, "probability"), **CLOSE)
    # more neighbours than any node of the training counts as the most that one of these had
    hub = pd.DataFrame({"source": nodes["node"][1:], "target": "p0"})
    edges = pd.concat([edges[edges["target"] != "p0"], hub])
    assert len(predictions(run, f"data.path={write('hub.json', new)}")) == 40
