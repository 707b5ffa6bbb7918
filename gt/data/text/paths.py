"""Texts as path graphs of their tokens, packed without padding."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gt.data.packed import Graphs, pointers
from gt.data.text.tokenizer import Tokenizer
from gt.ranks import rank_zero_only
from gt.schema import Schema


def paths_in_order(sizes: np.ndarray) -> dict[str, Any]:
    """Arrays of G paths of the given lengths: edges to the next node (edge_attr 0) and to the previous one (1)."""
    position = np.arange(sizes.sum()) - np.repeat(pointers(sizes)[:-1], sizes)
    is_last = np.zeros(len(position), dtype=bool)
    is_last[pointers(sizes)[1:] - 1] = True
    # sorted by target: node i reads i - 1, if it exists, then i + 1
    source = np.stack([position - 1, position + 1], axis=1)
    exists = np.stack([position > 0, ~is_last], axis=1)
    target = np.stack([position, position], axis=1)
    kind = np.broadcast_to(np.array([0, 1]), exists.shape)
    return {
        "node_ptr": pointers(sizes),
        "edge_ptr": pointers(2 * (sizes - 1)),
        "edge_index": np.stack([source[exists], target[exists]]),
        "edges": {"edge_attr": kind[exists][:, None]},
    }


def packed(texts: Sequence[str], y: np.ndarray, tokenizer: Tokenizer, schema: Schema, longest: int) -> Graphs:
    """Pack texts as paths of their first ``longest`` tokens, without splits."""
    encoded = tokenizer.encode(texts)
    cut = sum(len(tokens) > longest for tokens in encoded)
    # a text without tokens, such as one of whitespace only, becomes a single unknown token (0)
    encoded = [tokens[:longest] if len(tokens) else np.zeros(1, np.int64) for tokens in encoded]
    sizes = np.array([len(tokens) for tokens in encoded], np.int64)
    notes = {"texts": len(encoded), "tokens": int(sizes.sum()), f"texts cut to {longest} tokens": cut}
    if cut:
        rank_zero_only(print)(f"{cut:,} of {len(encoded):,} texts were cut to data.longest={longest} tokens")
    return Graphs(
        **paths_in_order(sizes),
        nodes={"x": np.concatenate([np.empty(0, np.int64), *encoded])[:, None]},
        graphs={"y": y},
        schema=replace(schema, max_nodes=int(sizes.max(initial=0))),
        notes=notes,
    )
