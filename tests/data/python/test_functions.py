"""The dataset of Python functions, built from small files: contents, splits, skipped files and functions, keys."""

import ast
import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gt.data.graphs import GraphData
from gt.data.packed import Graphs
from gt.data.python import functions as python_functions
from gt.data.python import library, misuse, returns
from gt.data.python.functions import PythonFunctions
from gt.data.python.library import MAX_TOKENS, sources, split_of
from gt.data.python.returns import CLASSES, answers, hidden, label
from gt.data.python.syntax import FUNCTIONS, NODE_TYPES
from gt.data.python.views import MAX_DEPTH, NONE, UNKNOWN, VOCABULARY_SIZE
from gt.errors import UserError
from tests.data.python.parsing import answer_tree, parse

build, key = partial(python_functions.build, "returns"), partial(python_functions.key, "returns")


def no_progress(items, description):
    return items


def function_source(function: int) -> str:
    """A function that is unique for each number, of a class that depends on the number."""
    value = ("a", "g(a)", "a < 1", "None", "a + 1")[function % 5]
    return f"def name{function}(a, b=0):\n    a.set{function}(b, {function})\n    return {value}\n\n\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Forty files with one to three functions each."""
    root = tmp_path_factory.mktemp("library")
    number = itertools.count()
    for file in range(40):
        path = root / ("inner" if file % 2 else ".") / f"file{file}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(function_source(next(number)) for _ in range(1 + file % 3)))
    return root


@pytest.fixture(scope="module")
def stores(folder) -> dict[str, Graphs]:
    return {"graph": build("graph", folder, no_progress), "sequence": build("sequence", folder, no_progress)}


def assert_sound(graphs: Graphs) -> None:
    """Assert the invariants of every store of this dataset."""
    schema, sizes = graphs.schema, graphs.sizes
    x, kinds = graphs.nodes["x"], graphs.edges["edge_attr"]
    assert schema.names == CLASSES
    assert (schema.level, schema.kind, schema.outputs) == ("graph", "multiclass", 7)
    assert schema.max_nodes == sizes.max()
    assert len(x) == graphs.node_ptr[-1] == sizes.sum()
    assert len(kinds) == graphs.edge_ptr[-1] == graphs.edge_index.shape[1]
    assert x.shape[1] == len(schema.node_vocab)
    assert kinds.shape[1] == len(schema.edge_vocab) == 1
    for values, count in zip((*x.T, kinds[:, 0]), (*schema.node_vocab, *schema.edge_vocab), strict=True):
        assert values.min() >= 0
        assert values.max() < count
    graph = np.repeat(np.arange(len(graphs)), np.diff(graphs.edge_ptr))
    assert graphs.edge_index.min() >= 0
    assert (graphs.edge_index < sizes[graph]).all()
    rank = (graph * schema.max_nodes + graphs.edge_index[1]) * schema.max_nodes + graphs.edge_index[0]
    assert (np.diff(rank) >= 0).all()
    y = graphs.graphs["y"]
    assert y.shape == (len(graphs),)
    assert set(np.unique(y)) <= set(range(7))
    ids = np.concatenate([graphs.splits[split] for split in ("train", "valid", "test")])
    assert np.array_equal(np.sort(ids), np.arange(len(graphs)))


@pytest.mark.parametrize("view", ["graph", "sequence"])
def test_stores_are_sound(stores, view):
    assert_sound(stores[view])


def test_views_have_the_same_functions(stores):
    graph, sequence = stores["graph"], stores["sequence"]
    assert np.array_equal(graph.graphs["y"], sequence.graphs["y"])
    for split in ("train", "valid", "test"):
        assert np.array_equal(graph.splits[split], sequence.splits[split])
    assert graph.notes == sequence.notes


def test_labels_by_split_in_source_order(stores, folder):
    graphs = stores["graph"]
    expected: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for path in sources(folder):
        functions = [node for node in ast.parse((folder / path).read_text()).body if isinstance(node, FUNCTIONS)]
        expected[split_of(path)] += [CLASSES[label(answers(node))] for node in functions]
    assert all(expected.values())
    for split, names in expected.items():
        assert [CLASSES[y] for y in graphs.graphs["y"][graphs.splits[split]]] == names


def test_split_depends_on_whole_path():
    shares = {
        name: [split_of(Path(f"folder{i}/{name}")) for i in range(1000)].count("train") for name in ("a.py", "b.py")
    }
    assert all(740 < share < 860 for share in shares.values())


