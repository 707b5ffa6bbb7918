"""The meaning of the rows of a network's embedding tables and head in terms of its training data."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from torch import Tensor, nn

from gt.data.text.tokenizer import loads
from gt.heads import Head
from gt.schema import Schema

FIELDS = (
    "node_vocab", "node_floats", "edge_vocab", "edge_floats", "columns", "node_categories", "edge_names",
    "edge_categories", "undirected", "tokenizer", "longest", "degree", "level", "kind", "outputs", "positions",
    "pointer", "names", "answers",
)  # fmt: skip
DESCRIPTIONS = {
    "tokenizer": "the tokens they read", "names": "what they predict", "kind": "the kind of target",
    "level": "what has a target",
}  # fmt: skip
MAX_LENGTH = 60  # characters of a value quoted in a message


def difference(first: Schema, second: Schema, but: Sequence[str] = ()) -> str:
    """The first difference in what two networks read or predict, as the end of a message; empty if there is none.

    Args:
        but: fields that may differ.
    """
    for name in FIELDS:
        values = getattr(first, name), getattr(second, name)
        if name in but or values[0] == values[1]:
            continue
        texts = [", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values]
        fits = all(texts) and max(map(len, texts)) < MAX_LENGTH
        return DESCRIPTIONS.get(name, name) + (f": {' and '.join(texts)}" if fits else "")
    return ""


def rows_by_meaning(schema: Schema, part: str) -> dict[Any, int]:
    """The row indices of a node or edge embedding, or of the head's last layer, by the meaning of each row.

    Empty if the meanings are unknown.

    Args:
        part: ``nodes``, ``edges`` or ``head``.
    """
    if part == "head":
        return _outputs(schema)
    if part == "nodes" and schema.tokenizer:
        return {name: row for row, name in enumerate(loads(schema.tokenizer).names)}
    kind = "node" if part == "nodes" else "edge"
    sizes, names, categories = (getattr(schema, f"{kind}_{field}") for field in ("vocab", "names", "categories"))
    if not len(sizes) == len(names) == len(categories):
        return {}
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return {
        (name, value): start + number
        for name, values, start in zip(names, categories, starts, strict=True)
        for number, value in enumerate(values)
    }


def _outputs(schema: Schema) -> dict[Any, int]:
    """The output indices by token, class or target; the name of a single target is ignored."""
    names = schema.names if schema.outputs > 1 else ("",)
    if schema.pointer or not names:
        return {}
    kind = "token" if schema.is_language_model else schema.kind
    answers = schema.answers or ((),) * schema.outputs
    outputs = product(range(schema.positions), zip(names, answers, strict=True))
    return {(kind, position, *meaning): row for row, (position, meaning) in enumerate(outputs)}


def changed_parts(saved: Schema, current: Schema) -> dict[str, str]:
    """The parts whose rows have another meaning in the current data, even if the sizes match, with the reason.

    Parts are the embeddings, ``nodes`` and ``edges``, and the outputs of the ``head``.
    """
    changed = {}
    if saved.tokenizer != current.tokenizer:
        changed["nodes"] = "the data have other tokens"
        if saved.is_language_model and current.is_language_model:
            changed["head"] = changed["nodes"]
    for part, kind in (("nodes", "node"), ("edges", "edge")):
        categories = [getattr(schema, f"{kind}_categories") for schema in (saved, current)]
        names = [getattr(schema, f"{kind}_names") for schema in (saved, current)]
        if categories[0] != categories[1] or (any(categories) and names[0] != names[1]):
            changed[part] = "the data have other columns or categories"
    if _outputs(saved) != _outputs(current):
        changed.setdefault("head", f"the data have other {'classes' if current.kind == 'multiclass' else 'targets'}")
    return changed


def output_weights(net: nn.Module, schema: Schema) -> set[str]:
    """The names of the parameters with a row for each output; empty for heads other than `gt.heads.Head`."""
    head = getattr(net, "head", None)
    if not isinstance(head, Head):
        return set()
    last: Any = head.mlp[-1]
    if len(last.weight) != schema.positions * schema.outputs:  # heads for links or pointers have no row for each output
        return set()
    return {f"head.mlp.{len(head.mlp) - 1}.{name}" for name in ("weight", "bias")}


def copy_common_rows(part: str, value: Tensor, old: Tensor, current: Schema, saved: Schema) -> int:
    """Copy the rows of a saved weight that have the same meaning in both schemas; returns their number.

    Args:
        part: to which the weight belongs, see `rows_by_meaning`.
        value: (R, ...), changed in place.
        old: the saved weight (rows, ...).
    """
    if value.shape[1:] != old.shape[1:] or (part == "head" and len(old) != saved.positions * saved.outputs):
        return 0
    new_rows, old_rows = (rows_by_meaning(schema, part) for schema in (current, saved))
    common = [meaning for meaning in new_rows if meaning in old_rows]
    value[[new_rows[meaning] for meaning in common]] = old[[old_rows[meaning] for meaning in common]].to(value)
    return len(common)
