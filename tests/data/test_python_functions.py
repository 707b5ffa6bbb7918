"""The built-in dataset: labels by hand, views that hide the answer, and splits that do not mix."""

import ast
import inspect
import json.decoder
import textwrap
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gt.data import python_functions
from gt.data.python_functions import PythonFunctions, build, collect, key, library, read, split_of
from gt.data.syntax import ANSWER, CLASSES, EDGE_KINDS, FUNCTIONS, NODE_TYPES, OWN_NAME, hidden, label, tokens, tree
from gt.errors import UserError


def parse(source: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """The last function of a source, its outermost."""
    found = ast.parse(textwrap.dedent(source)).body[-1]
    assert isinstance(found, FUNCTIONS)
    return found


def views(function: ast.AST):
    """Both views of a function, its answer hidden."""
    with hidden(function) as shown:
        return tree(shown), tokens(ast.unparse(shown))


LABELS = {
    "generator": [
        "def f(a):\n for i in a:\n  yield i",
        "def f(a):\n yield from a",
        "def f(a):\n b = yield\n return b",
        "async def f(a):\n yield a",
        "def f(a):\n return (yield a)",
        "def f(a):\n return [(yield)]",
    ],
    "nothing": [
        "def f(a):\n a.b = 1",
        "def f(a):\n return",
        "def f(a):\n return None",
        "def f(a):\n if a: return\n return None",
        "def f(a):\n raise ValueError(a)",
        "def f(a):\n g = lambda: 1\n g()",
        "def f(a):\n def g():\n  return 1\n g()",
        "def f(a):\n def g():\n  yield 1\n g()",
        "def f(a):\n class G:\n  def h(self):\n   return 1\n G()",
        "def f(a):\n g = lambda: (yield)\n g()",
    ],
    "boolean": [
        "def f(a): return a > 1",
        "def f(a): return not a",
        "def f(a): return True",
        "def f(a): return a in b and not c or a is None",
        "def f(a):\n if a: return False\n return a == 3",
    ],
    "call": [
        "def f(a): return g(a)",
        "def f(a): return a.b().c()",
        "async def f(a): return await g(a)",
        "def f(a):\n try: return g(a)\n finally: a.close()",
    ],
    "reference": [
        "def f(a): return a",
        "def f(a): return a.b.c",
        "def f(a): return a[0]",
        "async def f(a): return await a",
        "def f(a):\n def g(): pass\n return g",
        "def f(a):\n with a:\n  for b in a:\n   while b:\n    return b",
    ],
    "expression": [
        "def f(a): return a + 1",
        "def f(a): return 3",
        "def f(a): return 'text'",
        "def f(a): return [a]",
        "def f(a): return a and b",
        "def f(a): return lambda: a > 1",
        "def f(a): return f'{a}'",
        "def f(a): return -a",
        "def f(a): return a if b else c",
        "def f(a): return (a, b)",
    ],
    "mixed": [
        "def f(a):\n if a: return a\n return a()",
        "def f(a):\n if a: return\n return a",
        "def f(a):\n match a:\n  case 1: return True\n  case _: return 2",
        "async def f(a):\n if a: return await a()\n return None",
    ],
}


@pytest.mark.parametrize(("kind", "source"), [(kind, source) for kind in LABELS for source in LABELS[kind]])
def test_what_a_function_returns(kind, source):
    assert CLASSES[label(parse(source))] == kind


def test_every_class_has_an_example():
    assert tuple(LABELS) == CLASSES


def test_the_tree_view_of_a_small_function():
    shown, _ = views(parse("def double(a, b=2) -> int:\n    'Doc.'\n    a = a * b\n    return double(a)\n"))
    nodes = [
        (NODE_TYPES[t], word, depth) for t, word, depth in zip(shown.types, shown.words, shown.depths, strict=True)
    ]
    assert nodes == [
        ("FunctionDef", OWN_NAME, 0),
        ("arguments", "", 1),
        ("arg", "a", 2),
        ("arg", "b", 2),
        ("Constant", "int:2", 2),
        ("Assign", "", 1),
        ("Name", "a", 2),
        ("BinOp", "Mult", 2),
        ("Name", "a", 3),
        ("Name", "b", 3),
        ("Return", "", 1),
        ("Name", ANSWER, 2),
    ]
    by_kind = {kind: [e[:2] for e in shown.edges if EDGE_KINDS[e[2]] == kind] for kind in EDGE_KINDS}
    parents = [(0, 1), (1, 2), (1, 3), (1, 4), (0, 5), (5, 6), (5, 7), (7, 8), (7, 9), (0, 10), (10, 11)]
    assert sorted(by_kind["child"]) == sorted(parents)
    assert by_kind["next leaf"] == list(pairwise([2, 3, 4, 6, 8, 9, 11]))
    assert sorted(by_kind["next use"]) == [(2, 6), (3, 9), (6, 8)]
    for forth, back in zip(EDGE_KINDS[::2], EDGE_KINDS[1::2], strict=True):
        assert by_kind[back] == [(target, source) for source, target in by_kind[forth]]


def test_the_sequence_view_of_a_small_function():
    source = "def double(a, b=2) -> int:\n    'Doc.'\n    if a >= 'x':\n        a **= b\n    return double(a)\n"
    _, words = views(parse(source))
    expected = f"def {OWN_NAME} ( a , b = 2 ) : line:1 if a >= 'x' : line:2 a **= b line:1 return {ANSWER}"
    assert " ".join(words) == expected


def test_tokens_keep_every_character_but_blanks_and_shorten_long_strings():
    source = "x = f(a.b, -1.5, c[2:3]) // y != z -> w := {1: 2}\nprint('a, b', \"it's\", rb'\\'')"
    expected = "x = f ( a . b , - 1 . 5 , c [ 2 : 3 ] ) // y != z -> w := { 1 : 2 }"
    assert " ".join(tokens(source)) == expected + " line:0 print ( 'a, b' , \"it's\" , rb'\\'' )"
    assert tokens("'sixteen letters!'") == ["'sixteen letters!'"]
    assert tokens("'seventeen letters'") == ["str"]
    assert tokens("'''a\n    b'''") == ["'''a\n    b'''"]


# ---- nothing that was hidden shows

BASE = """
def count(self, n, *rest):
    if n == 0:
        return self
    def helper(k):
        return k + 1
    part = count(self, n - 1) or self.count(n)
    return self.found
"""
SAME = {
    "returned value": BASE.replace("self.found", "sum(x for x in rest if (lambda: x)())"),
    "returned nothing": BASE.replace("return self.found", "return"),
    "returned None": BASE.replace("return self.found", "return None"),
    "each returned value": BASE.replace("return self\n", "return not n\n").replace("self.found", "[n, n, n]"),
    "name": BASE.replace("count", "is_ready"),
    "return type": BASE.replace("*rest):", "*rest) -> dict[str, int]:"),
    "docstring": BASE.replace("*rest):", "*rest):\n    '''Return whether it is.'''"),
    "empty docstring": BASE.replace("*rest):", "*rest):\n    ''"),
    "inner return type": BASE.replace("helper(k):", "helper(k) -> int:"),
    "inner docstring": BASE.replace("helper(k):", "helper(k):\n        'Add one.'"),
    "spelling": BASE.replace("self.found", "(  self\n  .found )  # a comment"),
}
DIFFERENT = {
    "another test": BASE.replace("n == 0", "n == 1"),
    "inner value": BASE.replace("k + 1", "k + 2"),
    "inner name": BASE.replace("helper", "assistant"),
    "argument": BASE.replace("*rest", "*others"),
}


@pytest.mark.parametrize("source", SAME.values(), ids=SAME)
def test_what_is_hidden_changes_neither_view(source):
    assert source != BASE
    assert views(parse(source)) == views(parse(BASE))


@pytest.mark.parametrize("source", DIFFERENT.values(), ids=DIFFERENT)
def test_what_is_not_hidden_changes_both_views(source):
    before, after = views(parse(BASE)), views(parse(source))
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(a):\n yield a", "def f(a):\n yield a.b + 1"),
        ("def f(a):\n yield a", "def f(a):\n yield"),
        ("def f(a):\n yield from a", "def f(a):\n yield from g(a)"),
        ("async def f(a):\n return await a()", "async def f(a):\n return 1"),
        ("def f(a):\n x = yield a", "def f(a):\n x = yield"),
        ("def f(a):\n return (yield a)", "def f(a):\n return 2"),
        ("def f(a):\n 'Doc.'", "def f(a):\n pass"),
        ("def f(a):\n 'Doc.'\n pass", "def f(a):\n pass"),
        ("def f(a):\n global f\n f = a", "def g(a):\n global g\n g = a"),
        ("def f(a):\n from m import b as f", "def g(a):\n from m import b as g"),
        ("def f(a):\n from f import b", "def g(a):\n from g import b"),
        ("def f(a):\n h(f=a, b='f')", "def g(a):\n h(g=a, b='g')"),
        ("@f.setter\ndef f(a): a.f = f", "@g.setter\ndef g(a): a.g = g"),
        ("def f(f): h(f)", "def g(g): h(g)"),
        ("def f(a):\n def f(): f()\n class f: pass", "def g(a):\n def g(): g()\n class g: pass"),
        ("def f(a):\n try: h()\n except E as f: pass", "def g(a):\n try: h()\n except E as g: pass"),
        (
            "def f(a):\n match a:\n  case {'k': 1, **f}: h(f)\n  case [*f]: h()\n  case 1 as f: h()",
            "def g(a):\n match a:\n  case {'k': 1, **g}: h(g)\n  case [*g]: h()\n  case 1 as g: h()",
        ),
        ("def f(a):\n def h() -> f: pass", "def f(a):\n def h(): pass"),
    ],
)
def test_yields_names_and_docstrings_show_nowhere(one, other):
    assert one != other
    assert views(parse(one)) == views(parse(other))


