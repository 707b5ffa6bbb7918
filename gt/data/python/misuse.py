"""Variable misuse: which variable of a function belongs at a hidden use?

Allamanis et al., *Learning to Represent Programs with Graphs* (2018), and Hellendoorn et al., *Global Relational Models
of Source Code* (2020). A model points at any other mention of the correct variable, among those of all local variables.

    def area(width, height):        candidates: width, height, size
        size = width * ______       the hidden use; `height` is correct
        return size
"""

import ast
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gt.data.python.library import parse
from gt.data.python.syntax import (
    DOCUMENTED,
    NAMES,
    NEXT_USE,
    PREVIOUS_USE,
    Function,
    Sample,
    canonical_source,
    functions_of,
    lex,
    preorder,
    tree,
)
from gt.data.python.views import HIDDEN
from gt.graph import GraphBatch

MAX_VARIABLES = 32  # functions with more variables are left out
HOLE = "[ ? ]"  # marks the hidden use in printed code
MAX_LINE = 110  # characters of a printed line of code
SHOWN_VARIABLES = 4  # printed with their probabilities


def samples(module: ast.Module) -> list[Sample]:
    """The functions of a file in which a variable can be hidden, with at least two variables; strips docstrings."""
    for node in ast.walk(module):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return [sample for function in functions_of(module) if (sample := sample_of(function)) is not None]


def sample_of(function: Function) -> Sample | None:
    """A function with its variables and slots; None if it has no slot, no choice, or no canonical source."""
    source = canonical_source(function)
    if source is None:
        return None
    order = preorder(ast.parse(source).body[0])  # parsed again for positions in the canonical source
    words, offsets = zip(*lex(source), strict=True)
    token_at = {offset: number for number, offset in enumerate(offsets)}
    starts = [0, *(end + 1 for end, character in enumerate(source) if character == "\n")]
    lines = source.split("\n")
    local = variables(order)
    formatted: dict[int, bool] = {}
    variable_ids: dict[str, int] = {}
    node_variables, token_variables = [0] * len(order), [0] * len(words)
    reads: list[tuple[int, int]] = []
    for number, (node, parent, _) in enumerate(order):
        formatted[number] = isinstance(node, ast.JoinedStr) or formatted.get(parent, False)
        name = name_of(node)
        if name not in local:
            continue
        node_variables[number] = 1 + variable_ids.setdefault(name, len(variable_ids))
        if formatted[number]:  # an f-string is a single token
            continue
        line = lines[node.lineno - 1].encode()[: node.col_offset].decode()
        token = token_at.get(starts[node.lineno - 1] + len(line))
        if token is None:
            continue
        token_variables[token] = node_variables[number]
        if isinstance(getattr(node, "ctx", None), ast.Load):
            reads.append((number, token))
    # a hidden variable must also be mentioned elsewhere as a token
    mentions = np.bincount(token_variables, minlength=len(variable_ids) + 1)
    slots = [(number, token) for number, token in reads if mentions[node_variables[number]] > 1]
    if not slots or not 2 <= len(variable_ids) <= MAX_VARIABLES or (mentions[1:] == 0).any():
        return None
    digest = hashlib.sha256(source.encode()).digest()
    nodes, tokens = map(list, zip(*slots, strict=True))
    graph = tree(order, unjoined=local)
    return Sample(
        graph, list(words), digest, function.lineno, variables=(node_variables, token_variables), slots=(nodes, tokens)
    )


def name_of(node: ast.AST) -> str:
    """The name that a node mentions; empty if none."""
    return node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else ""


