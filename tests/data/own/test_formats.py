"""Files of other programs: GML and GEXF by NetworkX, JSON for D3, edge lists, tables of Gephi, GraphML of yEd."""

import gzip
import json
import random
from contextlib import suppress

import networkx as nx
import pytest

from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.errors import UserError
from tests.data.modules import make_data
from tests.data.tables_of import error_line


def karate_club(directed=False):
    """Zachary's karate club: the club of each of 34 people, and how often two of them met."""
    graph = nx.karate_club_graph()
    graph = nx.DiGraph(graph) if directed else graph
    for node, data in graph.nodes.data():
        data |= {"label": f"Mr {node} é", "age": 20 + node % 7}
    return graph


def open_data(path, module=NodeData, source=GraphFiles, **options):
    data = make_data(module, source, str(path), root=str(path.parent / "built"), **options)
    data.open([])
    return data


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("suffix", [".gml", ".gexf", ".graphml", ".GML.gz"])
def test_round_trip_through_networkx(suffix, directed, tmp_path):
    graph = karate_club(directed)
    path = tmp_path / f"karate{suffix}"
    if suffix == ".gexf":
        nx.write_gexf(graph, path)
    elif suffix == ".graphml":
        nx.write_graphml(graph, path)
    else:  # in GML, NetworkX numbers the nodes in their order
        text = "\n".join(nx.generate_gml(nx.relabel_nodes(graph, {n: data["label"] for n, data in graph.nodes.data()})))
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    store = open_data(path, target="club").graphs
    expected = {(a, b) for a, b in graph.edges} | {(b, a) for a, b in graph.edges if not directed}
    assert sorted(map(tuple, store.edge_index.T.tolist())) == sorted(expected)
    edges = store.edge_index.T.tolist()
    weights = [graph.edges[tuple(pair)]["weight"] for pair in edges]
    categories = dict(zip(store.schema.edge_names, store.schema.edge_categories, strict=True))["weight"]
    column = store.edges["edge_attr"][:, 0]
    assert [categories[code] for code in column] == weights if categories else column.tolist() == weights
    assert [store.schema.names[y] for y in store.nodes["y"]] == [graph.nodes[n]["club"] for n in graph]
    roles = store.notes["attributes"]["nodes"]
    assert (roles["club"], roles["age"]) == ("target", "categories")
    assert roles["label"].startswith("not used")


def test_folder_of_gexf_files(tmp_path):
    """Metadata that NetworkX reads from each file, such as its mode, is not a target."""
    (tmp_path / "graphs").mkdir()
    for number in range(10):
        graph = nx.path_graph(3)
        nx.set_node_attributes(graph, {0: "u", 1: "v", 2: "u"}, "class of it")
        nx.write_gexf(graph, tmp_path / "graphs" / f"{number}.gexf")
    store = open_data(tmp_path / "graphs", GraphData, GraphFiles, target="class of it").graphs
    assert (len(store), store.schema.level, store.schema.names) == (10, "node", ("u", "v"))
    assert set(store.notes["attributes"]["graphs"]) == set()