def test_lambdas_and_inner_functions_keep_their_values():
    source = "def f(a):\n    g = lambda: a.first\n    def h():\n        yield a.second\n    return a.third\n"
    shown, words = views(parse(source))
    for word in ("first", "second"):
        assert word in words
        assert word in shown.words
    assert "third" not in words
    assert "third" not in shown.words


LIBRARY = [ast, inspect, json.decoder, textwrap]


def library_functions():
    for module in LIBRARY:
        source = Path(str(module.__file__)).read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, FUNCTIONS):
                yield node


def test_real_functions_come_back_as_they_were():
    for node in library_functions():
        before = ast.dump(node, include_attributes=True)
        with hidden(node) as shown:
            assert ast.dump(shown, include_attributes=True) != before
            assert shown is node
        assert ast.dump(node, include_attributes=True) == before


def test_a_function_comes_back_after_an_exception():
    node = parse(BASE)
    before = ast.dump(node)

    def fail():
        with hidden(node):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert ast.dump(node) == before


class Rewrite(ast.NodeTransformer):
    """Other values where the outermost function returns or yields, and other docstrings and types everywhere."""

    def __init__(self):
        self.depth = 0

    def visit_scope(self, node):
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1
        if isinstance(node, FUNCTIONS):
            node.returns = ast.Constant("Other")
        if not isinstance(node, ast.Lambda):
            had = ast.get_docstring(node, clean=False) is not None
            rest = node.body[1:] if had else node.body
            node.body = [ast.Expr(ast.Constant("Something else.")), *(rest or [ast.Pass()])]
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_scope

    def visit_value(self, node):
        if self.depth == 1:
            node.value = ast.Constant(3)
            return node
        return self.generic_visit(node)

    visit_Return = visit_Yield = visit_YieldFrom = visit_value


