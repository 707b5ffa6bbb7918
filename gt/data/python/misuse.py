"""Variable misuse: which variable of a function belongs where one of its uses is hidden?

Allamanis et al., *Learning to Represent Programs with Graphs* (2018), and Hellendoorn et al., *Global Relational Models
of Source Code* (2020). A model points at any other mention of the right variable, among those of all local variables.

    def area(width, height):        candidates: width, height, size
        size = width * ______       the hidden use; `height` is right
        return size
"""

import ast
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gt.data.python.library import parsed
from gt.data.python.syntax import (
    DOCUMENTED,
    NAMES,
    NEXT_USE,
    PREVIOUS_USE,
    Function,
    Sample,
    inner,
    lexed,
    preorder,
    tree,
    written,
)
from gt.data.python.views import HIDDEN
from gt.graph import GraphBatch

MOST = 32  # variables of a function; those with more are left out
HOLE = "[ ? ]"  # in what a person reads
WIDE = 110  # characters of a line of code
SAID = 4  # variables that are named with their probabilities


def samples(module: ast.Module) -> list[Sample]:
    """The functions of a file in which a variable can be hidden: without docstrings, with two variables at least."""
    for node in ast.walk(module):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return [sample for function in inner(module) if (sample := of(function)) is not None]


def of(function: Function) -> Sample | None:
    """A function with its variables and slots; None where there is no slot, no choice, or no canonical source."""
    source = written(function)
    if source is None:
        return None
    order = preorder(ast.parse(source).body[0])  # again, for the places of names in canonical source
    words, places = zip(*lexed(source), strict=True)
    token_at = {place: number for number, place in enumerate(places)}
    starts = [0, *(end + 1 for end, character in enumerate(source) if character == "\n")]
    lines = source.split("\n")
    local = variables(order)
    formatted: dict[int, bool] = {}
    number_of: dict[str, int] = {}
    of_nodes, of_tokens = [0] * len(order), [0] * len(words)
    reads: list[tuple[int, int]] = []
    for number, (node, parent, _) in enumerate(order):
        formatted[number] = isinstance(node, ast.JoinedStr) or formatted.get(parent, False)
        name = name_of(node)
        if name not in local:
            continue
        of_nodes[number] = 1 + number_of.setdefault(name, len(number_of))
        if formatted[number]:  # all of such a string is one token
            continue
        line = lines[node.lineno - 1].encode()[: node.col_offset].decode()
        token = token_at.get(starts[node.lineno - 1] + len(line))
        if token is None:
            continue
        of_tokens[token] = of_nodes[number]
        if isinstance(getattr(node, "ctx", None), ast.Load):
            reads.append((number, token))
    # what is hidden must be mentioned elsewhere too, as a token
    mentions = np.bincount(of_tokens, minlength=len(number_of) + 1)
    slots = [(number, token) for number, token in reads if mentions[of_nodes[number]] > 1]
    if not slots or not 2 <= len(number_of) <= MOST or (mentions[1:] == 0).any():
        return None
    digest = hashlib.sha256(source.encode()).digest()
    nodes, tokens = map(list, zip(*slots, strict=True))
    shown = tree(order, alone=local)
    return Sample(shown, list(words), digest, function.lineno, variables=(of_nodes, of_tokens), slots=(nodes, tokens))


def name_of(node: ast.AST) -> str:
    """The name that a node mentions; empty where it mentions none."""
    return node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else ""


