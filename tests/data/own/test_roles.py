"""Roles of the attributes of a user's own graphs: names, ids and layouts are neither targets nor features."""

import json

import networkx as nx
import pytest

from gt.data.graphs import GraphData
from gt.data.inspect import contents, feature_table
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.errors import UserError
from tests.data.modules import make_data
from tests.data.tables_of import error_line


def gephi_ring(count=40, **attributes):
    """A ring as exported by Gephi: nodes with a name, position, size and colour, edges with a weight and a name."""
    graph = nx.cycle_graph(count)
    for node, data in graph.nodes.data():
        data |= {"label": f"item {node}", "x": 0.5 + node, "y": node * 37.0 % 400, "size": 10.0, "r": 1, "g": 2, "b": 3}
        data |= {name: values[node % len(values)] for name, values in attributes.items()}
    for number, (_, _, data) in enumerate(graph.edges.data()):
        data |= {"weight": 1.0 + number % 2, "Edge Label": f"tie {number}"}
    return graph


def open_graphs(graph, folder, **options):
    path = folder / "g.graphml"
    nx.write_graphml(graph, path)
    data = make_data(NodeData, GraphFiles, str(path), root=str(folder / "built"), **options)
    data.open([])
    return data.graphs


def test_names_are_no_target_and_alternatives_are_suggested(tmp_path):
    line = error_line(lambda: open_graphs(gephi_ring(club=["a", "b"], age=[31, 47, 28]), tmp_path))
    assert "g.graphml: 'label' is not a target: 40 different texts for 40 nodes" in line
    assert "choose one of club, age: data.target=club" in line
    assert "no other attribute" in error_line(lambda: open_graphs(gephi_ring(), tmp_path))


def test_likely_targets_are_suggested_first(tmp_path):
    floats = {f"f{n}": [0.1 * n + k / 7 for k in range(40)] for n in range(9)}
    line = error_line(
        lambda: open_graphs(gephi_ring(**floats, team=["a", "b"], **{"class": ["u", "v", "w"]}), tmp_path)
    )
    assert "choose one of class, team, f0, f1, f2, f3, f4, f5 and 3 more: data.target=class" in line


def test_role_of_each_attribute_is_noted_and_printed(tmp_path, capsys):
    store = open_graphs(gephi_ring(club=["a", "b"]), tmp_path, target="club")
    assert store.notes["attributes"] == {
        "nodes": {
            "label": "not used, 40 different texts for 40 nodes",
            "x": "not used, a position in a drawing",
            "y": "not used, a position in a drawing",
            "size": "not used, part of a drawing",
            "r": "not used, part of a drawing",
            "g": "not used, part of a drawing",
            "b": "not used, part of a drawing",
            "club": "target",
        },
        "edges": {"weight": "numbers", "Edge Label": "not used, 40 different texts for 40 edges"},
    }
    assert (store.schema.node_floats, store.schema.edge_floats) == (0, 1)
    assert (store.schema.target, store.schema.outputs, store.schema.names) == (("club",), 2, ("a", "b"))
    printed = capsys.readouterr().out
    for name in ("club", "label", "Edge Label", "weight", "size"):
        assert name in printed


def test_layout_positions_are_used_on_request(tmp_path):
    graph = gephi_ring()
    for _, data in graph.nodes.data():
        del data["label"]
    line = error_line(lambda: open_graphs(graph, tmp_path))
    assert "'y' is not a target" in line
    assert line.endswith("data.target=y data.kind=regression")
    with_target = open_graphs(graph, tmp_path, target="y")
    assert (with_target.schema.kind, with_target.schema.target) == ("regression", ("y",))
    assert with_target.notes["attributes"]["nodes"]["x"] == "numbers"
    with_features = open_graphs(gephi_ring(club=["a", "b"]), tmp_path, target="club", features=["x", "y"])
    assert (with_features.schema.node_floats, with_features.schema.edge_floats) == (2, 0)
    assert "data.features: no column 'hight'" in error_line(
        lambda: open_graphs(graph, tmp_path, target="y", features=["hight"])
    )


