"""The graphs of PyG datasets as a trained model reads them."""

from dataclasses import replace

import numpy as np

from gt.data.own.columns import features, refuse
from gt.data.own.pyg_read import Part
from gt.data.store import Graphs, pointers
from gt.data.targets import known_targets, no_targets, say_strange
from gt.errors import UserError
from gt.schema import UNLABELLED, Schema


def pack_known(part: Part, name: str, known: Schema) -> Graphs:
    """The graphs as a trained model reads them, without splits; targets may be missing.

    Raises:
        UserError: features of another width or kind, a category beyond those that it has learned.
    """
    nodes, edges = pointers(part.sizes), pointers(part.edges)
    if known.degree:
        degree = np.bincount(part.edge_index[1] + np.repeat(nodes[:-1], part.edges), minlength=nodes[-1])
        x = np.minimum(degree, known.node_vocab[0] - 1)[:, None]
    else:
        x = _known_features(part.x, name, "x", nodes, known.node_vocab, known.node_floats)
    attributes = {}
    if known.edge_vocab or known.edge_floats:
        beside = _known_features(part.edge_attr, name, "edge_attr", edges, known.edge_vocab, known.edge_floats)
        attributes["edge_attr"] = beside
    y = no_targets(int(nodes[-1]) if known.level == "node" else len(part.sizes), known)
    if part.y is not None:
        columns = list((part.y[:, None] if part.y.ndim == 1 else part.y.reshape(len(part.y), -1)).T)
        if known.kind == "multiclass":  # -100 is no label
            columns = [np.where(columns[0] == UNLABELLED, np.nan, columns[0])]
        if len(columns) != y.reshape(len(y), -1).shape[1]:
            raise UserError(f"{name}: y has {len(columns)} columns where the model predicts {known.outputs}")
        y, strange = known_targets(columns, known)
        say_strange(strange, lambda row: f"{name}, {known.level} {row}")
    return Graphs(
        node_ptr=nodes,
        edge_ptr=edges,
        edge_index=part.edge_index,
        nodes={"x": x} | ({"y": y} if known.level == "node" else {}),
        edges=attributes,
        graphs={} if known.level == "node" else {"y": y},
        schema=replace(known, max_nodes=int(part.sizes.max())),
    ).sort_edges()


def _known_features(
    values: np.ndarray | None, name: str, what: str, pointer: np.ndarray, vocab: tuple[int, ...], floats: int
) -> np.ndarray:
    width = len(vocab) or floats
    if values is not None:
        values = values[:, None] if values.ndim == 1 else values
    if values is None or values.ndim != 2 or values.shape[1] != width:
        shape = "none" if values is None else " x ".join(map(str, values.shape))
        raise UserError(f"{name}: the model reads {width} columns of {what}, and there is {shape}")

    def where(row: int) -> str:
        return f"{name}, graph {int(np.searchsorted(pointer, row, side='right')) - 1}"

    if floats:
        return features(values.astype(np.float64), where, what).values
    refuse(values != np.floor(values), values, where, f"in {what} is no category")
    refuse((values < 0) | (values >= np.array(vocab)), values, where, f"in {what} is no category that the model knows")
    return values.astype(np.int64)