def variables(order: list[tuple[Any, int, int]]) -> set[str]:
    """The names that a function, or what is inside it, binds: arguments and what is assigned, but for global ones."""
    nodes = [node for node, _, _ in order]
    named = [node for node in nodes if isinstance(node, NAMES)]
    bound = {name_of(node) for node in named if not isinstance(getattr(node, "ctx", None), ast.Load)}
    outside = {name for node in nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
    return bound - outside


def hide(batch: GraphBatch, draws: np.ndarray, word: int, joined: bool) -> GraphBatch:
    """Hide one slot of each function.

    Its word goes. Where uses of a variable are joined, its edges go and the uses before and after it are joined. The
    variables of each function are numbered by how often they are still mentioned, the most frequent first (of equals
    the one that comes first), so that a constant answer is that of the most frequent variable.

    Args:
        batch: with the extras ``variable`` and ``slot`` of the store.
        draws: (B,) random numbers, uint64, that say which slot of each.
        word: the column of ``x`` that holds words.
        joined: whether uses of the same variable are joined by edges.

    Returns:
        The batch with ``y`` (B,), the number of the right variable; extras ``candidate`` (N,), 1 + the number of the
        variable that a node mentions, 0 where none, and ``query`` (N,), 1 at the hidden use: see `gt.heads.Head`.
    """
    extras = dict(batch.extras)
    variable, slot = extras.pop("variable").numpy().copy(), extras.pop("slot").numpy()
    graph = batch.batch.numpy()
    slots = slot.nonzero()[0]
    first = graph[slots].searchsorted(np.arange(batch.num_graphs + 1))
    hole = slots[first[:-1] + (draws % np.diff(first).astype(np.uint64)).astype(np.int64)]
    key = graph * (MOST + 1) + variable
    right = key[hole]
    variable[hole] = 0
    mentions = variable.nonzero()[0]
    keys, first_mention, of_mention, counts = np.unique(
        key[mentions], return_index=True, return_inverse=True, return_counts=True
    )
    owner = keys // (MOST + 1)
    order = np.lexsort((first_mention, -counts, owner))
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys)) - owner.searchsorted(owner)
    candidate, query = np.zeros_like(variable), np.zeros_like(variable)
    candidate[mentions] = 1 + rank[of_mention]
    query[hole] = 1
    assert batch.x is not None
    x = batch.x.clone()
    x[hole, word] = HIDDEN
    hidden = GraphBatch(
        ptr=batch.ptr,
        edge_index=batch.edge_index,
        max_nodes=batch.max_nodes,
        x=x,
        edge_attr=batch.edge_attr,
        y=torch.from_numpy(rank[keys.searchsorted(right)]),
        extras=extras | {"candidate": torch.from_numpy(candidate), "query": torch.from_numpy(query)},
    )
    hidden.num_nodes, hidden.batch = batch.num_nodes, batch.batch
    if joined:
        by_variable = mentions[np.argsort(key[mentions], kind="stable")]
        before, after = by_variable[:-1], by_variable[1:]
        same = key[before] == key[after]
        _join(hidden, before[same], after[same])
    return hidden


def _join(batch: GraphBatch, before: np.ndarray, after: np.ndarray) -> None:
    """Add edges from each use of a variable to its next and back, sorted by target and source as all are."""
    assert batch.edge_attr is not None
    more = np.concatenate([np.stack([before, after]), np.stack([after, before])], axis=1)
    kinds = np.repeat([NEXT_USE, PREVIOUS_USE], len(before))
    edges = np.concatenate([batch.edge_index.numpy(), more], axis=1)
    kinds = np.concatenate([batch.edge_attr[:, 0].numpy(), kinds])
    order = np.argsort(edges[1] * batch.num_nodes + edges[0], kind="stable")
    batch.edge_index, batch.edge_attr = torch.from_numpy(edges[:, order]), torch.from_numpy(kinds[order, None])


def told(path: Path, line: int, view: int, hole: int, chances: Mapping[int, float]) -> str:
    """A function with a hidden use as a person reads it, and what a model says of it, the right variable last.

    Nothing where the file is no longer as it was when the store was built.

    Args:
        path, line: where the function begins.
        view: which of `Sample.slots` numbers its nodes.
        hole: the hidden node.
        chances: of each variable its probability, under a node that mentions it.
    """
    module = parsed(path) or ast.Module([], [])
    samples(module)  # takes docstrings off
    functions = [node for node in ast.walk(module) if isinstance(node, Function) and node.lineno == line]
    sample = of(functions[0]) if functions else None
    if sample is None or hole not in sample.slots[view] or not max(chances) < len(sample.variables[view]):
        return ""
    source = ast.unparse(functions[0])
    words, places = zip(*lexed(source), strict=True)
    token = sample.slots[1][sample.slots[view].index(hole)]
    names = sample.tree.words if view == 0 else sample.tokens
    source = source[: places[token]] + HOLE + source[places[token] + len(words[token]) :]
    ranked = sorted(chances, key=chances.__getitem__, reverse=True)
    said = "  ".join(f"{names[node]} {chances[node]:.2f}" for node in ranked[:SAID])
    lines = [f"    {line if len(line) <= WIDE else line[:WIDE] + ' ...'}" for line in source.split("\n")]
    return "\n".join([*lines, f"  says {said}; right is {words[token]}"])