@pytest.mark.parametrize("classes", [[0, 1, 2], [0.0, 1.0]])
def test_y_beside_x_may_be_a_class(classes, tmp_path):
    graph = nx.cycle_graph(30)
    for node, data in graph.nodes.data():
        data |= {"x": node / 7, "y": classes[node % len(classes)]}
    store = open_graphs(graph, tmp_path)
    assert (store.schema.target, store.schema.node_floats) == (("y",), 1)


def test_second_default_target_name_is_tried(tmp_path):
    store = open_graphs(gephi_ring(Target=["u", "v"]), tmp_path)
    assert (store.schema.target, store.schema.names) == (("Target",), ("u", "v"))


def open_nodes(folder, header, *rows):
    """A path graph whose table of nodes has these rows, written to CSV files and read from them."""
    folder.mkdir()
    (folder / "nodes.csv").write_text("\n".join([header, *rows]) + "\n")
    (folder / "edges.csv").write_text("source,target\n" + "".join(f"{n},{n + 1}\n" for n in range(len(rows) - 1)))
    data = NodeData(CSVGraphs(str(folder), root=str(folder.parent / "built")))
    data.open([])
    return data.graphs


def test_ids_are_unused_unless_rows_share_them(tmp_path):
    rows = [f"{n},{100 + 7 * n % 90},{n + 1},{n % 3},{n % 2}" for n in range(30)]
    store = open_nodes(tmp_path / "csv", "node,person_id,counter,group_id,label", *rows)
    assert store.notes["attributes"]["nodes"] == {
        "person_id": "not used, an id of nodes",
        "counter": "not used, an id of nodes",
        "group_id": "categories",  # named like an id, but shared by many rows
        "label": "target",
    }
    assert store.schema.node_vocab == (3,)


def test_mostly_empty_columns_are_unused(tmp_path):
    rows = [f"{n},,{'seen' if n < 9 else ''},{n % 4},{n % 2}" for n in range(30)]
    store = open_nodes(tmp_path / "csv", "node,note,remark,size,label", *rows)
    roles = store.notes["attributes"]["nodes"]
    assert (roles["note"], roles["remark"]) == (
        "not used, empty",
        "not used, empty for 21 of 30 nodes",
    )
    assert store.schema.node_vocab == (4,)


def test_integers_that_few_rows_share_are_numbers(tmp_path):
    rows = [f"{n},{n * n % 97},{n % 4},{n % 2}" for n in range(60)]
    store = open_nodes(tmp_path / "csv", "node,people,group,label", *rows)
    assert store.notes["attributes"]["nodes"] == {"people": "numbers", "group": "numbers", "label": "target"}
    assert (store.schema.node_floats, store.nodes["x"][3].tolist()) == (2, [9, 3])
    with pytest.raises(UserError, match=r"'label' has 49 different values .*kind=regression"):
        open_nodes(tmp_path / "again", "node,label", *(f"{n},{n * n % 97}" for n in range(60)))


@pytest.mark.parametrize("as_floats", [False, True])
def test_integers_are_categories_unless_written_as_floats(as_floats, tmp_path, capsys):
    ages = [18 + n * n % 37 for n in range(200)]
    suffix = ".0" if as_floats else ""
    rows = [f"{n},{age}{suffix},{n % 4},{n % 2}" for n, age in enumerate(ages)]
    graphs = open_nodes(tmp_path / "csv", "node,age,club,label", *rows)
    printed, distinct = capsys.readouterr().out, len(set(ages))
    hint = f"if it measures something, write it as {max(ages)}.0 (a double in GraphML and GEXF)"
    if as_floats:
        assert graphs.schema.node_floats == 2
        assert hint not in printed
    else:
        assert f"categories of {distinct} (age), 4 (club)" in printed
        assert "  age of nodes: each whole number" in printed  # 4 clubs are too few to be taken for numbers
        assert hint in printed
    source = CSVGraphs(str(tmp_path / "csv"), root=str(tmp_path / "built"))
    text = (tmp_path / "csv" / "nodes.csv").read_text()
    (tmp_path / "csv" / "nodes.csv").write_text(text.replace(f"\n7,{ages[7]}", "\n7,85"))
    if as_floats:
        assert source.build_known(graphs.schema).nodes["x"][7].tolist() == [85, 3]
    else:
        line = error_line(lambda: source.build_known(graphs.schema))
        assert "nodes.csv, line 9: 'age' is '85', which the model has not learned" in line
        assert line.endswith("write it as 85.0 (a double in GraphML and GEXF) in the training data and train again")


