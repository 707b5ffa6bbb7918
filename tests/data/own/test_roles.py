"""What becomes of the attributes of somebody's own graphs: names, ids and drawings are neither targets nor features."""

import json

import networkx as nx
import pytest

from gt.data.graphs import GraphData
from gt.data.inspect import contents, feature_table
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.errors import UserError
from tests.data.modules import over
from tests.data.tables_of import line_of


def drawn(count=40, **attributes):
    """A ring as Gephi exports it: each node has a name, a place, a size and a colour, edges a weight and a name."""
    graph = nx.cycle_graph(count)
    for node, data in graph.nodes.data():
        data |= {"label": f"item {node}", "x": 0.5 + node, "y": node * 37.0 % 400, "size": 10.0, "r": 1, "g": 2, "b": 3}
        data |= {name: values[node % len(values)] for name, values in attributes.items()}
    for number, (_, _, data) in enumerate(graph.edges.data()):
        data |= {"weight": 1.0 + number % 2, "Edge Label": f"tie {number}"}
    return graph


def opened(graph, folder, **options):
    path = folder / "g.graphml"
    nx.write_graphml(graph, path)
    data = over(NodeData, GraphFiles, str(path), root=str(folder / "built"), **options)
    data.open([])
    return data.graphs


def test_a_name_is_no_target_and_what_could_be_one_is_named(tmp_path):
    line = line_of(lambda: opened(drawn(club=["a", "b"], age=[31, 47, 28]), tmp_path))
    assert "g.graphml: 'label' is not a target: 40 different texts for 40 nodes" in line
    assert "choose one of club, age: data.target=club" in line
    assert "no other attribute" in line_of(lambda: opened(drawn(), tmp_path))


def test_what_is_called_like_a_class_or_has_few_values_is_named_first(tmp_path):
    floats = {f"f{n}": [0.1 * n + k / 7 for k in range(40)] for n in range(9)}
    line = line_of(lambda: opened(drawn(**floats, team=["a", "b"], **{"class": ["u", "v", "w"]}), tmp_path))
    assert "choose one of class, team, f0, f1, f2, f3, f4, f5 and 3 more: data.target=class" in line


def test_what_became_of_each_attribute_is_kept_and_printed(tmp_path, capsys):
    store = opened(drawn(club=["a", "b"]), tmp_path, target="club")
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


def test_the_place_in_a_drawing_is_a_target_or_a_feature_where_it_is_asked_for(tmp_path):
    graph = drawn()
    for _, data in graph.nodes.data():
        del data["label"]
    line = line_of(lambda: opened(graph, tmp_path))
    assert "'y' is not a target" in line
    assert line.endswith("data.target=y data.kind=regression")
    asked = opened(graph, tmp_path, target="y")
    assert (asked.schema.kind, asked.schema.target) == ("regression", ("y",))
    assert asked.notes["attributes"]["nodes"]["x"] == "numbers"
    store = opened(drawn(club=["a", "b"]), tmp_path, target="club", features=["x", "y"])
    assert (store.schema.node_floats, store.schema.edge_floats) == (2, 0)
    assert "data.features: no column 'hight'" in line_of(
        lambda: opened(graph, tmp_path, target="y", features=["hight"])
    )


@pytest.mark.parametrize("classes", [[0, 1, 2], [0.0, 1.0]])
def test_beside_x_a_class_may_be_called_y(classes, tmp_path):
    graph = nx.cycle_graph(30)
    for node, data in graph.nodes.data():
        data |= {"x": node / 7, "y": classes[node % len(classes)]}
    store = opened(graph, tmp_path)
    assert (store.schema.target, store.schema.node_floats) == (("y",), 1)


def test_another_usual_name_is_taken_where_the_first_is_no_target(tmp_path):
    store = opened(drawn(Target=["u", "v"]), tmp_path)
    assert (store.schema.target, store.schema.names) == (("Target",), ("u", "v"))


def nodes(folder, header, *rows):
    folder.mkdir()
    (folder / "nodes.csv").write_text("\n".join([header, *rows]) + "\n")
    (folder / "edges.csv").write_text("source,target\n" + "".join(f"{n},{n + 1}\n" for n in range(len(rows) - 1)))
    data = NodeData(CSVGraphs(str(folder), root=str(folder.parent / "built")))
    data.open([])
    return data.graphs


def test_ids_are_no_features_but_measures_are(tmp_path):
    rows = [f"{n},{100 + 7 * n % 90},{n + 1},{n % 3},{n % 2}" for n in range(30)]
    store = nodes(tmp_path / "csv", "node,person_id,counter,group_id,label", *rows)
    assert store.notes["attributes"]["nodes"] == {
        "person_id": "not used, an id of nodes",
        "counter": "not used, an id of nodes",
        "group_id": "categories",  # called like an id, but shared: it says something
        "label": "target",
    }
    assert store.schema.node_vocab == (3,)


def test_a_column_that_is_mostly_empty_is_no_feature(tmp_path):
    rows = [f"{n},,{'seen' if n < 9 else ''},{n % 4},{n % 2}" for n in range(30)]
    store = nodes(tmp_path / "csv", "node,note,remark,size,label", *rows)
    roles = store.notes["attributes"]["nodes"]
    assert (roles["note"], roles["remark"]) == (
        "not used, empty",
        "not used, empty for 21 of 30 nodes",
    )
    assert store.schema.node_vocab == (4,)