def test_real_functions_show_nothing_of_what_they_return():
    checked = 0
    for node in library_functions():
        if any(
            isinstance(n, ast.Yield | ast.YieldFrom) for d in [*node.decorator_list, node.args] for n in ast.walk(d)
        ):
            continue
        before = views(node)
        Rewrite().visit(node)
        assert views(node) == before
        checked += 1
    assert checked > 200


def test_edges_of_real_trees_against_loops():
    for node in library_functions():
        with hidden(node):
            found = tree(node)
        count = len(found.types)
        use = [i for i in range(count) if NODE_TYPES[found.types[i]] in ("Name", "arg")]
        expected = {(i, j, 4) for i in use for j in use if i < j and found.words[i] == found.words[j]
                    and not any(i < k < j and found.words[k] == found.words[i] for k in use)}  # fmt: skip
        assert {edge for edge in found.edges if edge[2] == 4} == expected
        assert {edge for edge in found.edges if edge[2] == 5} == {(j, i, 5) for i, j, _ in expected}
        parent = {target: source for source, target, kind in found.edges if kind == 0}
        assert set(parent) == set(range(1, count))  # a tree, parents first
        assert all(source < target and found.depths[source] == found.depths[target] - 1
                   for target, source in parent.items())  # fmt: skip
        leaves = [i for i in range(count) if i not in set(parent.values())]
        assert [edge[:2] for edge in found.edges if edge[2] == 2] == list(pairwise(leaves))
        assert len(found.edges) == len(set(found.edges))


