"""What the rows of a network's tables and of its head stand for in the data that it was trained on."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from torch import Tensor, nn

from gt.data.text.tokenizer import loads
from gt.heads import Head
from gt.schema import Schema

READ = (
    "node_vocab", "node_floats", "edge_vocab", "edge_floats", "columns", "node_categories", "edge_names",
    "edge_categories", "undirected", "tokenizer", "longest", "degree", "level", "kind", "outputs", "positions",
    "pointer", "names", "answers",
)  # fmt: skip
CALLED = {
    "tokenizer": "the tokens they read", "names": "what they predict", "kind": "the kind of target",
    "level": "what has a target",
}  # fmt: skip
SHORT = 60  # characters of what a line has room for


def difference(first: Schema, other: Schema, but: Sequence[str] = ()) -> str:
    """In what two networks differ in what they read and predict, for the end of a line; nothing where they do not.

    Args:
        but: what may differ.
    """
    for name in READ:
        values = getattr(first, name), getattr(other, name)
        if name in but or values[0] == values[1]:
            continue
        shown = [", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values]
        short = all(shown) and max(map(len, shown)) < SHORT
        return CALLED.get(name, name) + (f": {' and '.join(shown)}" if short else "")
    return ""


def rows_by_meaning(schema: Schema, part: str) -> dict[Any, int]:
    """The rows of the table that embeds nodes or edges, or of a head's last map, by what each stands for.

    None where that is not known.

    Args:
        part: ``nodes``, ``edges`` or ``head``.
    """
    if part == "head":
        return _outputs(schema)
    if part == "nodes" and schema.tokenizer:
        return {name: row for row, name in enumerate(loads(schema.tokenizer).names)}
    kind = "node" if part == "nodes" else "edge"
    sizes, names, categories = (getattr(schema, f"{kind}_{what}") for what in ("vocab", "names", "categories"))
    if not len(sizes) == len(names) == len(categories):
        return {}
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return {
        (name, value): start + number
        for name, values, start in zip(names, categories, starts, strict=True)
        for number, value in enumerate(values)
    }


def _outputs(schema: Schema) -> dict[Any, int]:
    """The outputs by the tokens, classes or targets that they are of; a single target goes by any name."""
    names = schema.names if schema.outputs > 1 else ("",)
    if schema.pointer or not names:
        return {}
    kind = "token" if schema.is_language_model else schema.kind
    answers = schema.answers or ((),) * schema.outputs
    each = product(range(schema.positions), zip(names, answers, strict=True))
    return {(kind, position, *meant): row for row, (position, meant) in enumerate(each)}


def other_meaning(theirs: Schema, ours: Schema) -> dict[str, str]:
    """The parts that mean something else in other data, though they may have the same size, and why.

    These are embeddings, ``nodes`` and ``edges``, and the outputs of the ``head``.
    """
    apart = {}
    if theirs.tokenizer != ours.tokenizer:
        apart["nodes"] = "the data have other tokens"
        if theirs.is_language_model and ours.is_language_model:
            apart["head"] = apart["nodes"]
    for part, kind in (("nodes", "node"), ("edges", "edge")):
        learned = [getattr(schema, f"{kind}_categories") for schema in (theirs, ours)]
        names = [getattr(schema, f"{kind}_names") for schema in (theirs, ours)]
        if learned[0] != learned[1] or (any(learned) and names[0] != names[1]):
            apart[part] = "the data have other columns or categories"
    if _outputs(theirs) != _outputs(ours):
        apart.setdefault("head", f"the data have other {'classes' if ours.kind == 'multiclass' else 'targets'}")
    return apart


def last_map(net: nn.Module, schema: Schema) -> set[str]:
    """The names of the weights of a network of which each row is an output; none of a head unlike `gt.heads.Head`."""
    head = getattr(net, "head", None)
    if not isinstance(head, Head):
        return set()
    last: Any = head.mlp[-1]
    if len(last.weight) != schema.positions * schema.outputs:  # it maps the two nodes of a link, or the choices
        return set()
    return {f"head.mlp.{len(head.mlp) - 1}.{name}" for name in ("weight", "bias")}


def take_rows(part: str, value: Tensor, old: Tensor, ours: Schema, theirs: Schema) -> int:
    """Copy those rows of an old weight that mean the same in both; returns how many.

    Args:
        part: that the weight belongs to, see `rows_by_meaning`.
        value: (R, ...), changed in place.
        old: (rows of the other network, ...).
    """
    if value.shape[1:] != old.shape[1:] or (part == "head" and len(old) != theirs.positions * theirs.outputs):
        return 0
    here, there = (rows_by_meaning(schema, part) for schema in (ours, theirs))
    same = [meant for meant in here if meant in there]
    value[[here[meant] for meant in same]] = old[[there[meant] for meant in same]].to(value)
    return len(same)