def test_vocabulary_comes_from_training_files(stores):
    graphs = stores["graph"]
    attribute = graphs.nodes["x"][:, 0] == NODE_TYPES.index("Attribute")
    in_train = np.repeat(np.isin(np.arange(len(graphs)), graphs.splits["train"]), graphs.sizes)
    word = graphs.nodes["x"][:, 1]
    assert (word[attribute & in_train] > UNKNOWN).all()  # each function sets an attribute with a unique name
    assert (word[attribute & ~in_train] == UNKNOWN).all()
    assert (word[graphs.nodes["x"][:, 0] == NODE_TYPES.index("arguments")] == NONE).all()


def test_sequences_are_paths(stores):
    graphs = stores["sequence"]
    for g, size in enumerate(graphs.sizes):
        rows = slice(graphs.edge_ptr[g], graphs.edge_ptr[g + 1])
        edges = {
            (*pair, kind)
            for *pair, kind in np.vstack([graphs.edge_index[:, rows], graphs.edges["edge_attr"][rows].T]).T.tolist()
        }
        assert edges == {(i, i + 1, 0) for i in range(size - 1)} | {(i + 1, i, 1) for i in range(size - 1)}


def test_stored_graph_equals_tree(stores, folder):
    first = next(path for path in sources(folder) if split_of(path) == "train")
    graph = answer_tree(hidden(parse((folder / first).read_text())))
    graphs = stores["graph"]
    count, edges = graphs.node_ptr[1], graphs.edge_ptr[1]
    assert graphs.nodes["x"][:count, 0].tolist() == graph.types
    assert graphs.nodes["x"][:count, 2].tolist() == graph.depths
    stored = np.vstack([graphs.edge_index[:, :edges], graphs.edges["edge_attr"][:edges].T]).T
    assert {tuple(edge) for edge in stored.tolist()} == set(graph.edges)


@pytest.mark.parametrize("view", ["graph", "sequence"])
def test_build_is_deterministic(stores, folder, view):
    rebuilt = build(view, folder, no_progress)
    assert np.array_equal(rebuilt.edge_index, stores[view].edge_index)
    for group in ("nodes", "edges", "graphs", "splits"):
        for name, values in getattr(stores[view], group).items():
            assert np.array_equal(values, getattr(rebuilt, group)[name])
    assert rebuilt.schema == stores[view].schema
    assert rebuilt.notes == stores[view].notes


def copy_with_files(folder: Path, tmp_path: Path, files: dict[str, str]) -> Path:
    """Copy the folder and add files."""
    for path in sources(folder):
        files = {path.as_posix(): (folder / path).read_text(), **files}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_duplicate_functions_are_dropped(stores, folder, tmp_path):
    body = "    a.set0(b, 0)\n    return "
    files = {
        "zz_same.py": function_source(0) + function_source(1),
        "zz_name_and_docstring.py": f"def other(a, b=0) -> int:\n    'Doc.'\n{body}a",
        "zz_other_answer.py": f"def name0(a, b=0):\n{body}b",
    }
    notes = build("sequence", copy_with_files(folder, tmp_path, files), no_progress).notes
    before = stores["sequence"].notes
    assert notes["duplicates"] - before["duplicates"] == 3
    assert notes["functions"] - before["functions"] == 4


def test_small_and_large_functions_are_skipped(stores, folder, tmp_path):
    long = ", ".join("a" for _ in range(100))
    body = "\n    ".join(f"g({long[:30]}, {i})" for i in range(200))
    files = {
        "tiny.py": "def f(): pass",
        "large.py": f"def f(a):\n    {body}",  # over 500 nodes
        "wide.py": f"def f(a):\n    g({', '.join(['()'] * 200)})",  # 410 nodes, over 512 tokens
        "fits.py": f"def f(a):\n    g({', '.join(['()'] * 150)})",
    }
    root = copy_with_files(folder, tmp_path, files)
    for view in ("graph", "sequence"):
        assert len(build(view, root, no_progress)) == len(stores[view]) + 1