def test_layout_attributes_are_unused(tmp_path):
    graph = karate_club()
    for node, data in graph.nodes.data():
        data["viz"] = {"position": {"x": node / 3, "y": node / 7, "z": 0.0}, "size": 1.0 + node}
        data["graphics"] = {"x": node / 3, "y": node / 7, "fill": "#ff0000"}
    nx.write_gexf(graph, tmp_path / "g.gexf")
    for data in graph.nodes.values():
        del data["viz"], data["label"]
    nx.write_gml(graph, tmp_path / "g.gml")
    for name in ("g.gexf", "g.gml"):
        store = open_data(tmp_path / name, target="club").graphs
        assert (store.schema.node_vocab, store.schema.node_floats) == ((7,), 0)
        layout_roles = [
            role for name, role in store.notes["attributes"]["nodes"].items() if name.startswith(("viz", "graph"))
        ]
        assert set(layout_roles) == {"not used, part of a drawing"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("g.gml", "graph [ node [ id 1 ", "g.gml is not GML"),
        ("g.gml", "graph [ node [ id 1 ] node [ id 1 ] ]", "g.gml is not GML"),
        ("g.gml", 'graph [ node [ label "a" ] ]', "g.gml is not GML"),
        ("g.gml", "no graph at all", "g.gml is not GML"),
        ("g.gexf", "<gexf", "g.gexf, line 1: unclosed token: not XML"),
        ("g.gexf", "<gexf></gexf>", "g.gexf is not GEXF"),
        (
            "g.gexf",
            '<!DOCTYPE g [<!ENTITY a SYSTEM "file:///a">]>\n<gexf>&a;</gexf>',
            "line 1: a document type",
        ),
        ("g.edges", "a b\n", "g.edges: an edge list has no labels to learn"),
    ],
)
def test_malformed_file_is_reported_in_one_line(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    assert message in error_line(lambda: open_data(tmp_path / name))


def test_gml_with_names_alone_has_no_target(tmp_path):
    graph = nx.karate_club_graph()
    for data in graph.nodes.values():
        data.clear()
    nx.write_gml(nx.relabel_nodes(graph, str), tmp_path / "g.gml")
    assert "'label' is not a target: 34 different texts for 34 nodes" in error_line(
        lambda: open_data(tmp_path / "g.gml")
    )


def test_d3_links_by_position_or_id(tmp_path):
    nodes = [
        {"name": f"person {n}", "group": n % 3, "index": n, "x": n / 3, "y": 7.5 - n / 9, "vx": 0.5, "vy": -0.25}
        for n in range(30)
    ]
    links = [{"source": n, "target": n + 1, "value": n % 2} for n in range(29)]
    path = tmp_path / "d3.json"
    path.write_text(json.dumps({"nodes": nodes, "links": links}))
    store = open_data(path, target="group").graphs
    assert sorted(map(tuple, store.edge_index.T.tolist())) == sorted(
        [(n, n + 1) for n in range(29)] + [(n + 1, n) for n in range(29)]
    )
    assert store.nodes["y"].tolist() == [n % 3 for n in range(30)]
    assert {role.partition(",")[0] for name, role in store.notes["attributes"]["nodes"].items() if name != "group"} == {
        "not used"
    }
    nodes_with_ids = [{"id": node.pop("name"), **node} for node in nodes]
    path.write_text(json.dumps({"nodes": nodes_with_ids, "links": links}))
    data_with_ids = open_data(path, target="group")
    assert (data_with_ids.graphs.edge_index == store.edge_index).all()
    for index, node in enumerate(nodes_with_ids):  # integers that match ids are ids, even if the ids are text
        node["id"] = str(29 - index)
    path.write_text(json.dumps({"nodes": nodes_with_ids, "links": links}))
    reversed_graphs = open_data(path, target="group").graphs
    assert sorted(map(tuple, reversed_graphs.edge_index.T.tolist())) == sorted(
        (29 - a, 29 - b) for a, b in store.edge_index.T.tolist()
    )
    links[3]["target"] = 30
    path.write_text(json.dumps({"nodes": nodes_with_ids, "links": links}))
    assert "there is no node '30'" in error_line(lambda: open_data(path, target="group"))


@pytest.mark.parametrize(("id_type", "end_type"), [(float, int), (int, float), (float, float), (float, str)])
def test_integral_floats_equal_integer_ids(id_type, end_type, tmp_path):
    """As in NetworkX; pandas writes 2.0 for 2 if the column has missing values."""
    order = [2, 0, 1, *range(3, 30)]
    nodes = [{"id": id_type(n), "label": "uv"[n % 2], "age": 20 + n % 7} for n in order]
    links = [{"source": end_type(n), "target": end_type(n + 1)} for n in range(29)]
    path = tmp_path / "g.json"
    path.write_text(json.dumps({"directed": True, "nodes": nodes, "links": links}))
    store = open_data(path).graphs
    assert [(order[a], order[b]) for a, b in sorted(store.edge_index.T.tolist(), key=lambda ends: order[ends[0]])] == [
        (n, n + 1) for n in range(29)
    ]
    assert store.schema.node_names == ("age",)


def test_link_positions_may_be_floats(tmp_path):
    nodes = [{"id": 100.0 + n, "label": "uv"[n % 2]} for n in range(30)]
    links = [{"source": float(n), "target": n + 1} for n in range(29)]
    path = tmp_path / "g.json"
    path.write_text(json.dumps({"directed": True, "nodes": nodes, "links": links}))
    store = open_data(path).graphs
    assert store.edge_index.T.tolist() == [[n, n + 1] for n in range(29)]
    assert store.notes["attributes"]["nodes"]["id"] == "not used, an id of nodes"


def test_keys_are_case_insensitive(tmp_path):
    nodes = [{"ID": f"n{n}", "Label": "uv"[n % 2], "Split": "train" if n < 20 else "valid"} for n in range(30)]
    links = [{"Source": f"n{n}", "TARGET": f"n{n + 1}"} for n in range(29)]
    path = tmp_path / "g.json"
    path.write_text(json.dumps({"directed": True, "nodes": nodes, "links": links}))
    store = open_data(path).graphs
    assert store.edge_index.T.tolist() == [[n, n + 1] for n in range(29)]
    assert {split: len(ids) for split, ids in store.splits.items()} == {"train": 20, "valid": 10}
    assert store.notes["attributes"]["nodes"] == {"Label": "target", "split": "split"}


GEPHI_NODES = "Id;Label;timeset;modularity_class;score\n" + "".join(
    f"n{n};person {n};;{n % 3};{n // 2},{n % 2}5\n" for n in range(30)
)
GEPHI_EDGES = "Source;Target;Type;Id;Label;timeset;Weight\n" + "".join(
    f"n{n};n{n + 1};Undirected;{n};;;1,5\n" for n in range(29)
)


def test_gephi_tables(tmp_path):
    folder = tmp_path / "csv"
    folder.mkdir()
    (folder / "Friends [Nodes].csv").write_text(GEPHI_NODES)
    (folder / "Friends [Edges].csv").write_text(GEPHI_EDGES)
    line = error_line(lambda: open_data(folder, NodeData, CSVGraphs))
    assert "'Label' is not a target" in line
    assert "data.target=modularity_class" in line
    data = open_data(folder, NodeData, CSVGraphs, target="modularity_class")
    store = data.graphs
    assert store.edge_ptr[-1] == 58  # undirected, as the column Type says
    assert store.nodes["x"][:, 0].tolist() == pytest.approx([n // 2 + 0.05 + n % 2 / 10 for n in range(30)])
    assert store.edges["edge_attr"].tolist() == [[1.5]] * 58
    assert data.source.names(data.graphs)["Id"][:2].tolist() == ["n0", "n1"]
    assert {name for name, role in store.notes["attributes"]["edges"].items() if role == "numbers"} == {"Weight"}
    assert open_data(folder, NodeData, CSVGraphs, target="modularity_class", undirected=False).graphs.edge_ptr[-1] == 29
    (folder / "Friends [Edges].csv").write_text(GEPHI_EDGES.replace("Undirected", "Directed", 1))
    assert "[Edges].csv, line 3: an edge is undirected" in error_line(lambda: open_data(folder, NodeData, CSVGraphs))


@pytest.mark.parametrize(
    ("name", "content", "weights"),
    [
        ("edges.edgelist", "# a b\na b\nb c\n\n", None),
        ("friends.edges", "% sym\na\tb\t2\nb\tc\t1\n", [2, 1]),
        ("edges.txt", "Source, Target, Weight\na, b, 2.5\nb, c, 1\n", [2.5, 1.0]),
        ("edges.edgelist.gz", "a b {'weight': 2}\nb c {'weight': 1}\n", [2, 1]),
    ],
)
def test_edge_list_with_node_table(name, content, weights, tmp_path):
    folder = tmp_path / "csv"
    folder.mkdir()
    (folder / "nodes.csv").write_text("node,label,split\na,u,train\nb,v,train\nc,u,valid\n")
    (folder / name).write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    store = open_data(folder, NodeData, CSVGraphs).graphs
    assert store.edge_index.T.tolist() == [[0, 1], [1, 2]]
    categories = dict(zip(store.schema.edge_names, store.schema.edge_categories, strict=True)).get("weight")
    column = store.edges["edge_attr"][:, 0].tolist() if store.edges else None
    assert ([categories[code] for code in column] if categories else column) == weights


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a b\nb\n", "edges.txt, line 2 has 1 columns"),
        ("a b 1\nb c\n", "edges.txt, line 2 has 2 columns"),
        ("a b 1\nb c 1 2\n", "edges.txt, line 2: '1 2' is not a number"),
        ("a b {'x': f()}\n", "edges.txt, line 1: \"{'x': f()}\" is not a dictionary"),
        ("a b\nb d\n", "edges.txt, line 2: there is no node 'd'"),
    ],
)
def test_malformed_edge_list_is_reported_in_one_line(content, message, tmp_path):
    (tmp_path / "nodes.csv").write_text("node,label,split\na,u,train\nb,v,train\nc,u,valid\n")
    (tmp_path / "edges.txt").write_text(content)
    assert message in error_line(lambda: open_data(tmp_path, NodeData, CSVGraphs))


def test_yed_layout_elements_are_ignored(tmp_path):
    nodes = "".join(
        f'<node id="n{n}"><data key="d5">{"uv"[n % 2]}</data><data key="d6"><y:ShapeNode><y:Geometry x="{n}.5"/>'
        f"<y:NodeLabel>name {n}</y:NodeLabel></y:ShapeNode></data></node>\n"
        for n in range(30)
    )
    path = tmp_path / "y.graphml"
    path.write_text(
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:y="http://www.yworks.com/xml/graphml">\n'
        '<key for="node" id="d5" attr.name="label" attr.type="string"/>\n'
        '<key for="node" id="d6" yfiles.type="nodegraphics"/>\n'
        f'<graph edgedefault="directed">{nodes}<edge source="n0" target="n1"/></graph></graphml>'
    )
    store = open_data(path).graphs
    assert store.schema.names == ("u", "v")
    assert store.notes["attributes"]["nodes"] == {"label": "target"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "iso-8859-1", "windows-1252", "utf-32"])