def test_unknown_text_category_gets_no_advice_on_numbers(tmp_path):
    graphs = open_nodes(tmp_path / "csv", "node,kind,label", *(f"{n},{'ab'[n % 2]},{n % 3}" for n in range(30)))
    path = tmp_path / "csv" / "nodes.csv"
    path.write_text(path.read_text().replace("\n7,b", "\n7,c"))
    line = error_line(lambda: CSVGraphs(str(path.parent), root=str(tmp_path)).build_known(graphs.schema))
    assert line.endswith("'kind' is 'c', which the model has not learned")


def test_targets_may_be_mostly_empty(tmp_path):
    rows = [f"{n},{n % 4},{n % 2 if n < 12 else ''}" for n in range(60)]
    store = open_nodes(tmp_path / "csv", "node,size,label", *rows)
    assert (store.schema.target, sum(len(ids) for ids in store.splits.values())) == (("label",), 12)
    folder = tmp_path / "graphs"
    folder.mkdir()
    rows_of_graphs = [f"g{n},{'' if n % 5 else n % 2},{'' if n % 4 else n % 3 // 2}" for n in range(40)]
    (folder / "graphs.csv").write_text("graph,toxic,soluble\n" + "\n".join(rows_of_graphs) + "\n")
    (folder / "nodes.csv").write_text("graph,node\n" + "".join(f"g{n},a\n" for n in range(40)))
    (folder / "edges.csv").write_text("graph,source,target\n")
    data = GraphData(CSVGraphs(str(folder), root=str(tmp_path / "built")))
    data.open([])
    assert data.schema.target == ("toxic", "soluble")


def test_pandas_index_is_unused(tmp_path):
    store = open_nodes(tmp_path / "csv", ",node,size,label", *(f"{n},{n},{n % 4},{n % 2}" for n in range(30)))
    assert store.notes["attributes"]["nodes"] == {
        "index": "not used, an id of nodes",
        "size": "categories",
        "label": "target",
    }


def test_names_that_repeat_only_between_graphs_are_ids(tmp_path):
    graphs = []
    for number in range(20):
        graph = nx.path_graph(4)
        graph.graph |= {"name": f"molecule {number}", "label": number % 2}
        for node, data in graph.nodes.data():
            data |= {"name": f"atom {node}", "element": "CNOC"[node]}
        graphs.append(graph)
    path = tmp_path / "g.json"
    path.write_text(json.dumps([nx.node_link_data(graph, edges="edges") for graph in graphs]))
    data = GraphData(GraphFiles(str(path), root=str(tmp_path / "built")))
    data.open([])
    assert data.graphs.notes["attributes"] == {
        "nodes": {"name": "not used, an id of nodes", "element": "categories"},
        "edges": {},
        "graphs": {"name": "not used, 20 different texts for 20 graphs", "label": "target"},
    }


def test_target_with_one_class_per_row_is_rejected(tmp_path):
    with pytest.raises(UserError, match="40"):
        open_graphs(gephi_ring(), tmp_path, target="label")
    with pytest.raises(UserError, match=r"30 .*label data.kind=regression"):
        open_nodes(tmp_path / "csv", "node,label", *(f"{n},{7 * n + 2}" for n in range(30)))


def test_feature_categories_are_not_named_after_classes(tmp_path):
    rows = [f"{n},{n % 2},{'ab'[n % 2]}" for n in range(30)]
    path = tmp_path / "csv"
    open_nodes(path, "node,ring,label", *rows)
    data = NodeData(CSVGraphs(str(path), root=str(tmp_path / "built")))
    data.open([])
    cells = [list(column.cells) for column in feature_table(contents(data), data.schema).columns]
    assert data.schema.names == ("a", "b")
    assert cells[3][0] == "0"