# ---- files to dataset


def silent(items, what):
    return items


FILES = 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty files of three functions each, one of which they all have; two files do not parse, some do not count."""
    (tmp_path / "package").mkdir()
    for number in range(FILES):
        place = tmp_path / ("package" if number % 2 else "") / f"file_{number}.py"
        place.write_text(
            f"def f(a):\n    b = a + file_{number}\n    return b\n\n"
            f"class C:\n    def g(self, a):\n        while a:\n            yield file_{number}\n            a.pop()\n\n"
            "def shared(a):\n    b = a + 1\n    return print(b)\n\n"
            "def tiny(): pass\n\n"
        )
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "null.py").write_bytes(b"def f():\n    pass\n\0")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "left_out.py").write_text("def f(a):\n    b = a + left_out\n    return b\n")
    (tmp_path / "other.txt").write_text("def f(a):\n    b = a + 1\n    return b\n")
    return tmp_path


def test_functions_of_a_file_share_a_split_and_duplicates_count_once(folder):
    by_split, facts = collect(folder, silent)
    assert facts == {
        "files": FILES + 2,
        "functions": 3 * FILES,
        "duplicates": FILES - 1,
        "files that do not parse": 2,
    }
    of = {}
    for split, samples in by_split.items():
        for sample in samples:
            for word in {word for word in sample.tokens if word.startswith("file_")}:
                assert of.setdefault(word, split) == split
                assert word in sample.tree.words
    assert len(of) == FILES
    for path in folder.rglob("file_*.py"):
        assert of[path.stem] == split_of(path.relative_to(folder))
    samples = [sample for split in by_split.values() for sample in split]
    assert len(samples) == 2 * FILES + 1
    assert len({sample.digest for sample in samples}) == len(samples)
    names = [CLASSES[sample.label] for sample in samples]
    assert {name: names.count(name) for name in set(names)} == {"reference": FILES, "generator": FILES, "call": 1}


def test_about_a_tenth_of_files_goes_to_each_held_out_split():
    splits = [split_of(Path(f"package/module_{i}.py")) for i in range(5000)]
    assert abs(splits.count("valid") - 500) < 75
    assert abs(splits.count("test") - 500) < 75
    assert splits.count("train") == 5000 - splits.count("valid") - splits.count("test")


def test_both_views_are_of_the_same_functions(folder):
    shown = []

    def show(items, what):
        shown.append(what)
        return items

    graph, sequence = build("graph", folder, show), build("sequence", folder, show)
    assert len(shown) == 2
    assert len(graph) == len(sequence) == 2 * FILES + 1
    np.testing.assert_array_equal(graph.graphs["y"], sequence.graphs["y"])
    assert graph.notes == sequence.notes
    assert graph.notes["files that do not parse"] == 2
    assert graph.splits.keys() == {"train", "valid", "test"}
    for split, ids in graph.splits.items():
        np.testing.assert_array_equal(ids, sequence.splits[split])
        assert len(ids)
    everything = np.concatenate(list(graph.splits.values()))
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(graph)))
    for packed in (graph, sequence):
        assert packed.schema.names == CLASSES
        assert packed.schema.max_nodes == packed.sizes.max()
        for name, vocab in (("x", packed.schema.node_vocab), ("edge_attr", packed.schema.edge_vocab)):
            values = (packed.nodes | packed.edges)[name]
            assert values.shape[1] == len(vocab)
            assert values.min() >= 0
            assert (values.max(0) < vocab).all()
        assert len(packed.nodes["x"]) == packed.node_ptr[-1]
        assert len(packed.edges["edge_attr"]) == packed.edge_ptr[-1] == packed.edge_index.shape[1]
    text = sequence.edge_index[:, sequence.edge_ptr[0] : sequence.edge_ptr[1]]
    assert (np.abs(text[0] - text[1]) == 1).all()
    kinds = sequence.edges["edge_attr"][:, 0]
    assert (kinds == (sequence.edge_index[0] > sequence.edge_index[1])).all()
    np.testing.assert_array_equal(np.diff(sequence.edge_ptr), 2 * (sequence.sizes - 1))


def test_the_packed_functions_are_those_that_were_read(folder):
    by_split, _ = collect(folder, silent)
    samples = [sample for split in by_split.values() for sample in split]
    graph, sequence = build("graph", folder, silent), build("sequence", folder, silent)
    for g, sample in enumerate(samples):
        nodes, edges = (slice(p[g], p[g + 1]) for p in (graph.node_ptr, graph.edge_ptr))
        assert graph.nodes["x"][nodes, 0].tolist() == sample.tree.types
        assert graph.nodes["x"][nodes, 2].tolist() == sample.tree.depths
        rows = np.concatenate([graph.edge_index[:, edges].T, graph.edges["edge_attr"][edges]], axis=1)
        assert sorted(map(tuple, rows.tolist())) == sorted(sample.tree.edges)
        assert sequence.sizes[g] == len(sample.tokens)
        assert graph.graphs["y"][g] == sample.label

    def meaning(packed, column, words):
        """What each number of the vocabulary stands for; a number may stand for one word only, but UNKNOWN."""
        found = {}
        for number, word in zip(packed.nodes["x"][:, column].tolist(), words, strict=True):
            found.setdefault(number, set()).add(word)
        return found

    train = by_split["train"]
    for packed, column, get in ((graph, 1, lambda s: s.tree.words), (sequence, 0, lambda s: s.tokens)):
        found = meaning(packed, column, [word for sample in samples for word in get(sample)])
        known = {word for sample in train for word in get(sample)} - {""}
        assert found.get(0, {""}) == {""}
        assert found[1].isdisjoint(known)  # words of held-out files that training does not have
        assert any(word.startswith("file_") for word in found[1])
        assert all(len(words) == 1 and words <= known for number, words in found.items() if number > 1)


def test_the_same_files_give_the_same_dataset(folder, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy")
    for path in sorted(folder.rglob("*.py"), reverse=True):
        target = copy / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    for view in ("graph", "sequence"):
        one, two = build(view, folder, silent), build(view, copy, silent)
        for name in ("node_ptr", "edge_ptr", "edge_index"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        for group in ("nodes", "edges", "graphs", "splits"):
            for name, values in getattr(one, group).items():
                np.testing.assert_array_equal(values, getattr(two, group)[name])
    assert key("graph", folder) == key("graph", copy)


def test_the_key_follows_the_view_and_the_files(folder):
    before = key("graph", folder)
    assert key("sequence", folder) != before
    (folder / "other.txt").unlink()
    assert key("graph", folder) == before
    (folder / "file_0.py").rename(folder / "file_99.py")
    renamed = key("graph", folder)
    assert renamed != before
    (folder / "file_99.py").write_text("x = 1\n")
    assert key("graph", folder) not in (before, renamed)


def test_functions_of_odd_sizes_are_left_out(tmp_path):
    long = "".join(f"    a.b{i}(a)\n" for i in range(80))
    wordy = "".join(f"    a = [{', '.join(['1'] * 60)}]\n" for _ in range(6))
    middle = "def middle(a):\n    b = a + 1\n    return b\n"
    (tmp_path / "m.py").write_text(f"def tiny(): pass\n{middle}def long(a):\n{long}def wordy(a):\n{wordy}")
    (sample,) = read(tmp_path / "m.py")
    assert sample.tokens[:3] == ["def", OWN_NAME, "("]
    assert "1" in sample.tokens
    assert sum(1 for _ in ast.walk(parse(f"def wordy(a):\n{wordy}"))) <= python_functions.LARGEST
    assert len(tokens(f"def wordy(a):\n{wordy}")) > python_functions.LONGEST


def test_a_folder_without_sources_is_one_line(tmp_path):
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=f"^no Python sources in {root}: .*use another one$"):
            build("graph", root, silent)


def test_too_few_functions_are_one_line(tmp_path):
    (tmp_path / "m.py").write_text("def f(a):\n    b = a + 1\n    return b\n")
    with pytest.raises(UserError, match=f"^too few functions in {tmp_path}: none fell to .* and .*$"):
        build("graph", tmp_path, silent)


def test_the_store_is_named_by_what_it_holds(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(python_functions, "library", lambda: folder)
    for view in ("graph", "sequence"):
        data = PythonFunctions(view, root=str(tmp_path / "root"), batch_size=4)
        data.open([])
        batch = next(iter(data.val_dataloader()))
        assert batch.y.shape == (batch.num_graphs,)
        assert data.has("test")
    stores = [path.name for path in (tmp_path / "root" / "stores").iterdir() if path.is_dir()]
    assert {name.rsplit("-", 1)[0] for name in stores} == {"python_functions-graph", "python_functions-sequence"}


@pytest.mark.slow
def test_the_standard_library():
    graph, sequence = build("graph", show=silent), build("sequence", show=silent)
    labels = graph.graphs["y"]
    assert 10_000 < len(graph) < 20_000
    np.testing.assert_array_equal(labels, sequence.graphs["y"])
    shares = np.bincount(labels, minlength=len(CLASSES)) / len(labels)
    assert 0.35 < shares.max() < 0.5
    assert CLASSES[shares.argmax()] == "nothing"
    assert shares.min() > 0.01
    for split, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        np.testing.assert_array_equal(graph.splits[split], sequence.splits[split])
        assert abs(len(graph.splits[split]) / len(graph) - share) < 0.05
        inside = np.bincount(labels[graph.splits[split]], minlength=len(CLASSES)) / len(graph.splits[split])
        assert np.abs(inside - shares).max() < 0.1
    assert graph.notes["functions"] - graph.notes["duplicates"] == len(graph)
    assert graph.notes["files that do not parse"] < graph.notes["files"] / 50
    assert graph.sizes.max() <= 500
    assert sequence.sizes.max() <= 512
    assert library().is_dir()