def test_declared_xml_encoding_is_used(encoding, tmp_path):
    path = tmp_path / "g.graphml"
    nx.write_graphml(karate_club(), path)
    declared = "utf-16" if encoding == "utf-16-le" else encoding
    text = path.read_text(encoding="utf-8").replace("encoding='utf-8'", f"encoding='{declared}'")
    text = text.replace("Officer", "Ôfficer")
    bom = "\ufeff" if encoding == "utf-16-le" else ""
    path.write_bytes((bom + text).encode(encoding))
    assert open_data(path, target="club").schema.names == ("Mr. Hi", "Ôfficer")


def test_quoted_decimal_comma_stays_text(tmp_path):
    (tmp_path / "nodes.csv").write_text('node,size,label,split\na,"1,5",u,train\nb,"2,5",v,train\nc,"1,5",u,valid\n')
    (tmp_path / "edges.csv").write_text("source,target\na,b\n")
    assert open_data(tmp_path, NodeData, CSVGraphs).schema.node_categories == (("1,5", "2,5"),)
    with pytest.raises(Exception, match="single graph"):
        open_data(tmp_path, GraphData, CSVGraphs)


@pytest.mark.parametrize("suffix", [".gml", ".gexf", ".json", ".edges"])
def test_random_damage_raises_only_user_errors(suffix, tmp_path):
    """A few bytes of a file are removed, replaced or inserted at random."""
    path = tmp_path / f"g{suffix}"
    graph = karate_club()
    if suffix == ".gexf":
        nx.write_gexf(graph, path)
    elif suffix == ".gml":
        nx.write_gml(nx.relabel_nodes(graph, str), path)
    elif suffix == ".json":
        links = [{"source": a, "target": b} for a, b in graph.edges]
        path.write_text(json.dumps({"nodes": [data for _, data in graph.nodes.data()], "links": links}))
    else:
        (tmp_path / "nodes.csv").write_text("Id,Label\n" + "".join(f"{node},{node % 2}\n" for node in graph))
        path.write_text("".join(f"{a} {b} 1\n" for a, b in graph.edges))
    original = path.read_bytes()
    for seed in range(40):
        rng = random.Random(seed)
        content = bytearray(original)
        start = rng.randrange(len(content))
        content[start : start + rng.randrange(8)] = rng.choice(
            [b"", b"\n", b'"', b"nan", b"\xff", b"\0", b"1e999", b"[", b"]", b"<", b"&", b"{", b"9" * 400, b"null"]
        )
        path.write_bytes(content)
        with suppress(UserError):  # any other exception is a bug
            if suffix == ".edges":
                CSVGraphs(str(tmp_path)).build()
            else:
                GraphFiles(str(path), target="club").build()
