"""GraphML and node-link JSON: round trips through NetworkX, and errors that name the file and the place in it."""

import json

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from gt.data.batching import gather
from gt.data.graphs import GraphData
from gt.data.own.graph_files import GraphFiles
from gt.graph import GraphBatch
from tests.data.modules import make_data
from tests.data.tables_of import error_line, gzip_file

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="d0" for="node" attr.name="kind" attr.type="string"/>
<key id="d1" for="node" attr.name="size" attr.type="int"><default>4</default></key>
<key id="d2" for="edge" attr.name="bond" attr.type="long"/>
<key id="d3" for="graph" attr.name="label" attr.type="double"/>
"""
GRAPH = """<graph edgedefault="directed">
<data key="d3">1.5</data>
<node id="a"><data key="d0">x</data><data key="d1">7</data></node>
<node id="b"><data key="d0">y</data></node>
<edge source="a" target="b"><data key="d2">2</data></edge>
</graph>
"""


def random_graphs(directed=False, real=False):
    """Graphs of many sizes, one with a single node, with attributes of nodes, edges and graphs."""
    graphs = []
    for number, size in enumerate((4, 1, 6, 2, 5, 3, 3, 7, 2, 4)):
        graph = nx.gnp_random_graph(size, 0.5, seed=number, directed=directed)
        graph = nx.relabel_nodes(graph, {i: f"n{i}" for i in range(size)})
        graph.graph["label"] = number % 3
        for index, node in enumerate(graph):
            graph.nodes[node].update(kind="abc"[(number + index) % 3], size=index)
            if real:
                graph.nodes[node]["weight"] = index / 4
        for index, edge in enumerate(graph.edges):
            graph.edges[edge]["bond"] = index % 2
        graphs.append(graph)
    return graphs


def to_pyg(graphs):
    """The same graphs as PyG `Data`, converted by a plain loop."""
    converted = []
    for graph in graphs:
        positions = {node: position for position, node in enumerate(graph)}
        edges = [(positions[a], positions[b], bond) for a, b, bond in graph.edges.data("bond")]
        edges += [] if graph.is_directed() else [(b, a, bond) for a, b, bond in edges]
        rows = torch.tensor(edges, dtype=torch.long).view(-1, 3)
        x = torch.tensor([["abc".index(d["kind"]), d["size"]] for _, d in graph.nodes.data()])
        y = torch.tensor([graph.graph["label"]])
        converted.append(Data(x=x, edge_index=rows[:, :2].T, edge_attr=rows[:, 2:], y=y))
    return converted


def open_graphs(path, folder, **options):
    data = make_data(GraphData, GraphFiles, str(path), root=str(folder / "built"), **options)
    data.open([])
    return data.graphs


def assert_same_batches(store, expected):
    for ids in (range(len(expected)), [3, 0, 3]):
        actual, reference = gather(store, list(ids)), GraphBatch.from_data_list([expected[i] for i in ids])
        for name in ("ptr", "edge_index", "x", "edge_attr", "y"):
            assert torch.equal(getattr(actual, name), getattr(reference, name)), name


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("form", ["list", "lines", "files", "old name", "gzip", "graphml", "graphml gzip"])
def test_round_trip_through_networkx(form, directed, tmp_path):
    graphs = random_graphs(directed)
    folder = tmp_path / "graphs"
    folder.mkdir()
    documents = [nx.node_link_data(graph, edges="links" if form == "old name" else "edges") for graph in graphs]
    if form in ("list", "old name"):
        (folder / "all.json").write_text(json.dumps(documents, indent=1))
    elif form in ("lines", "gzip"):
        (folder / "all.jsonl").write_text("\n".join(map(json.dumps, documents)) + "\n")
    elif form == "files":
        for number, graph in enumerate(documents):
            (folder / f"{number}.json").write_text(json.dumps(graph))
        (folder / "notes.txt").write_text("not a graph")
    else:
        for number, graph in enumerate(graphs):
            nx.write_graphml(graph, folder / f"{number}.graphml")
    if "gzip" in form:
        for path in list(folder.iterdir()):
            gzip_file(path)
    assert_same_batches(open_graphs(folder, tmp_path), to_pyg(graphs))
    assert len(open_graphs(folder / "*[a-z]*", tmp_path)) == len(graphs) if form != "files" else True


def test_undirected_option_adds_reverse_edges(tmp_path):
    path = tmp_path / "all.json"
    graphs = [nx.gn_graph(5, seed=i) for i in range(10)]
    for number, graph in enumerate(graphs):
        graph.graph["label"] = number / 2
    path.write_text(json.dumps([nx.node_link_data(graph, edges="edges") for graph in graphs]))
    assert open_graphs(path, tmp_path).edge_ptr[-1] == 40
    assert open_graphs(path, tmp_path, undirected=True).edge_ptr[-1] == 80


def test_list_attributes_become_columns(tmp_path):
    graphs = [nx.path_graph(3) for _ in range(10)]
    for number, graph in enumerate(graphs):
        graph.graph["y"] = [number % 2, 1 - number % 2]
        for node in graph:
            graph.nodes[node]["x"] = [node / 2, number, -1]
    path = tmp_path / "all.json"
    path.write_text(json.dumps([nx.node_link_data(graph, edges="edges") for graph in graphs]))
    store = open_graphs(path, tmp_path)
    assert (store.schema.node_floats, store.schema.kind, store.schema.outputs) == (3, "binary", 2)
    np.testing.assert_allclose(store.nodes["x"][3:6], [[0, 1, -1], [0.5, 1, -1], [1, 1, -1]])


def test_missing_target_list_is_unlabelled(tmp_path):
    graphs = [nx.path_graph(3) for _ in range(12)]
    for number, graph in enumerate(graphs[1:]):
        graph.graph["y"] = [number % 2, 1 - number % 2]
    path = tmp_path / "all.json"
    path.write_text(json.dumps([nx.node_link_data(graph, edges="edges") for graph in graphs]))
    store = open_graphs(path, tmp_path)
    assert np.isnan(store.graphs["y"]).tolist() == [[True, True]] + [[False, False]] * 11
    assert sorted(np.concatenate(list(store.splits.values())).tolist()) == list(range(1, 12))


def test_node_targets(tmp_path):
    graphs = [nx.path_graph(3) for _ in range(10)]
    for graph in graphs:
        for node in graph:
            graph.nodes[node]["label"] = ["u", "v", None][node]
    path = tmp_path / "all.json"
    path.write_text(json.dumps([nx.node_link_data(graph, edges="edges") for graph in graphs]))
    store = open_graphs(path, tmp_path)
    assert (store.schema.level, store.schema.names) == ("node", ("u", "v"))
    assert store.nodes["y"].tolist() == [0, 1, -100] * 10
    assert store.notes["degree"]


def test_graphml_defaults_and_several_graphs_per_file(tmp_path):
    path = tmp_path / "g.graphml"
    path.write_text(HEAD + GRAPH + GRAPH.replace("1.5", "2.5") * 9 + "</graphml>")
    store = open_graphs(path, tmp_path)
    assert store.nodes["x"][:2].tolist() == [[0, 1], [1, 0]]  # sizes 7 and, by default, 4
    assert store.graphs["y"][:2].tolist() == [[1.5], [2.5]]


GRAPHML_FAULTS = {
    "no xml": ("<graphml", "line 1: unclosed token: not XML"),
    "broken": (HEAD + GRAPH.replace("</node>", "", 1) + "</graphml>", "line 12: mismatched tag: not XML"),
    "no graph": (HEAD + "</graphml>", "{path} holds no <graph>: it is not GraphML"),
    "an entity": (HEAD + GRAPH.replace("1.5", "&lol;") + "</graphml>", "line 8: undefined entity: not XML"),
    "wrong type": (
        HEAD + GRAPH.replace(">7<", ">seven<") + "</graphml>",
        "line 9: 'size' is 'seven', which is not of its declared type",
    ),
    "unknown type": (HEAD.replace('"int"', '"itn"') + GRAPH + "</graphml>", "line 4: type 'itn': did you mean 'int'?"),
    "no id": (
        HEAD + GRAPH.replace('id="b"', "") + "</graphml>",
        "line 10: <node> has no 'id': nothing may be set here",
    ),
    "no target": (HEAD + GRAPH.replace('target="b"', 'to="b"') + "</graphml>", "line 11: <edge> has no 'target': "),
    "no default": (
        HEAD + GRAPH.replace("edgedefault", "default") + "</graphml>",
        "line 7: <graph> has no 'edgedefault': did you mean 'default'?",
    ),
    "node twice": (
        HEAD + GRAPH * 2 + GRAPH.replace('id="b"', 'id="a"') + "</graphml>",
        "line 22: node 'a' already exists, see {path}, line 21",
    ),
    "nan target": (
        HEAD + GRAPH.replace("1.5", "nan") * 9 + GRAPH + "</graphml>",
        "{path}: too few labelled samples (1) for splits",
    ),
    "edge whose direction differs": (
        HEAD + GRAPH.replace("<edge ", '<edge directed="false" ') + "</graphml>",
        "line 11: the direction of an edge differs",
    ),
    "hyperedge": (
        HEAD + GRAPH.replace("</graph>", "<hyperedge/></graph>") + "</graphml>",
        "line 12: edges that join more than two nodes",
    ),
    "nested": (
        HEAD + GRAPH.replace("</node>", "<graph edgedefault='directed'/></node>", 1) + "</graphml>",
        "line 9: a graph inside another",
    ),
    "no nodes": (HEAD + "<graph edgedefault='directed'></graph></graphml>", "line 7 has no nodes"),
    "declared ascii": (
        (HEAD.replace("UTF-8", "ascii") + GRAPH.replace(">y<", ">é<") + "</graphml>").encode(),
        "line 10: byte 0xc3 is not ASCII text",
    ),
    "declared nonsense": (
        HEAD.replace("UTF-8", "utf-80") + GRAPH + "</graphml>",
        "line 1: there is no encoding 'utf-80'",
    ),
    "latin-1": (
        (HEAD + GRAPH.replace(">y<", ">é<") + "</graphml>").encode("latin-1"),
        "line 10: byte 0xe9 is not UTF-8 text",
    ),
    "reserved": (
        HEAD.replace('"kind"', '"graph"') + GRAPH + "</graphml>",
        "line 9: the attribute name 'graph' is reserved: rename it",
    ),
}


@pytest.mark.parametrize("fault", GRAPHML_FAULTS)
def test_malformed_graphml_is_reported_in_one_line(fault, tmp_path):
    content, message = GRAPHML_FAULTS[fault]
    path = tmp_path / "g.graphml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    error = error_line(lambda: open_graphs(path, tmp_path))
    message = message.format(path=path)
    assert error.startswith(message if message.startswith(str(path)) else f"{path}, {message}"), error
    assert not list((tmp_path / "built").rglob("*.npy"))


def json_graphs(**changes):
    """Two node-link graphs, the second with some of its keys replaced."""
    nodes = [{"id": "a", "x": 1}, {"id": "b", "x": 2}]
    graph = {"directed": True, "graph": {"label": 1}, "nodes": nodes, "edges": [{"source": "a", "target": "b"}]}
    return json.dumps([graph, graph | {"graph": {"label": 0}} | changes])


JSON_FAULTS = {
    "no json": ('[{"nodes": [}]', "{path}, line 1: Expecting value: not JSON"),
    "cut off": (json_graphs()[:-20], "{path}, line 1: "),
    "deep": ("[" * 100_000, "{path}, line 1: nested too deeply to be read"),
    "not a graph": ("[1]", "{path}, graph 0 is not a node-link graph, which has 'nodes': it is a int"),
    "text": ('"graph"', "{path} is not a node-link graph, which has 'nodes': it is a str"),
    "no graphs": ("[]", "{path} holds no graphs"),
    "other names": (
        '{"vertices": [], "edges": []}',
        "{path} is not a node-link graph, which has 'nodes': did you mean 'edges'?",
    ),
    "no edges": ('{"nodes": [], "edgs": []}', "{path} has no 'edges' (nor 'links'): did you mean 'edgs'?"),
    "nodes by name": (json_graphs(nodes={"a": 1}), "{path}, graph 1, nodes are a dict, but must be a list"),
    "node without attributes": (
        json_graphs(nodes=["a"]),
        "{path}, graph 1, node 0 is a str, but must be an object of attributes",
    ),
    "no id": (json_graphs(nodes=[{"x": 1}]), "{path}, graph 1, node 0 has no 'id': there are x"),
    "id of no kind": (
        json_graphs(nodes=[{"id": None, "x": 1}]),
        "{path}, graph 1, node 0: node is None, but an id must be text or a number",
    ),
    "no source": (
        json_graphs(edges=[{"from": "a", "target": "b"}]),
        "{path}, graph 1, edge 0 has no 'source': there are from, target",
    ),
    "node twice": (json_graphs(nodes=[{"id": "a", "x": 1}] * 2), "{path}, graph 1, node 'a': node 'a' already exists"),
    "edge twice": (
        json_graphs(edges=[{"source": "a", "target": "b", "w": weight} for weight in (1, 2)]),
        "{path}, graph 1, edge 'a' -> 'b': edge 'a' -> 'b' already exists with other values",
    ),
    "no nodes": (json_graphs(nodes=[], edges=[]), "{path}, graph 1 has no nodes"),
    "attribute that only one has": (
        json_graphs(nodes=[{"id": "a", "x": 1, "z": 2}, {"id": "b", "x": 1, "z": 0}, {"id": "c", "x": 1, "z": 0}]),
        "{path}, graph 0, node 'a': 'z' is empty, but a feature needs a value",
    ),
    "attribute of another type": (
        json_graphs(nodes=[{"id": "a", "x": 1}, {"id": "b", "x": "2"}]),
        "{path}, graph 1, node 'b': 'x' is '2': text and numbers are mixed",
    ),
    "list that the first lacks": (
        json_graphs(nodes=[{"id": "a", "x": 1, "v": [1, 2]}, {"id": "b", "x": 1, "v": [1, 2]}]),
        "{path}, graph 0, node 'a': 'v.0' is empty, but a feature needs a value",
    ),
    "lists of two lengths": (
        json_graphs(nodes=[{"id": "a"}, {"id": "b", "v": [1, 2]}, {"id": "c", "v": [1]}]),
        "{path}, graph 1, node 'c': 'v' is [1], not of the same length as at {path}, graph 1, node 'b'",
    ),
    "attribute of no type": (
        json_graphs(nodes=[{"id": "a", "x": {}}, {"id": "b", "x": 1}]),
        "{path}, graph 1, node 'a': 'x' is {{}}, but must be a number or text",
    ),
    "too large": (
        json_graphs(nodes=[{"id": "a", "x": 2**70}, {"id": "b", "x": 1}]),
        "{path}, graph 1, node 'a': 'x' is a whole number beyond 64 bits",
    ),
    "label missing": (json_graphs(graph={}), "{path}: too few labelled samples (1) for splits"),
    "label empty": (json_graphs(graph={"label": None}), "{path}: too few labelled samples (1) for splits"),
    "label of another type": (
        json_graphs(graph={"label": "x"}),
        "{path}, graph 1: 'label' is 'x': text and numbers are mixed",
    ),
    "attributes of no kind": (
        json_graphs(graph=[1]),
        "{path}, graph 1: 'graph' must be an object of attributes, not a list",
    ),
    "too few": (json_graphs(), "{path}: too few labelled samples (2) for splits"),
}


@pytest.mark.parametrize("fault", JSON_FAULTS)
def test_malformed_json_is_reported_in_one_line(fault, tmp_path):
    content, message = JSON_FAULTS[fault]
    path = tmp_path / "g.json"
    path.write_text(content)
    error = error_line(lambda: open_graphs(path, tmp_path))
    assert error.startswith(message.format(path=path)), error


def test_paths_without_graphs_are_reported(tmp_path):
    (tmp_path / "other.dot").write_text("x")
    for path in (tmp_path, tmp_path / "absent.json", tmp_path / "*.json"):
        assert error_line(lambda path=path: open_graphs(path, tmp_path)).startswith(
            f"no graphs at {path}: set data.path"
        )
    assert "other.dot is not a file of .graphml, " in error_line(lambda: open_graphs(tmp_path / "other.dot", tmp_path))