def test_excluded_and_unparsable_files_are_skipped(stores, folder, tmp_path):
    function = "def f(a, b, c): return a + b + c"
    files = {
        **{f"{name}/file.py": function for name in ("test", "inner/tests", "idlelib/idle_test", "site-packages/x")},
        "text.txt": function,
        "bad_syntax.py": function + "\n print 1",
        "bad_encoding.py": "# coding: klingon\n" + function,
    }
    root = copy_with_files(folder, tmp_path, files)
    (root / "bad_bytes.py").write_bytes(b"x = '\xff'")
    (root / "null.py").write_bytes(b"x = 1\0")
    (root / "long_sum.py").write_text(f"x = {' + '.join(['1'] * 20_000)}")
    (root / "deep.py").write_text(f"x = {'-' * 50_000}1")
    (root / ".#open_in_emacs.py").symlink_to("somebody@somewhere.1")
    key("graph", root)
    graphs = build("graph", root, no_progress)
    assert len(graphs) == len(stores["graph"])
    assert graphs.notes["files"] == stores["graph"].notes["files"] + 6
    assert graphs.notes["files that do not parse"] == 6
    assert stores["graph"].notes["files that do not parse"] == 0


@pytest.mark.parametrize("samples", [misuse.samples, returns.samples])
def test_functions_that_cannot_be_unparsed_are_skipped(samples):
    body = "def f(a, b):\n    c = a + b\n    return {} + c\n"
    module = ast.parse(body.format("0x" + "f" * 8000) + body.format("c"))
    assert [sample.line for sample in samples(module)] == [4]


def test_depth_is_capped(folder, tmp_path):
    files = {"deep.py": f"def f(a):\n    g({'-' * 100}a)"}
    graphs = build("graph", copy_with_files(folder, tmp_path, files), no_progress)
    assert graphs.nodes["x"][:, 2].max() == MAX_DEPTH
    assert_sound(graphs)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_folder_without_sources_is_an_error(tmp_path, name):
    (tmp_path / "empty" / "test").mkdir(parents=True)
    (tmp_path / "empty" / "test" / "file.py").write_text(function_source(0))
    for function in (build, key):
        with pytest.raises(UserError, match=r"no Python files in .*: data.path takes a folder of them"):
            function("graph", tmp_path / name)


def test_too_few_functions_is_an_error(tmp_path):
    (tmp_path / "file.py").write_text(function_source(0))
    with pytest.raises(UserError, match="too few functions"):
        build("graph", tmp_path, no_progress)


def test_key_depends_on_view_and_sources(folder, tmp_path):
    root = copy_with_files(folder, tmp_path, {"more.py": "x = 1"})
    first = key("graph", root)
    assert first == key("graph", root)
    assert first != key("sequence", root)
    assert first != key("graph", folder)
    (root / "more.py").write_text("x = 2")  # of the same size
    assert first != key("graph", root)


def test_data_module_loads_batches(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(python_functions, "library", lambda: folder)
    data = GraphData(PythonFunctions("returns", "graph", root=str(tmp_path)), batch_size=4)
    data.open([])
    batch = next(iter(data.loader("train")))
    assert batch.num_graphs == 4
    assert batch.x.shape == (batch.num_nodes, 3)
    assert set(batch.y.tolist()) <= set(range(7))


def test_real_package():
    package = library.library() / "asyncio"
    graph, sequence = build("graph", package, no_progress), build("sequence", package, no_progress)
    assert_sound(graph)
    assert_sound(sequence)
    assert 400 < len(graph) < 2000
    assert np.array_equal(graph.graphs["y"], sequence.graphs["y"])
    assert (np.bincount(graph.graphs["y"], minlength=7) > 0).all()


@pytest.mark.slow
def test_standard_library():
    graphs = build("sequence", library.library(), no_progress)
    assert_sound(graphs)
    assert 12_000 < len(graphs) < 18_000
    assert graphs.notes["files that do not parse"] < 5
    assert graphs.sizes.max() <= MAX_TOKENS
    y = graphs.graphs["y"]
    share = np.bincount(y, minlength=7) / len(y)
    assert 0.35 < share[CLASSES.index("nothing")] < 0.47
    assert share.argmax() == CLASSES.index("nothing")
    assert share.min() > 0.01
    sizes = {split: len(ids) / len(y) for split, ids in graphs.splits.items()}
    assert 0.75 < sizes["train"] < 0.85
    assert min(sizes.values()) > 0.07
    for ids in graphs.splits.values():  # similar class shares in each split
        assert np.abs(np.bincount(y[ids], minlength=7) / len(ids) - share).sum() < 0.2
    token = graphs.nodes["x"][:, 0]
    assert (token == UNKNOWN).mean() < 0.1
    assert token.max() == VOCABULARY_SIZE - 1
