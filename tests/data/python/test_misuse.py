"""Variable misuse: hidden uses against renamed source code, batches, labels and printed examples."""

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


def open_data(folder, view, tmp_path, **settings) -> GraphData:
    data = GraphData(PythonFunctions("misuse", view, str(folder), root=str(tmp_path)), batch_size=8, **settings)
    data.open([])
    return data


@pytest.fixture(scope="module")
def stores(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    return {view: open_data(folder, view, root) for view in ("graph", "sequence")}


def parse_function(source: str) -> ast.AST:
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
def test_local_variables(source, local):
    assert variables(preorder(parse_function(source))) == local


def test_functions_without_choice_are_skipped():
    all_names = {function.name for function in ast.walk(ast.parse(LIBRARY)) if isinstance(function, ast.FunctionDef)}
    lines = {sample.line for sample in samples(ast.parse(LIBRARY))}
    sampled_names = {
        f.name for f in ast.walk(ast.parse(LIBRARY)) if isinstance(f, ast.FunctionDef) and f.lineno in lines
    }
    assert all_names - sampled_names == {"nothing", "alone"}
    many_variables = "def f(): " + "; ".join(f"v{number} = v{number - 1}" for number in range(1, 36))
    assert samples(ast.parse(many_variables)) == []


def rename_at(source: str, position: tuple[int, int], name: str) -> str:
    """The canonical source with another name at one position (line, column)."""
    module = ast.parse(source)
    (node,) = (n for n in ast.walk(module) if isinstance(n, ast.Name) and (n.lineno, n.col_offset) == position)
    node.id = name
    return ast.unparse(module)


def test_hiding_equals_renaming_in_source(stores):
    """Every slot of every function, against the function whose source has a placeholder name there."""
    data = stores["graph"]
    words = data.schema.node_categories[1]
    module = ast.parse(LIBRARY)
    functions = samples(module)  # also strips the docstrings of the module
    for sample in functions:
        function = next(f for f in ast.walk(module) if isinstance(f, ast.FunctionDef) and f.lineno == sample.line)
        source = ast.unparse(function)
        order = preorder(ast.parse(source).body[0])
        names = {
            node.id if isinstance(node, ast.Name) else node.arg
            for node, *_ in order
            if isinstance(node, ast.Name | ast.arg)
        }
        for slot, (hole, token) in enumerate(zip(*sample.slots, strict=True)):
            node = order[hole][0]
            renamed_order = preorder(ast.parse(rename_at(source, (node.lineno, node.col_offset), "hole")).body[0])
            expected = tree(renamed_order, unjoined={"hole"})
            batch = misuse.hide(batch_of(sample), np.array([slot], np.uint64), word=1, joined=True)
            edges = {
                (*edge, int(kind))
                for edge, kind in zip(batch.edge_index.T.tolist(), batch.edge_attr[:, 0], strict=True)
            }
            assert edges == set(expected.edges)
            assert batch.num_edges == len(expected.edges)
            key = batch.edge_index[1] * batch.num_nodes + batch.edge_index[0]
            assert (key.diff() >= 0).all()
            assert batch.x[hole, 1] == HIDDEN
            assert batch.extras["query"].nonzero().flatten().tolist() == [hole]
            mentioned = [misuse.name_of(renamed_order[n][0]) for n in range(len(renamed_order))]
            local = variables(order)
            counts = Counter(name for name in mentioned if name in local)
            ranked = sorted(counts, key=lambda name: (-counts[name], mentioned.index(name)))
            expected_candidates = [1 + ranked.index(name) if name in counts else 0 for name in mentioned]
            assert batch.extras["candidate"].tolist() == expected_candidates
            assert ranked[int(batch.y)] == node.id
            assert sample.tokens[token] == node.id
            assert names >= set(ranked)
    assert words[HIDDEN] == HIDDEN_WORD


def batch_of(sample) -> GraphBatch:
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
def test_hidden_variable_does_not_leak(view):
    """Functions that differ only in the hidden variable are equal once it is hidden."""
    views = []
    for name in ("first", "second", "third"):
        (sample,) = samples(ast.parse(f"def f(first, second, third):\n    first(third)\n    return second({name})"))
        slot = next(n for n, token in enumerate(sample.slots[1]) if sample.tokens[token + 1] == ")" and n > 1)
        assert sample.tokens[sample.slots[1][slot]] == name
        if view == 0:
            batch = misuse.hide(batch_of(sample), np.array([slot], np.uint64), word=1, joined=True)
            views.append((batch.edge_index.tolist(), batch.edge_attr.tolist(), batch.extras["candidate"].tolist()))
        else:
            sample.tokens[sample.slots[1][slot]] = HIDDEN_WORD
            views.append((sample.tokens,))
    assert views[0] == views[1] == views[2]


def test_views_hide_the_same_uses(stores):
    """The hidden words, read from the stored words, are the same in both views, sample by sample."""
    hidden = {}
    for view, data in stores.items():
        dataset = data.dataset("test")
        column = 1 if view == "graph" else 0
        batch = dataset[Request(tuple(range(len(dataset))))]
        stored_words = data.graphs.nodes["x"][:, column]
        holes = batch.extras["query"].nonzero().flatten()
        start = torch.from_numpy(data.graphs.node_ptr[dataset.ids].astype(np.int64))
        hidden[view] = [
            data.schema.node_categories[column][n] for n in stored_words[(start + batch.position[holes]).numpy()]
        ]
        assert (batch.x[holes, column] == HIDDEN).all()
    assert hidden["graph"] == hidden["sequence"]


def test_slot_depends_on_sample_and_epoch_only(stores):
    dataset = stores["graph"].dataset("train")
    forwards = dataset[Request(tuple(range(len(dataset))), draw=(3,))]
    holes = forwards.position[forwards.extras["query"].nonzero().flatten()]
    backwards = dataset[Request(tuple(range(len(dataset)))[::-1], draw=(3,))]
    assert torch.equal(backwards.position[backwards.extras["query"].nonzero().flatten()].flip(0), holes)
    assert torch.equal(dataset[Request((5,), draw=(3,))].y, forwards.y[5:6])
    later = dataset[Request(tuple(range(len(dataset))), draw=(4,))]
    assert not torch.equal(later.position[later.extras["query"].nonzero().flatten()], holes)


def test_every_slot_is_drawn_eventually(stores):
    dataset = stores["graph"].dataset("train")
    holes = set()
    for epoch in range(200):
        batch = dataset[Request((0,), draw=(epoch,))]
        holes.add(int(batch.extras["query"].argmax()))
    first = dataset.graphs.node_ptr[dataset.ids[0]]
    slots = dataset.graphs.nodes["slot"][first : first + batch.num_nodes].nonzero()[0]
    assert holes == set(slots.tolist())


def test_targets_match_batches(stores, folder, tmp_path):
    for data in (stores["graph"], open_data(folder, "graph", tmp_path, static=True)):
        y = torch.cat([batch.y for batch in data.loader("test")])
        assert torch.equal(y[y >= 0].sort().values, data.targets("test").sort().values)
        assert len(data.targets("test")) == 2 * len(np.unique(data.graphs.splits["test"]))


@pytest.mark.parametrize("view", ["graph", "sequence"])
def test_padded_batches_predict_the_same(stores, folder, tmp_path, view):
    torch.manual_seed(0)
    block = partial(ParallelBlock, local=GatedGCN, attention=Attention, feed_forward=FeedForward)
    net = GraphTransformer(stores[view].schema, 16, 1, block, Hops(None), head=partial(Head, hidden=1)).eval()
    padded_data = open_data(folder, view, tmp_path, static=True)
    plain, padded = next(iter(stores[view].loader("valid"))), next(iter(padded_data.loader("valid")))
    real = padded.num_graphs - padded.padding[0]
    assert real == plain.num_graphs
    torch.testing.assert_close(net(padded)[:real], net(plain), rtol=1e-4, atol=1e-4)


def test_examples_print_source_and_prediction(stores):
    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            return 50.0 * torch.nn.functional.one_hot(batch.y, misuse.MAX_VARIABLES)

    for data in stores.values():
        printed = data.examples(Oracle(), "test")
        assert printed.count(misuse.HOLE) == 3
        for example in printed.strip().split("\n\n"):
            words = example.splitlines()[-1].split()
            assert words[1] == words[-1]  # the most probable variable is correct
            assert words[2].startswith("1.00")
            code = "\n".join(example.splitlines()[1:-1])
            restored = textwrap.dedent(code).replace(misuse.HOLE, words[1])
            assert restored in function_sources(data)


def functions_with_unknown_words(data):
    """Yield the test functions with words outside the training vocabulary, with their expected and actual labels.

    For each: its hidden node, the words from its file, the label of each node, and the name of each candidate variable
    by the node of its first mention.
    """
    dataset, source, column = data.dataset("test"), data.source, data.source.column
    locations = source.names(data.graphs)
    for index, number in enumerate(dataset.ids):
        batch = dataset[Request((index,))]
        if not (batch.x[:, column] == UNKNOWN).any():
            continue
        module = ast.parse((source.path / locations["file"][number]).read_text())
        (sample,) = (found for found in samples(module) if found.line == locations["line"][number])
        words = [word or NODE_TYPES[kind] for word, kind in zip(sample.tree.words, sample.tree.types, strict=True)]
        choices = range(int(batch.extras["candidate"].max()))
        first = [int((batch.extras["candidate"] == choice + 1).nonzero()[0]) for choice in choices]
        names = [source.spelled(data.graphs, [number], torch.tensor([[choice]]), batch)[0] for choice in choices]
        labels = source.labels(data.graphs, number, batch)
        hole = int(batch.extras["query"].argmax())
        yield hole, words if source.view == "graph" else sample.tokens, labels, dict(zip(first, names, strict=True))


@pytest.mark.parametrize("view", ["graph", "sequence"])
def test_unknown_words_are_read_from_the_file(stores, view):
    functions = list(functions_with_unknown_words(stores[view]))
    assert functions
    for hole, words, labels, names in functions:
        assert labels[hole] == HIDDEN_WORD
        assert [*labels[:hole], *labels[hole + 1 :]] == [*words[:hole], *words[hole + 1 :]]
        assert names == {node: words[node] for node in names}


def test_words_of_changed_file_stay_unknown(folder, tmp_path):
    data = open_data(shutil.copytree(folder, tmp_path / "copy"), "graph", tmp_path)
    for path in data.source.path.glob("*.py"):
        path.write_text(path.read_text().replace("width * height", "width * height * 1"))
    functions = [
        (words, labels, names) for _, words, labels, names in functions_with_unknown_words(data) if "area" in words
    ]
    assert functions
    for words, labels, names in functions:
        assert len(words) > len(labels)
        assert "<unknown>" in labels
        assert {f"node {node}" for node in names if labels[node] == "<unknown>"} <= {*names.values()}


def function_sources(data):
    modules = [ast.parse(path.read_text()) for path in data.source.path.glob("*.py")]
    for module in modules:
        samples(module)  # strips docstrings
    return {ast.unparse(node) for module in modules for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}


def test_slots_agree_between_tree_and_tokens(stores):
    for sample in samples(ast.parse(LIBRARY)):
        for node, token in zip(*sample.slots, strict=True):
            assert sample.tree.words[node] == sample.tokens[token]
            assert sample.variables[0][node] == sample.variables[1][token] > 0
    assert tokens("a = ä") == ["a", "=", "ä"]


def test_changed_or_missing_file_has_no_example(tmp_path):
    path = tmp_path / "file.py"
    path.write_text(LIBRARY)
    first = samples(ast.parse(LIBRARY))[0]
    hole, mention = first.slots[0][:2]
    assert misuse.describe(path, first.line, 0, hole, {mention: 1.0})
    for text in (
        "",
        "def broken(",
        LIBRARY.replace("def area", "\n\n\ndef area"),
        LIBRARY.replace("width * height", "1"),
    ):
        path.write_text(text)
        assert misuse.describe(path, first.line, 0, hole, {mention: 1.0}) == ""
    path.unlink()
    assert misuse.describe(path, first.line, 0, hole, {mention: 1.0}) == ""


def test_hidden_use_varies_by_epoch_in_training(stores):
    """Only in training; validation hides the same uses in every epoch."""

    def epoch_batches(split: str, epoch: int) -> list[tuple[list[int], int]]:
        loader = stores["graph"].loader(split)
        loader.sampler.set_epoch(epoch)
        batches = [(batch.x[:, 1].tolist(), batch.y.sum().item()) for batch in loader]
        return sorted(batches)

    assert epoch_batches("valid", 0) == epoch_batches("valid", 1)
    assert epoch_batches("train", 0) == epoch_batches("train", 0)
    hidden = [
        np.sort([np.count_nonzero(np.array(x) == HIDDEN) for x, _ in epoch_batches("train", epoch)]) for epoch in (0, 1)
    ]
    assert hidden[0].sum() == hidden[1].sum() == len(stores["graph"].dataset("train"))
    dataset = stores["graph"].dataset("train")
    draws = [next(iter(stores["graph"].batches("train", epoch=epoch))).draw for epoch in (0, 1)]
    first, second = (dataset[Request(tuple(range(len(dataset))), draw=draw)].extras["query"] for draw in draws)
    assert not torch.equal(first, second)


def test_choices_are_not_reported_as_classes(stores, monkeypatch):
    """A choice that only occurs in validation, such as a 20th variable, is not a missing class."""
    data = stores["graph"]
    monkeypatch.setattr(data, "targets", lambda split: torch.tensor([0, 1, 20 if split == "valid" else 2]))
    assert notices(data) == []
