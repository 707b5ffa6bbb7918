"""Functions of Python's library: classes of return values, hidden answers, trees, tokens, and the packed dataset."""

import ast
import io
import itertools
import textwrap
import tokenize
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
from gt.data.python.returns import ANSWER, CLASSES, answers, hidden, label
from gt.data.python.syntax import EDGE_KINDS, FUNCTIONS, NODE_TYPES, Tree, preorder, tokens
from gt.data.python.syntax import tree as graph_of
from gt.data.python.views import MAX_DEPTH, NONE, UNKNOWN, VOCABULARY_SIZE
from gt.errors import UserError

build, key = partial(python_functions.build, "returns"), partial(python_functions.key, "returns")


def answer_tree(function: ast.AST) -> Tree:
    return graph_of(preorder(function), unjoined={ANSWER})


def parse(source: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    node = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(node, FUNCTIONS)
    return node


def views(source: str) -> tuple[Tree, list[str]]:
    function = hidden(parse(source))
    return answer_tree(function), tokens(ast.unparse(function))


def no_progress(items, description):
    return items


# --- classes of return values ---

BODIES = {
    "pass": "nothing",
    "return": "nothing",
    "return None": "nothing",
    "raise NotImplementedError": "nothing",
    "if a: return\n return None": "nothing",
    "return True": "boolean",
    "return a < b": "boolean",
    "return a in b and not a": "boolean",
    "if a: return False\n return a is b": "boolean",
    "return not (a + b)": "boolean",
    "return a or b": "expression",
    "return a < b or a": "expression",
    "return f(a)": "call",
    "return a.b()(c)": "call",
    "return a": "reference",
    "return a.b": "reference",
    "return a[0]": "reference",
    "return a[b].c": "reference",
    "return a + b": "expression",
    "return -a": "expression",
    "return 1": "expression",
    "return 'text'": "expression",
    "return a, b": "expression",
    "return lambda: True": "expression",
    "return [x for x in a]": "expression",
    "return a if b else c": "expression",
    "if a: return 1\n else: return f(a)": "mixed",
    "if a: return None\n return a": "mixed",
    "if a: return\n return a < b": "mixed",
    "while a:\n  try: return a.b\n  except E: return a[1]\n  finally: pass": "reference",
    "with a:\n  for b in c: return True\n return None": "mixed",
    "yield": "generator",
    "yield a": "generator",
    "yield from a": "generator",
    "b = yield a\n return b": "generator",
    "return (yield a)": "generator",
    "f([(yield a)])": "generator",
    "def g(): return 1": "nothing",
    "def g(): yield 1\n return g": "reference",
    "async def g(): yield 1\n return g()": "call",
    "class C:\n  def g(self): return 1": "nothing",
    "h = lambda: (yield)\n return a < b": "boolean",
}


@pytest.mark.parametrize(("body", "expected"), BODIES.items(), ids=BODIES)
def test_class_of_return_values(body, expected):
    for start in ("def f(a, b, c):\n ", "async def f(a, b, c):\n "):
        if "yield from" in body or ("yield" in body and "return " in body):
            start = "def f(a, b, c):\n "  # not allowed in an async function
        assert CLASSES[label(answers(parse(start + body)))] == expected


def test_class_of_awaited_value():
    assert CLASSES[label(answers(parse("async def f(a): return await a.b()")))] == "call"
    assert CLASSES[label(answers(parse("async def f(a): return await a")))] == "reference"


# --- hidden answers ---

EQUAL = {
    "value": ("def f(a): return a + 1", "def f(a): return g(a)[3]"),
    "no value": ("def f(a): return", "def f(a): return a"),
    "none": ("def f(a): return None", "def f(a): return not a"),
    "lambda": ("def f(a): return lambda b: a", "def f(a): return a"),
    "generator": ("def f(a):\n for b in a: yield b", "def f(a):\n for b in a: return b == a"),
    "generators": ("def f(a): yield from a", "def f(a): yield"),
    "value of a yield": ("def f(a): b = yield a", "def f(a): b = yield from g(a)"),
    "yield in a return": ("def f(a): return (yield a)", "def f(a): return 3"),
    "yield in an expression": ("def f(a): g((yield a), 1)", "def f(a): g((yield), 1)"),
    "await": ("async def f(a): return await a", "async def f(a): return a"),
    "name": ("def is_fine(a): return a", "def frobnicate(a): return a"),
    "recursion": ("def f(a): f(f, a.f, f=a)", "def long_name(a): long_name(long_name, a.long_name, long_name=a)"),
    "super": ("def f(self): super().f()", "def get(self): super().get()"),
    "statements": ("def f():\n global f, g\n import f.b as f", "def h():\n global h, g\n import h.b as h"),
    "handler": ("def f():\n try: g()\n except E as f: pass", "def h():\n try: g()\n except E as h: pass"),
    "pattern": ("def f(a):\n match a:\n  case C(f=1) as f: pass", "def h(a):\n match a:\n  case C(h=1) as h: pass"),
    "name in a string": ("def keys(a): getattr(a, 'keys')", "def values(a): getattr(a, 'values')"),
    "name within a string": ("def keys(a): log('keys: no')", "def values(a): log('no values')"),
    "name in a nested string": ("def f(a): log(f'{a} for f')", "def g(a): log(f'{a} for g')"),
    "name inside": ("def f(a):\n def g(): return f(a)", "def h(a):\n def g(): return h(a)"),
    "annotation": ("def f(a) -> bool: return a", "def f(a): return a"),
    "annotation inside": ("def f(a):\n def g() -> int: pass", "def f(a):\n def g(): pass"),
    "docstring": ("def f(a):\n 'Yields all.'\n return a", "def f(a): return a"),
    "only a docstring": ("def f(a): 'Returns a bool.'", "def f(a): pass"),
    "empty docstring": ("def f(a):\n ''\n return a", "def f(a): return a"),
    "docstring inside": ("def f(a):\n class C:\n  'Of f.'\n  b = 1", "def f(a):\n class C: b = 1"),
    "decorator": ("@contextmanager\ndef f(a): yield a", "def f(a): yield a"),
    "property": ("@property\n@g(1)\ndef f(a): return a.b", "def f(a): return a.b"),
    "comment": ("def f(a):\n # true\n return a", "def f(a): return a"),
}


@pytest.mark.parametrize(("first", "second"), EQUAL.values(), ids=EQUAL)
def test_hidden_details_do_not_change_views(first, second):
    assert views(first) == views(second)


DIFFERENT = {
    "no return at all": ("def f(a): return", "def f(a): pass"),
    "value of a function inside": (
        "def f(a):\n def g(): return 1\n return g",
        "def f(a):\n def g(): return a\n return g",
    ),
    "yield of a function inside": ("def f(a):\n def g(): return 1", "def f(a):\n def g(): yield 1"),
    "value of a lambda inside": ("def f(a): b = lambda: 1", "def f(a): b = lambda: a"),
    "decorator inside": ("def f(a):\n @b\n def g(): pass", "def f(a):\n def g(): pass"),
    "async": ("async def f(a): return a", "def f(a): return a"),
    "other names": ("def f(a): g(ff)", "def f(a): g(f)"),
    "annotation of an argument": ("def f(a: int): return a", "def f(a): return a"),
    "operator": ("def f(a): g(a + 1)", "def f(a): g(a - 1)"),
    "comparison": ("def f(a, b): g(a < b < 1)", "def f(a, b): g(a < b > 1)"),
    "constant": ("def f(a): g(1)", "def f(a): g('1')"),
}


@pytest.mark.parametrize(("first", "second"), DIFFERENT.values(), ids=DIFFERENT)
def test_other_details_change_both_views(first, second):
    for a, b in zip(views(first), views(second), strict=True):
        assert a != b


def test_hiding_does_not_modify_the_function():
    function = parse(SOURCE)
    before = ast.dump(function, include_attributes=True)
    hidden(function)
    assert ast.dump(function, include_attributes=True) == before


# --- the tree ---

SOURCE = """
def walk(self, first, *rest, last: int = limit, **named):
    '''Docstring.'''
    @first.check
    def inner(last, limit=-1):
        return last if limit else first
    table = {first: last, limit: rest, **named}
    while first < last <= 3 and not rest:
        first += (last or rest)[first:last]
        for limit, first in zip(rest, rest, strict=True):
            yield first, last
    with open('name') as first, last:
        print(f'{first} {limit!r}', *rest, sep='a rather long separator')
    return walk(first)
"""


def names_in_order(source: str) -> list[str]:
    """Every name and argument, in source order."""
    nodes = [node for node in ast.walk(parse(source)) if isinstance(node, ast.Name | ast.arg)]
    nodes.sort(key=lambda node: (node.lineno, node.col_offset))
    return [node.id if isinstance(node, ast.Name) else node.arg for node in nodes]


def test_tree_has_the_nodes_of_the_syntax_tree():
    function = hidden(parse(SOURCE))
    graph = answer_tree(function)
    expected = [
        type(node).__name__
        for node in ast.walk(function)
        if not isinstance(node, ast.expr_context | ast.operator | ast.unaryop | ast.boolop | ast.cmpop)
    ]
    assert sorted(NODE_TYPES[number] for number in graph.types) == sorted(expected)


def test_nodes_are_in_source_order():
    source = SOURCE.replace("yield first, last", "pass").replace("return walk(first)", "pass")
    graph = answer_tree(hidden(parse(source)))
    variables = [w for t, w in zip(graph.types, graph.words, strict=True) if NODE_TYPES[t] in ("Name", "arg")]
    assert variables == names_in_order(source)


def test_parents_and_depths_are_depth_first():
    graph = answer_tree(hidden(parse(SOURCE)))
    parents = {target: source for source, target, kind in graph.edges if EDGE_KINDS[kind] == "child"}
    assert sorted(parents) == list(range(1, len(graph.types)))
    for node, parent in parents.items():
        assert parent < node  # parents first
        assert graph.depths[node] == graph.depths[parent] + 1
        # depth first: only descendants of the parent lie between it and its child
        assert all(graph.depths[between] > graph.depths[parent] for between in range(parent + 1, node))
    assert graph.depths[0] == 0


def test_leaves_form_a_path():
    graph = answer_tree(hidden(parse(SOURCE)))
    parents = {source for source, _, kind in graph.edges if EDGE_KINDS[kind] == "child"}
    leaves = [node for node in range(len(graph.types)) if node not in parents]
    edges = [(source, target) for source, target, kind in graph.edges if EDGE_KINDS[kind] == "next leaf"]
    assert edges == list(itertools.pairwise(leaves))


def test_next_use_edges_match_loop():
    graph = answer_tree(hidden(parse(SOURCE)))
    named = [NODE_TYPES[number] in ("Name", "arg") for number in graph.types]
    expected = []
    for second in range(len(named)):
        for first in reversed(range(second)):
            if named[first] and named[second] and graph.words[first] == graph.words[second] != "HIDDEN_VALUE":
                expected.append((first, second))
                break
    edges = [(source, target) for source, target, kind in graph.edges if EDGE_KINDS[kind] == "next use"]
    assert len(edges) > 20
    assert sorted(edges) == sorted(expected)


def test_every_edge_has_its_reverse():
    graph = answer_tree(hidden(parse(SOURCE)))
    assert len(set(graph.edges)) == len(graph.edges)
    assert {(target, source, kind ^ 1) for source, target, kind in graph.edges} == set(graph.edges)


def test_hidden_values_are_not_joined():
    graph = answer_tree(hidden(parse("def f(a):\n if a: return 1\n return 2")))
    assert [EDGE_KINDS[kind] for _, _, kind in graph.edges if kind >= 4] == ["next use", "previous use"]


# --- the tokens ---


def test_tokens_match_tokenize():
    source = ast.unparse(hidden(parse(SOURCE.replace("f'{first} {limit!r}'", "b'x'").replace("a rather long ", ""))))
    expected: list[str] = []
    level = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            level += 1 if token.type == tokenize.INDENT else -1
        elif token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING):
            if expected and expected[-1] == "line":
                expected[-1] = f"line:{level}"
            expected.append(token.string)
        elif token.type == tokenize.NEWLINE:
            expected.append("line")
    assert tokens(source) == expected[:-1]


def test_long_strings_are_one_token():
    actual = tokens("f('''a\nb''', 'a long string, \\'quoted\\'', r\"a\\b\")\n\n    g(f'{a} and {b} and {c}')")
    assert actual == ["f", "(", "'''a\nb'''", ",", "str", ",", 'r"a\\b"', ")", "line:1", "g", "(", "str", ")"]


# --- the dataset ---


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
