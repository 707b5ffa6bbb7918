"""Converts heterogeneous graphs, PyG's `HeteroData`, to homogeneous ones with node and edge types as features."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from gt.errors import UserError
from gt.schema import UNLABELLED, format_list

MASKS = ("train_mask", "val_mask", "test_mask")


def of_one_type(graphs: Sequence[HeteroData], name: str) -> list[Data]:
    """Convert graphs to homogeneous ones, with nodes ordered by type, and edges likewise.

    Types become categories: a column of codes, in the order of the first graph, or one-hot columns beside real-valued
    features. Features of equal width share their columns; those of different widths have columns of their own, which
    are 0 for the other types, so that a linear map of all columns is a separate map per type. Targets and masks are
    those of the only node type that has them, other nodes have none; or those of the graph.

    Raises:
        UserError: gives the graph: no types, or not those of the first graph; a type without a number of nodes, or
            whose edges have no ``edge_index`` or leave their types; targets at several types; features that are not
            matrices; targets or masks without a row for each node of their type.
    """
    node_types, edge_types = graphs[0].metadata()
    return [_homogeneous(graph, node_types, edge_types, f"{name}, graph {n}") for n, graph in enumerate(graphs)]


def _homogeneous(
    graph: HeteroData, node_types: list[str], edge_types: list[tuple[str, str, str]], location: str
) -> Data:
    if set(graph.node_types) != set(node_types) or set(graph.edge_types) != set(edge_types):
        raise UserError(f"{location}: its node or edge types are not those of the first graph")
    if not node_types:
        raise UserError(f"{location} has no node types")
    _check_tensors(graph, location)
    sizes = [_size(graph, kind, location) for kind in node_types]
    count = dict(zip(node_types, sizes, strict=True))
    first = dict(zip(node_types, torch.tensor([0, *sizes]).cumsum(0).tolist(), strict=False))
    ends = [
        _ends(graph, kind, count, location) + torch.tensor([[first[kind[0]]], [first[kind[2]]]]) for kind in edge_types
    ]
    edges = [each.shape[1] for each in ends]
    attributes: dict[str, Any] = {
        "x": _features(
            [graph[kind].get("x") for kind in node_types], sizes, f"{location}: x of {format_list(node_types, 4)}"
        ),
        "edge_index": torch.cat(ends, dim=1) if ends else torch.empty(2, 0, dtype=torch.long),
    }
    if len(edge_types) > 1 or any(graph[kind].get("edge_attr") is not None for kind in edge_types):
        attributes["edge_attr"] = _features(
            [graph[kind].get("edge_attr") for kind in edge_types], edges, f"{location}: edge_attr"
        )
    if "y" in graph.keys() and (of_graph := graph._global_store.get("y")) is not None:  # noqa: SIM118
        return Data(**attributes, y=of_graph)
    labelled = [kind for kind in node_types if graph[kind].get("y") is not None]
    if len(labelled) > 1:
        raise UserError(f"{location}: nodes of {format_list(labelled, 4)} have targets y: keep those of one type only")
    for kind in labelled:
        rows = slice(first[kind], first[kind] + count[kind])
        for key in ("y", *MASKS):
            if (values := graph[kind].get(key)) is None:
                continue
            if values.shape[:1] != (count[kind],):
                raise UserError(f"{location}: {key} of {kind} is {tuple(values.shape)} for {count[kind]:,} nodes")
            attributes[key] = (
                _scattered(values, sum(sizes), rows) if key in MASKS else _labels(values, sum(sizes), rows)
            )
    return Data(**attributes)


def _check_tensors(graph: HeteroData, location: str) -> None:
    for kind in (*graph.node_types, *graph.edge_types):
        for key in ("x", "y", *MASKS, "edge_index", "edge_attr"):
            if not isinstance(value := graph[kind].get(key), Tensor | None):
                raise UserError(f"{location}: {key} of {_type_name(kind)} is a {type(value).__name__}, not a tensor")


def _size(graph: HeteroData, kind: str, location: str) -> int:
    """The number of nodes of a type."""
    stored = graph[kind]
    size = len(stored.x) if isinstance(stored.get("x"), Tensor) else stored.get("num_nodes", stored.get("y"))
    if size is None:
        raise UserError(f"{location}: the number of nodes of type {kind} is unknown: set their num_nodes")
    return size if isinstance(size, int) else len(size)


def _ends(graph: HeteroData, kind: tuple[str, str, str], count: Mapping[str, int], location: str) -> Tensor:
    """(2, E) the edges of a type, with indices within their node types, of ``count`` nodes each."""
    index = graph[kind].get("edge_index")
    if index is None:
        raise UserError(f"{location}: edges {_type_name(kind)} have no edge_index")
    if index.ndim != 2 or len(index) != 2:
        raise UserError(f"{location}: edge_index of {_type_name(kind)} is {tuple(index.shape)}, but must be (2, E)")
    sources, targets = count[kind[0]], count[kind[2]]
    outside = ((index < 0) | (index >= torch.tensor([[sources], [targets]]))).any(0)
    if outside.any():
        wrong = index[:, int(outside.nonzero()[0])].tolist()
        raise UserError(
            f"{location}: an edge {_type_name(kind)} joins {wrong}, but nodes are 0..{sources - 1} and 0..{targets - 1}"
        )
    return index


def _type_name(kind: Sequence[str]) -> str:
    """The name of a node or edge type for messages."""
    return kind if isinstance(kind, str) else " - ".join(kind)


def _labels(y: Tensor, count: int, rows: slice) -> Tensor:
    """Targets of all nodes, NaN or, for classes, `UNLABELLED` where there are none; multi-column ones are floats."""
    if y.is_floating_point() or y.is_complex():
        return _scattered(y, count, rows, torch.nan)
    if y[0:1].numel() > 1:
        return _scattered(y.float(), count, rows, torch.nan)
    return _scattered(y.long(), count, rows, UNLABELLED)


def _scattered(values: Tensor, count: int, rows: slice, fill: float = 0) -> Tensor:
    out = values.new_full((count, *values.shape[1:]), fill)
    out[rows] = values
    return out


def _features(values: Sequence[Tensor | None], sizes: Sequence[int], name: str) -> Tensor:
    """(rows, columns) of all types concatenated; integer type codes if no type has features of its own."""
    kinds = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    if all(matrix is None for matrix in values):
        return kinds[:, None]
    matrices = [torch.empty(size, 0) if matrix is None else matrix for matrix, size in zip(values, sizes, strict=True)]
    matrices = [matrix.to_dense() if matrix.layout != torch.strided else matrix for matrix in matrices]
    matrices = [matrix[:, None] if matrix.ndim == 1 else matrix for matrix in matrices]
    for matrix, size in zip(matrices, sizes, strict=True):
        if matrix.ndim != 2 or len(matrix) != size:
            raise UserError(f"{name}: {tuple(matrix.shape)}, but must have a row for each of {size:,}")
    widths = [matrix.shape[1] for matrix in matrices]
    shared = len({*widths} - {0}) == 1
    starts = [len(sizes)] * len(sizes) if shared else torch.tensor([len(sizes), *widths]).cumsum(0).tolist()[:-1]
    out = torch.zeros(sum(sizes), len(sizes) + (max(widths) if shared else sum(widths)))
    out[torch.arange(len(out)), kinds] = 1
    row = 0
    for matrix, start in zip(matrices, starts, strict=True):
        out[row : row + len(matrix), start : start + matrix.shape[1]] = matrix
        row += len(matrix)
    return out