def variables(order: list[tuple[Any, int, int]]) -> set[str]:
    """The non-global names bound in a function and anything nested in it: arguments and assigned names."""
    nodes = [node for node, _, _ in order]
    named = [node for node in nodes if isinstance(node, NAMES)]
    bound = {name_of(node) for node in named if not isinstance(getattr(node, "ctx", None), ast.Load)}
    non_local = {name for node in nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
    return bound - non_local


def hide(batch: GraphBatch, draws: np.ndarray, word: int, joined: bool) -> GraphBatch:
    """Hide one slot of each function.

    Its word is removed. If uses of a variable are joined, its edges are removed too, and the uses before and after it
    are joined. The variables of each function are numbered by decreasing number of remaining mentions (ties by first
    mention), so that a constant prediction is that of the most frequent variable.

    Args:
        batch: with the extras ``variable`` and ``slot`` of the store.
        draws: (B,) random uint64 numbers that select the slots.
        word: the column of ``x`` that holds words.
        joined: whether uses of the same variable are joined by edges.

    Returns:
        The batch with ``y`` (B,), the number of the correct variable; the extras ``candidate`` (N,), 1 + the number of
        the variable that a node mentions or 0, and ``query`` (N,), 1 at the hidden use; see `gt.heads.Head`.
    """
    extras = dict(batch.extras)
    variable, slot = extras.pop("variable").numpy().copy(), extras.pop("slot").numpy()
    graph = batch.batch.numpy()
    slots = slot.nonzero()[0]
    first = graph[slots].searchsorted(np.arange(batch.num_graphs + 1))
    hole = slots[first[:-1] + (draws % np.diff(first).astype(np.uint64)).astype(np.int64)]
    key = graph * (MAX_VARIABLES + 1) + variable
    correct = key[hole]
    variable[hole] = 0
    mentions = variable.nonzero()[0]
    keys, first_mention, of_mention, counts = np.unique(
        key[mentions], return_index=True, return_inverse=True, return_counts=True
    )
    owner = keys // (MAX_VARIABLES + 1)
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
        y=torch.from_numpy(rank[keys.searchsorted(correct)]),
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
    """Add edges between consecutive uses of variables in both directions, keeping the order by target and source."""
    assert batch.edge_attr is not None
    added = np.concatenate([np.stack([before, after]), np.stack([after, before])], axis=1)
    kinds = np.repeat([NEXT_USE, PREVIOUS_USE], len(before))
    edges = np.concatenate([batch.edge_index.numpy(), added], axis=1)
    kinds = np.concatenate([batch.edge_attr[:, 0].numpy(), kinds])
    order = np.argsort(edges[1] * batch.num_nodes + edges[0], kind="stable")
    batch.edge_index, batch.edge_attr = torch.from_numpy(edges[:, order]), torch.from_numpy(kinds[order, None])


def describe(path: Path, line: int, view: int, hole: int, probabilities: Mapping[int, float]) -> str:
    """The source of a function with its hidden use, the model's probabilities, and the correct variable, for printing.

    Empty if the file has changed since the store was built.

    Args:
        path, line: where the function begins.
        view: index of the view into `Sample.slots`.
        hole: the hidden node.
        probabilities: the probability of each variable, keyed by a node that mentions it.
    """
    module = parse(path) or ast.Module([], [])
    samples(module)  # strips docstrings
    functions = [node for node in ast.walk(module) if isinstance(node, Function) and node.lineno == line]
    sample = sample_of(functions[0]) if functions else None
    if sample is None or hole not in sample.slots[view] or not max(probabilities) < len(sample.variables[view]):
        return ""
    source = ast.unparse(functions[0])
    words, offsets = zip(*lex(source), strict=True)
    token = sample.slots[1][sample.slots[view].index(hole)]
    names = sample.tree.words if view == 0 else sample.tokens
    source = source[: offsets[token]] + HOLE + source[offsets[token] + len(words[token]) :]
    ranked = sorted(probabilities, key=probabilities.__getitem__, reverse=True)
    listing = "  ".join(f"{names[node]} {probabilities[node]:.2f}" for node in ranked[:SHOWN_VARIABLES])
    lines = [f"    {line if len(line) <= MAX_LINE else line[:MAX_LINE] + ' ...'}" for line in source.split("\n")]
    return "\n".join([*lines, f"  predicts {listing}; correct: {words[token]}"])
