import ast
import shutil
import textwrap
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch

from gt.data.batch_sampler import Request
from gt.data.graphs import GraphData
from gt.data.notices import notices
from gt.data.python import misuse
from gt.data.python.functions import PythonFunctions
from gt.data.python.misuse import samples, variables
from gt.data.python.syntax import NODE_TYPES, preorder, tokens, tree
from gt.data.python.views import HIDDEN, HIDDEN_WORD, UNKNOWN
from gt.graph import GraphBatch
from gt.heads import Head
from gt.layers import Attention, FeedForward, GatedGCN, ParallelBlock
from gt.masks import Hops
from gt.model import GraphTransformer

LIBRARY = '''
def area(width, height):
    """The product: width * height."""
    size = width * height
    return size

def walk(tree, found=None):
    for name, child in tree.items():
        found = walk(child, found or [name]) if child else found
    return [item for item in found if item is not name]

class Store:
    def add(self, key, *values, **options):
        global total
        total = len(values)
        text = f"{key}: {values}"
        if key in self.kept:
            raise KeyError(key, text)
        self.kept[key] = [value.copy() for value in values]
        def undo(value, key=key):
            nonlocal values
            values = (value, key, options)
            return self.kept.pop(key)
        return undo

def nothing():
    return print("ä", open, None, 1, 2, 3)

def alone(word):
    return word.upper().lower().strip().title() + word

def ünïcode(größe, maß):
    länge = 'ä' + größe * maß; print('öö', länge, maß, größe)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("library")
    for number in range(40):
        (root / f"file{number}.py").write_text(
            LIBRARY.replace("kept", f"kept{number}").replace("size", f"size{number}")
        )
    return root


def opened(folder, view, tmp_path, **settings) -> GraphData:
    data = GraphData(PythonFunctions("misuse", view, str(folder), root=str(tmp_path)), batch_size=8, **settings)
    data.open([])
    return data


@pytest.fixture(scope="module")
def stores(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    return {view: opened(folder, view, root) for view in ("graph", "sequence")}


def parsed(source: str) -> ast.AST:
    return ast.parse(textwrap.dedent(source)).body[0]


@pytest.mark.parametrize(
    ("source", "local"),
    [
        ("def f(a, *b, c=1, **d): e = g(a)", {"a", "b", "c", "d", "e"}),
        ("def f():\n global a\n a = b\n c: int = 1\n d += 1\n del e", {"c", "d", "e"}),
        ("def f():\n def g(h):\n  nonlocal k\n  k = h\n for i, (j, *l) in m: pass", {"h", "i", "j", "l"}),
        ("def f(): return [a for a in b if (c := a)], lambda d: d", {"a", "c", "d"}),
        ("def f():\n with a as b, c() as d.e: import g as h", {"b"}),
    ],
)
def test_variables(source, local):
    assert variables(preorder(parsed(source))) == local


def test_functions_without_a_choice_are_left_out():
    kept = {function.name for function in ast.walk(ast.parse(LIBRARY)) if isinstance(function, ast.FunctionDef)}
    lines = {sample.line for sample in samples(ast.parse(LIBRARY))}
    names = {f.name for f in ast.walk(ast.parse(LIBRARY)) if isinstance(f, ast.FunctionDef) and f.lineno in lines}
    assert kept - names == {"nothing", "alone"}
    many = "def f(): " + "; ".join(f"v{number} = v{number - 1}" for number in range(1, 36))
    assert samples(ast.parse(many)) == []


def renamed(source: str, place: tuple[int, int], name: str) -> str:
    """The canonical source with another name at one place."""
    module = ast.parse(source)
    (node,) = (n for n in ast.walk(module) if isinstance(n, ast.Name) and (n.lineno, n.col_offset) == place)
    node.id = name
    return ast.unparse(module)


def test_a_hidden_use_is_that_of_the_source(stores):
    """Every slot of every function against the same function whose source has another name there."""
    data = stores["graph"]
    words = data.schema.node_categories[1]
    module = ast.parse(LIBRARY)
    docless = samples(module)  # takes docstrings off the module, too
    for sample in docless:
        function = next(f for f in ast.walk(module) if isinstance(f, ast.FunctionDef) and f.lineno == sample.line)
        source = ast.unparse(function)
        order = preorder(ast.parse(source).body[0])
        names = {
            node.id if isinstance(node, ast.Name) else node.arg
            for node, *_ in order
            if isinstance(node, ast.Name | ast.arg)
        }
        for place, (hole, token) in enumerate(zip(*sample.slots, strict=True)):
            node = order[hole][0]
            other = preorder(ast.parse(renamed(source, (node.lineno, node.col_offset), "hole")).body[0])
            expected = tree(other, unjoined={"hole"})
            batch = misuse.hide(as_batch(sample), np.array([place], np.uint64), word=1, joined=True)
            found = {
                (*edge, int(kind))
                for edge, kind in zip(batch.edge_index.T.tolist(), batch.edge_attr[:, 0], strict=True)
            }
            assert found == set(expected.edges)
            assert batch.num_edges == len(expected.edges)
            key = batch.edge_index[1] * batch.num_nodes + batch.edge_index[0]
            assert (key.diff() >= 0).all()
            assert batch.x[hole, 1] == HIDDEN
            assert batch.extras["query"].nonzero().flatten().tolist() == [hole]
            mentioned = [misuse.name_of(other[n][0]) for n in range(len(other))]
            local = variables(order)
            counts = Counter(name for name in mentioned if name in local)
            ranked = sorted(counts, key=lambda name: (-counts[name], mentioned.index(name)))
            expected_candidates = [1 + ranked.index(name) if name in counts else 0 for name in mentioned]
            assert batch.extras["candidate"].tolist() == expected_candidates
            assert ranked[int(batch.y)] == node.id
            assert sample.tokens[token] == node.id
            assert names >= set(ranked)
    assert words[HIDDEN] == HIDDEN_WORD


def as_batch(sample) -> GraphBatch:
    size = len(sample.tree.words)
    edges = np.array(sample.tree.edges)
    edges = edges[np.lexsort((edges[:, 0], edges[:, 1]))]
    slot = torch.zeros(size, dtype=torch.long)
    slot[sample.slots[0]] = 1
    return GraphBatch(
        ptr=torch.tensor([0, size]),
        edge_index=torch.from_numpy(edges[:, :2].T.copy()),
        max_nodes=size,
        x=torch.full((size, 3), UNKNOWN),
        edge_attr=torch.from_numpy(edges[:, 2:]),
        extras={"variable": torch.tensor(sample.variables[0]), "slot": slot},
    )


@pytest.mark.parametrize("view", [0, 1])
def test_what_is_hidden_leaves_no_trace(view):
    """Functions that differ in the hidden variable alone look alike once it is hidden."""
    looks = []
    for name in ("first", "second", "third"):
        (sample,) = samples(ast.parse(f"def f(first, second, third):\n    first(third)\n    return second({name})"))
        place = next(n for n, token in enumerate(sample.slots[1]) if sample.tokens[token + 1] == ")" and n > 1)
        assert sample.tokens[sample.slots[1][place]] == name
        if view == 0:
            batch = misuse.hide(as_batch(sample), np.array([place], np.uint64), word=1, joined=True)
            looks.append((batch.edge_index.tolist(), batch.edge_attr.tolist(), batch.extras["candidate"].tolist()))
        else:
            sample.tokens[sample.slots[1][place]] = HIDDEN_WORD
            looks.append((sample.tokens,))
    assert looks[0] == looks[1] == looks[2]


def test_both_views_hide_the_same(stores):
    """The hidden words of the two views, found from the variables of the store, are the same, slot by slot."""
    hidden = {}
    for view, data in stores.items():
        dataset = data.dataset("test")
        column = 1 if view == "graph" else 0
        batch = dataset[Request(tuple(range(len(dataset))))]
        whole = data.graphs.nodes["x"][:, column]
        at = batch.extras["query"].nonzero().flatten()
        start = torch.from_numpy(data.graphs.node_ptr[dataset.ids].astype(np.int64))
        hidden[view] = [data.schema.node_categories[column][n] for n in whole[(start + batch.position[at]).numpy()]]
        assert (batch.x[at, column] == HIDDEN).all()
    assert hidden["graph"] == hidden["sequence"]


def test_a_slot_depends_on_the_sample_and_the_epoch_alone(stores):
    dataset = stores["graph"].dataset("train")
    everyone = dataset[Request(tuple(range(len(dataset))), draw=(3,))]
    holes = everyone.position[everyone.extras["query"].nonzero().flatten()]
    backwards = dataset[Request(tuple(range(len(dataset)))[::-1], draw=(3,))]
    assert torch.equal(backwards.position[backwards.extras["query"].nonzero().flatten()].flip(0), holes)
    assert torch.equal(dataset[Request((5,), draw=(3,))].y, everyone.y[5:6])
    later = dataset[Request(tuple(range(len(dataset))), draw=(4,))]
    assert not torch.equal(later.position[later.extras["query"].nonzero().flatten()], holes)


def test_every_slot_is_drawn(stores):
    dataset = stores["graph"].dataset("train")
    holes = set()
    for epoch in range(200):
        batch = dataset[Request((0,), draw=(epoch,))]
        holes.add(int(batch.extras["query"].argmax()))
    first = dataset.graphs.node_ptr[dataset.ids[0]]
    slots = dataset.graphs.nodes["slot"][first : first + batch.num_nodes].nonzero()[0]
    assert holes == set(slots.tolist())


def test_targets_are_those_of_the_batches(stores, folder, tmp_path):
    for data in (stores["graph"], opened(folder, "graph", tmp_path, static=True)):
        y = torch.cat([batch.y for batch in data.loader("test")])
        assert torch.equal(y[y >= 0].sort().values, data.targets("test").sort().values)
        assert len(data.targets("test")) == 2 * len(np.unique(data.graphs.splits["test"]))


@pytest.mark.parametrize("view", ["graph", "sequence"])
def test_filled_batches_predict_the_same(stores, folder, tmp_path, view):
    torch.manual_seed(0)
    block = partial(ParallelBlock, local=GatedGCN, attention=Attention, feed_forward=FeedForward)
    net = GraphTransformer(stores[view].schema, 16, 1, block, Hops(None), head=partial(Head, hidden=1)).eval()
    filled = opened(folder, view, tmp_path, static=True)
    one, other = next(iter(stores[view].loader("valid"))), next(iter(filled.loader("valid")))
    real = other.num_graphs - other.padding[0]
    assert real == one.num_graphs
    torch.testing.assert_close(net(other)[:real], net(one), rtol=1e-4, atol=1e-4)


def test_examples_show_the_code(stores):
    class Sure(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            return 50.0 * torch.nn.functional.one_hot(batch.y, misuse.MAX_VARIABLES)

    for data in stores.values():
        shown = data.examples(Sure(), "test")
        assert shown.count(misuse.HOLE) == 3
        for part in shown.strip().split("\n\n"):
            says = part.splitlines()[-1].split()
            assert says[1] == says[-1]  # what is surest is right
            assert says[2].startswith("1.00")
            code = "\n".join(part.splitlines()[1:-1])
            whole = textwrap.dedent(code).replace(misuse.HOLE, says[1])
            assert whole in sources_of(data)


def unknown_words(data):
    """What is said of functions of the test with words that training lacks: labels, names of variables, and the truth.

    For each its node that is hidden, the words of its file, what stands for each node, and for each choice its first
    mention and its name.
    """
    dataset, source, column = data.dataset("test"), data.source, data.source.column
    about = source.names(data.graphs)
    for place, number in enumerate(dataset.ids):
        batch = dataset[Request((place,))]
        if not (batch.x[:, column] == UNKNOWN).any():
            continue
        module = ast.parse((source.path / about["file"][number]).read_text())
        (sample,) = (each for each in samples(module) if each.line == about["line"][number])
        words = [word or NODE_TYPES[kind] for word, kind in zip(sample.tree.words, sample.tree.types, strict=True)]
        choices = range(int(batch.extras["candidate"].max()))
        first = [int((batch.extras["candidate"] == choice + 1).nonzero()[0]) for choice in choices]
        names = [source.spelled(data.graphs, [number], torch.tensor([[choice]]), batch)[0] for choice in choices]
        labels = source.labels(data.graphs, number, batch)
        hole = int(batch.extras["query"].argmax())
        yield hole, words if source.view == "graph" else sample.tokens, labels, dict(zip(first, names, strict=True))


@pytest.mark.parametrize("view", ["graph", "sequence"])
def test_words_that_training_lacks_are_those_of_the_file(stores, view):
    told = list(unknown_words(stores[view]))
    assert told
    for hole, words, labels, names in told:
        assert labels[hole] == HIDDEN_WORD
        assert [*labels[:hole], *labels[hole + 1 :]] == [*words[:hole], *words[hole + 1 :]]
        assert names == {node: words[node] for node in names}


def test_words_of_a_file_that_has_changed_are_unknown(folder, tmp_path):
    data = opened(shutil.copytree(folder, tmp_path / "copy"), "graph", tmp_path)
    for path in data.source.path.glob("*.py"):
        path.write_text(path.read_text().replace("width * height", "width * height * 1"))
    told = [(words, labels, names) for _, words, labels, names in unknown_words(data) if "area" in words]
    assert told
    for words, labels, names in told:
        assert len(words) > len(labels)
        assert "<unknown>" in labels
        assert {f"node {node}" for node in names if labels[node] == "<unknown>"} <= {*names.values()}


def sources_of(data):
    modules = [ast.parse(path.read_text()) for path in data.source.path.glob("*.py")]
    for module in modules:
        samples(module)  # takes docstrings off
    return {ast.unparse(node) for module in modules for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}


def test_tokens_are_lexed_as_the_names_lie(stores):
    for sample in samples(ast.parse(LIBRARY)):
        for node, token in zip(*sample.slots, strict=True):
            assert sample.tree.words[node] == sample.tokens[token]
            assert sample.variables[0][node] == sample.variables[1][token] > 0
    assert tokens("a = ä") == ["a", "=", "ä"]


def test_a_file_that_has_changed_has_no_example(tmp_path):
    path = tmp_path / "file.py"
    path.write_text(LIBRARY)
    first = samples(ast.parse(LIBRARY))[0]
    hole, other = first.slots[0][:2]
    assert misuse.describe(path, first.line, 0, hole, {other: 1.0})
    for text in (
        "",
        "def broken(",
        LIBRARY.replace("def area", "\n\n\ndef area"),
        LIBRARY.replace("width * height", "1"),
    ):
        path.write_text(text)
        assert misuse.describe(path, first.line, 0, hole, {other: 1.0}) == ""
    path.unlink()
    assert misuse.describe(path, first.line, 0, hole, {other: 1.0}) == ""


def test_each_epoch_hides_another_use(stores):
    """In training; what is validated stays what it is."""

    def seen(split: str, epoch: int) -> list[tuple[list[int], int]]:
        loader = stores["graph"].loader(split)
        loader.sampler.set_epoch(epoch)
        batches = [(batch.x[:, 1].tolist(), batch.y.sum().item()) for batch in loader]
        return sorted(batches)

    assert seen("valid", 0) == seen("valid", 1)
    assert seen("train", 0) == seen("train", 0)
    hidden = [np.sort([np.count_nonzero(np.array(x) == HIDDEN) for x, _ in seen("train", epoch)]) for epoch in (0, 1)]
    assert hidden[0].sum() == hidden[1].sum() == len(stores["graph"].dataset("train"))
    dataset = stores["graph"].dataset("train")
    draws = [next(iter(stores["graph"].batches("train", epoch=epoch))).draw for epoch in (0, 1)]
    first, second = (dataset[Request(tuple(range(len(dataset))), draw=draw)].extras["query"] for draw in draws)
    assert not torch.equal(first, second)


def test_choices_are_no_classes(stores, monkeypatch):
    """That a split alone has functions of 20 variables is nothing to tell."""
    data = stores["graph"]
    monkeypatch.setattr(data, "targets", lambda split: torch.tensor([0, 1, 20 if split == "valid" else 2]))
    assert notices(data) == []
