"""Packs the graphs of a PyG dataset, by a schema that is inferred or that of a trained model."""

from dataclasses import replace

import numpy as np

from gt.data.numbers import Numbers
from gt.data.own.columns import Targets, features, infer_targets, max_in_degree, refuse, widths_of
from gt.data.own.pyg_read import Part
from gt.data.packed import Arrays, Graphs, pointers
from gt.data.table import Locator
from gt.data.targets import known_targets
from gt.errors import UserError
from gt.schema import UNLABELLED, Kind, Schema


def graph_locator(pointer: np.ndarray, name: str) -> Locator:
    """A locator that names the graph of a row; graph i has the rows ``pointer[i]`` to ``pointer[i + 1]``."""
    return lambda row: f"{name}, graph {int(np.searchsorted(pointer, row, side='right')) - 1}"


def pack(part: Part, name: str, kind: Kind | None, numbers: Numbers) -> tuple[Graphs, Targets]:
    """The packed graphs, without splits, and their targets (a row per graph, node or node pair)."""
    node_vocab, node_floats = widths_of(part.x)
    edge_vocab, edge_floats = widths_of(part.edge_attr)
    degree = not (node_vocab or node_floats)
    if degree:
        starts = pointers(part.sizes)[:-1]
        node_vocab = (max_in_degree(part.edge_index[1] + np.repeat(starts, part.edges)) + 1,)
    widths = {"x": (node_vocab, node_floats), "edge_attr": (edge_vocab, edge_floats)}
    roles = {key: "categories" if vocab else "numbers" for key, (vocab, floats) in widths.items() if vocab or floats}
    if degree:
        del roles["x"]
    assert part.y is not None  # `read` refuses a dataset without
    where = graph_locator(pointers(part.target_counts(part.level)), name)
    targets = (
        _link_targets(part.y, where, kind) if part.level == "link" else infer_targets(part.y, where, numbers.kind(kind))
    )
    numbers.check(targets.kind, targets.y, where)
    schema = Schema(
        node_vocab=node_vocab,
        node_floats=node_floats,
        edge_vocab=edge_vocab,
        edge_floats=edge_floats,
        level=part.level,
        kind=targets.kind,
        outputs=targets.outputs,
        names=targets.names,
        target=("edge_label",) if part.level == "link" else ("y",),
        degree=degree,
    )
    attributes = {"data": {**roles, schema.target[0]: "target", **dict.fromkeys(part.unused, "not used")}}
    notes = {"attributes": attributes} | ({"degree": True} if degree else {})
    return replace(_graphs(part, name, targets.y, schema), notes=notes), targets


def _link_targets(labels: np.ndarray, where: Locator, kind: Kind | None) -> Targets:
    """Targets from link labels (P,) or (P, 1).

    Raises:
        UserError: a label is neither 0 nor 1.
    """
    if kind not in (None, "binary"):
        raise UserError(f"data.kind={kind} does not apply to links, which exist or not: leave it out")
    labels = labels.reshape(len(labels), -1)
    if labels.shape[1] > 1:
        raise UserError(f"{where(0)}: edge_label has {labels.shape[1]} columns, but must have one, 0 or 1")
    refuse((labels != 0) & (labels != 1) & (labels == labels), labels, where, "in edge_label is neither 0 nor 1")
    return Targets(labels.astype(np.float32), "binary", 1)


def pack_known(part: Part, name: str, model_schema: Schema) -> Graphs:
    """The packed graphs by a trained model's schema, without splits; targets may be missing.

    Raises:
        UserError: features of another width or kind, or a category that the model has not learned.
    """
    columns = None
    if part.y is not None:
        columns = list(part.y.reshape(len(part.y), -1).T)
        if model_schema.kind == "multiclass":  # -100 means unlabelled
            columns[0] = np.where(columns[0] == UNLABELLED, np.nan, columns[0])
        if len(columns) != (1 if model_schema.kind == "multiclass" else model_schema.outputs):
            raise UserError(f"{name}: {len(columns)} columns of targets, but the model predicts {model_schema.outputs}")
    y = known_targets(
        columns,
        int(part.target_counts(model_schema.level).sum()),
        model_schema,
        lambda row: f"{name}, {model_schema.level} {row}",
    )
    return _graphs(part, name, y, model_schema)


def _graphs(part: Part, name: str, y: np.ndarray, schema: Schema) -> Graphs:
    """The packed graphs, without splits, with the features that a schema describes and targets of its level."""
    nodes, edges = pointers(part.sizes), pointers(part.edges)
    if schema.degree:
        target = part.edge_index[1] + np.repeat(nodes[:-1], part.edges)
        x = np.bincount(target, minlength=nodes[-1]).clip(max=schema.node_vocab[0] - 1)[:, None]
    else:
        x = features(part.x, graph_locator(nodes, name), "x", schema.node_vocab, schema.node_floats)
    edge_arrays = {}
    if schema.edge_vocab or schema.edge_floats:
        locate = graph_locator(edges, name)
        edge_arrays["edge_attr"] = features(part.edge_attr, locate, "edge_attr", schema.edge_vocab, schema.edge_floats)
    arrays: dict[str, Arrays] = {"nodes": {"x": x}, "graphs": {}, "links": {}}
    if schema.level == "link":
        arrays["graphs"]["links"], arrays["links"]["ends"] = part.pair_counts, part.pairs
    arrays[f"{schema.level}s"]["y"] = y
    return Graphs(
        node_ptr=nodes,
        edge_ptr=edges,
        edge_index=part.edge_index,
        nodes=arrays["nodes"],
        edges=edge_arrays,
        graphs=arrays["graphs"],
        links=arrays["links"],
        schema=replace(schema, max_nodes=int(part.sizes.max())),
    ).sort_edges()
