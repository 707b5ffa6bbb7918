"""Variable misuse: hidden uses against renamed source code, slots by epoch, and batches."""

import ast
import textwrap
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch

from gt.data.batch_sampler import Request
from gt.data.notices import notices
from gt.data.python import misuse
from gt.data.python.misuse import samples, variables
from gt.data.python.syntax import preorder, tokens, tree
from gt.data.python.views import HIDDEN, HIDDEN_WORD, UNKNOWN
from gt.graph import GraphBatch
from gt.heads import Head
from gt.layers import Attention, FeedForward, GatedGCN, ParallelBlock
from gt.masks import Hops
from gt.model import GraphTransformer
from tests.data.python.misuse_library import LIBRARY, open_data


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


def test_hiding_equals_renaming_in_source(misuse_stores):
    """Every slot of every function, against the function whose source has a placeholder name there."""
    data = misuse_stores["graph"]
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


def test_views_hide_the_same_uses(misuse_stores):
    """The hidden words, read from the stored words, are the same in both views, sample by sample."""
    hidden = {}
    for view, data in misuse_stores.items():
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


def test_slot_depends_on_sample_and_epoch_only(misuse_stores):
    dataset = misuse_stores["graph"].dataset("train")
    forwards = dataset[Request(tuple(range(len(dataset))), draw=(3,))]
    holes = forwards.position[forwards.extras["query"].nonzero().flatten()]
    backwards = dataset[Request(tuple(range(len(dataset)))[::-1], draw=(3,))]
    assert torch.equal(backwards.position[backwards.extras["query"].nonzero().flatten()].flip(0), holes)
    assert torch.equal(dataset[Request((5,), draw=(3,))].y, forwards.y[5:6])
    later = dataset[Request(tuple(range(len(dataset))), draw=(4,))]
    assert not torch.equal(later.position[later.extras["query"].nonzero().flatten()], holes)


def test_every_slot_is_drawn_eventually(misuse_stores):
    dataset = misuse_stores["graph"].dataset("train")
    holes = set()
    for epoch in range(200):
        batch = dataset[Request((0,), draw=(epoch,))]
        holes.add(int(batch.extras["query"].argmax()))
    first = dataset.graphs.node_ptr[dataset.ids[0]]
    slots = dataset.graphs.nodes["slot"][first : first + batch.num_nodes].nonzero()[0]
    assert holes == set(slots.tolist())


def test_targets_match_batches(misuse_stores, misuse_folder, tmp_path):
    for data in (misuse_stores["graph"], open_data(misuse_folder, "graph", tmp_path, static=True)):
        y = torch.cat([batch.y for batch in data.loader("test")])
        assert torch.equal(y[y >= 0].sort().values, data.targets("test").sort().values)
        assert len(data.targets("test")) == 2 * len(np.unique(data.graphs.splits["test"]))


@pytest.mark.parametrize("view", ["graph", "sequence"])
def test_padded_batches_predict_the_same(misuse_stores, misuse_folder, tmp_path, view):
    torch.manual_seed(0)
    block = partial(ParallelBlock, local=GatedGCN, attention=Attention, feed_forward=FeedForward)
    net = GraphTransformer(misuse_stores[view].schema, 16, 1, block, Hops(None), head=partial(Head, hidden=1)).eval()
    padded_data = open_data(misuse_folder, view, tmp_path, static=True)
    plain, padded = next(iter(misuse_stores[view].loader("valid"))), next(iter(padded_data.loader("valid")))
    real = padded.num_graphs - padded.padding[0]
    assert real == plain.num_graphs
    torch.testing.assert_close(net(padded)[:real], net(plain), rtol=1e-4, atol=1e-4)


def test_slots_agree_between_tree_and_tokens(misuse_stores):
    for sample in samples(ast.parse(LIBRARY)):
        for node, token in zip(*sample.slots, strict=True):
            assert sample.tree.words[node] == sample.tokens[token]
            assert sample.variables[0][node] == sample.variables[1][token] > 0
    assert tokens("a = ä") == ["a", "=", "ä"]


def test_hidden_use_varies_by_epoch_in_training(misuse_stores):
    """Only in training; validation hides the same uses in every epoch."""

    def epoch_batches(split: str, epoch: int) -> list[tuple[list[int], int]]:
        loader = misuse_stores["graph"].loader(split)
        loader.sampler.set_epoch(epoch)
        batches = [(batch.x[:, 1].tolist(), batch.y.sum().item()) for batch in loader]
        return sorted(batches)

    assert epoch_batches("valid", 0) == epoch_batches("valid", 1)
    assert epoch_batches("train", 0) == epoch_batches("train", 0)
    hidden = [
        np.sort([np.count_nonzero(np.array(x) == HIDDEN) for x, _ in epoch_batches("train", epoch)]) for epoch in (0, 1)
    ]
    assert hidden[0].sum() == hidden[1].sum() == len(misuse_stores["graph"].dataset("train"))
    dataset = misuse_stores["graph"].dataset("train")
    draws = [next(iter(misuse_stores["graph"].batches("train", epoch=epoch))).draw for epoch in (0, 1)]
    first, second = (dataset[Request(tuple(range(len(dataset))), draw=draw)].extras["query"] for draw in draws)
    assert not torch.equal(first, second)


def test_choices_are_not_reported_as_classes(misuse_stores, monkeypatch):
    """A choice that only occurs in validation, such as a 20th variable, is not a missing class."""
    data = misuse_stores["graph"]
    monkeypatch.setattr(data, "targets", lambda split: torch.tensor([0, 1, 20 if split == "valid" else 2]))
    assert notices(data) == []