def test_whole_numbers_that_few_rows_share_are_measures(tmp_path):
    rows = [f"{n},{n * n % 97},{n % 4},{n % 2}" for n in range(60)]
    store = nodes(tmp_path / "csv", "node,people,group,label", *rows)
    assert store.notes["attributes"]["nodes"] == {"people": "numbers", "group": "numbers", "label": "target"}
    assert (store.schema.node_floats, store.nodes["x"][3].tolist()) == (2, [9, 3])
    with pytest.raises(UserError, match=r"'label' has 49 different values .*kind=regression"):
        nodes(tmp_path / "again", "node,label", *(f"{n},{n * n % 97}" for n in range(60)))


@pytest.mark.parametrize("number", [False, True])
def test_whole_numbers_are_categories_unless_written_as_numbers(number, tmp_path, capsys):
    ages = [18 + n * n % 37 for n in range(200)]
    point = ".0" if number else ""
    rows = [f"{n},{age}{point},{n % 4},{n % 2}" for n, age in enumerate(ages)]
    graphs = nodes(tmp_path / "csv", "node,age,club,label", *rows)
    printed, distinct = capsys.readouterr().out, len(set(ages))
    hint = f"if it measures something, write it as {max(ages)}.0 (a double in GraphML and GEXF)"
    if number:
        assert graphs.schema.node_floats == 2
        assert hint not in printed
    else:
        assert f"categories of {distinct} (age), 4 (club)" in printed
        assert "  age of nodes: each whole number" in printed  # of clubs there are too few to be anything else
        assert hint in printed
    fresh = CSVGraphs(str(tmp_path / "csv"), root=str(tmp_path / "built"))
    text = (tmp_path / "csv" / "nodes.csv").read_text()
    (tmp_path / "csv" / "nodes.csv").write_text(text.replace(f"\n7,{ages[7]}", "\n7,85"))
    if number:
        assert fresh.build_known(graphs.schema).nodes["x"][7].tolist() == [85, 3]
    else:
        line = line_of(lambda: fresh.build_known(graphs.schema))
        assert "nodes.csv, line 9: 'age' is '85', which the model has not learned" in line
        assert line.endswith("write it as 85.0 (a double in GraphML and GEXF) in the training data and train again")


def test_a_word_that_was_not_learned_is_not_taken_for_a_number(tmp_path):
    graphs = nodes(tmp_path / "csv", "node,kind,label", *(f"{n},{'ab'[n % 2]},{n % 3}" for n in range(30)))
    path = tmp_path / "csv" / "nodes.csv"
    path.write_text(path.read_text().replace("\n7,b", "\n7,c"))
    line = line_of(lambda: CSVGraphs(str(path.parent), root=str(tmp_path)).build_known(graphs.schema))
    assert line.endswith("'kind' is 'c', which the model has not learned")


def test_labels_may_be_rare(tmp_path):
    rows = [f"{n},{n % 4},{n % 2 if n < 12 else ''}" for n in range(60)]
    store = nodes(tmp_path / "csv", "node,size,label", *rows)
    assert (store.schema.target, sum(len(ids) for ids in store.splits.values())) == (("label",), 12)
    folder = tmp_path / "graphs"
    folder.mkdir()
    tasks = [f"g{n},{'' if n % 5 else n % 2},{'' if n % 4 else n % 3 // 2}" for n in range(40)]
    (folder / "graphs.csv").write_text("graph,toxic,soluble\n" + "\n".join(tasks) + "\n")
    (folder / "nodes.csv").write_text("graph,node\n" + "".join(f"g{n},a\n" for n in range(40)))
    (folder / "edges.csv").write_text("graph,source,target\n")
    data = GraphData(CSVGraphs(str(folder), root=str(tmp_path / "built")))
    data.open([])
    assert data.schema.target == ("toxic", "soluble")


def test_the_index_that_pandas_writes_is_no_feature(tmp_path):
    store = nodes(tmp_path / "csv", ",node,size,label", *(f"{n},{n},{n % 4},{n % 2}" for n in range(30)))
    assert store.notes["attributes"]["nodes"] == {
        "index": "not used, an id of nodes",
        "size": "categories",
        "label": "target",
    }


def test_names_that_repeat_in_other_graphs_only_are_ids(tmp_path):
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


def test_a_class_for_each_row_is_refused_also_where_it_is_asked_for(tmp_path):
    with pytest.raises(UserError, match="40"):
        opened(drawn(), tmp_path, target="label")
    with pytest.raises(UserError, match=r"30 .*label data.kind=regression"):
        nodes(tmp_path / "csv", "node,label", *(f"{n},{7 * n + 2}" for n in range(30)))


def test_categories_of_a_feature_are_not_called_like_the_targets(tmp_path):
    lines = [f"{n},{n % 2},{'ab'[n % 2]}" for n in range(30)]
    path = tmp_path / "csv"
    nodes(path, "node,ring,label", *lines)
    data = NodeData(CSVGraphs(str(path), root=str(tmp_path / "built")))
    data.open([])
    cells = [list(column.cells) for column in feature_table(contents(data), data.schema).columns]
    assert data.schema.names == ("a", "b")
    assert cells[3][0] == "0"
