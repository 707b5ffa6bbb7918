"""Graphs of several types of nodes and edges, PyG's `HeteroData`, as graphs of one type whose features say which."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from gt.errors import UserError
from gt.schema import UNLABELLED, several

MASKS = ("train_mask", "val_mask", "test_mask")


def of_one_type(graphs: Sequence[HeteroData], name: str) -> list[Data]:
    """The same graphs with the nodes of each type after those of the type before, and edges likewise.

    Types are categories: a column of numbers, in the order in which the first graph has them, or beside real features
    a column for each, 1 or 0. Real features of equal width share their columns; those of different width have columns
    of their own, which are 0 for the other types, so that a linear map of all is a map for each type. Targets and
    masks are those of the one type of nodes that has them, others have none; or those of the graph.

    Raises:
        UserError: naming the graph: no types, or others than the first has; a type that does not say how many nodes it
            has, or whose edges are not in ``edge_index`` or join no nodes of their types; targets at several types;
            features that are no matrices; targets or masks that have not a row for each node of their type.
    """
    node_types, edge_types = graphs[0].metadata()
    return [_joined(graph, node_types, edge_types, f"{name}, graph {n}") for n, graph in enumerate(graphs)]


def _joined(graph: HeteroData, node_types: list[str], edge_types: list[tuple[str, str, str]], where: str) -> Data:
    if set(graph.node_types) != set(node_types) or set(graph.edge_types) != set(edge_types):
        raise UserError(f"{where}: its types of nodes or edges are not those of the first graph")
    if not node_types:
        raise UserError(f"{where} has no types of nodes")
    _check_tensors(graph, where)
    sizes = [_size(graph, kind, where) for kind in node_types]
    count = dict(zip(node_types, sizes, strict=True))
    first = dict(zip(node_types, torch.tensor([0, *sizes]).cumsum(0).tolist(), strict=False))
    ends = [
        _ends(graph, kind, count, where) + torch.tensor([[first[kind[0]]], [first[kind[2]]]]) for kind in edge_types
    ]
    edges = [each.shape[1] for each in ends]
    facts: dict[str, Any] = {
        "x": _features([graph[kind].get("x") for kind in node_types], sizes, f"{where}: x of {several(node_types, 4)}"),
        "edge_index": torch.cat(ends, dim=1) if ends else torch.empty(2, 0, dtype=torch.long),
    }
    if len(edge_types) > 1 or any(graph[kind].get("edge_attr") is not None for kind in edge_types):
        facts["edge_attr"] = _features(
            [graph[kind].get("edge_attr") for kind in edge_types], edges, f"{where}: edge_attr"
        )
    if "y" in graph.keys() and (of_graph := graph._global_store.get("y")) is not None:  # noqa: SIM118
        return Data(**facts, y=of_graph)
    labelled = [kind for kind in node_types if graph[kind].get("y") is not None]
    if len(labelled) > 1:
        raise UserError(f"{where}: nodes of {several(labelled, 4)} have targets y: leave those of one type")
    for kind in labelled:
        rows = slice(first[kind], first[kind] + count[kind])
        for key in ("y", *MASKS):
            if (values := graph[kind].get(key)) is None:
                continue
            if values.shape[:1] != (count[kind],):
                raise UserError(f"{where}: {key} of {kind} is {tuple(values.shape)} for {count[kind]:,} nodes")
            facts[key] = _filled(values, sum(sizes), rows) if key in MASKS else _labels(values, sum(sizes), rows)
    return Data(**facts)


def _check_tensors(graph: HeteroData, where: str) -> None:
    for kind in (*graph.node_types, *graph.edge_types):
        for key in ("x", "y", *MASKS, "edge_index", "edge_attr"):
            if not isinstance(value := graph[kind].get(key), Tensor | None):
                raise UserError(f"{where}: {key} of {_called(kind)} is a {type(value).__name__}, not a tensor")


def _size(graph: HeteroData, kind: str, where: str) -> int:
    """How many nodes of a type there are."""
    stored = graph[kind]
    size = len(stored.x) if isinstance(stored.get("x"), Tensor) else stored.get("num_nodes", stored.get("y"))
    if size is None:
        raise UserError(f"{where}: nothing says how many nodes of type {kind} there are: set their num_nodes")
    return size if isinstance(size, int) else len(size)


def _ends(graph: HeteroData, kind: tuple[str, str, str], count: Mapping[str, int], where: str) -> Tensor:
    """(2, E) the edges of a type, each end a number among the nodes of its own type, of which there are ``count``."""
    index = graph[kind].get("edge_index")
    if index is None:
        raise UserError(f"{where}: edges {_called(kind)} have no edge_index")
    if index.ndim != 2 or len(index) != 2:
        raise UserError(f"{where}: edge_index of {_called(kind)} is {tuple(index.shape)}, where (2, E) is needed")
    sources, targets = count[kind[0]], count[kind[2]]
    outside = ((index < 0) | (index >= torch.tensor([[sources], [targets]]))).any(0)
    if outside.any():
        wrong = index[:, int(outside.nonzero()[0])].tolist()
        raise UserError(
            f"{where}: an edge {_called(kind)} joins {wrong} where nodes are 0..{sources - 1} and 0..{targets - 1}"
        )
    return index


def _called(kind: Sequence[str]) -> str:
    """A type of nodes or of edges, for a message."""
    return kind if isinstance(kind, str) else " - ".join(kind)


def _labels(y: Tensor, count: int, rows: slice) -> Tensor:
    """Targets of all nodes: NaN, or `UNLABELLED` beside classes, where there are none; answers in columns are real."""
    if y.is_floating_point() or y.is_complex():
        return _filled(y, count, rows, torch.nan)
    if y[0:1].numel() > 1:
        return _filled(y.float(), count, rows, torch.nan)
    return _filled(y.long(), count, rows, UNLABELLED)


def _filled(values: Tensor, count: int, rows: slice, otherwise: float = 0) -> Tensor:
    out = values.new_full((count, *values.shape[1:]), otherwise)
    out[rows] = values
    return out


def _features(values: Sequence[Tensor | None], sizes: Sequence[int], what: str) -> Tensor:
    """(rows, columns) of all types, one after the other; integers where no type has features of its own."""
    kinds = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    if all(each is None for each in values):
        return kinds[:, None]
    known = [torch.empty(size, 0) if each is None else each for each, size in zip(values, sizes, strict=True)]
    known = [each.to_dense() if each.layout != torch.strided else each for each in known]
    known = [each[:, None] if each.ndim == 1 else each for each in known]
    for each, size in zip(known, sizes, strict=True):
        if each.ndim != 2 or len(each) != size:
            raise UserError(f"{what}: {tuple(each.shape)} where a row for each of {size:,} is needed")
    widths = [each.shape[1] for each in known]
    shared = len({*widths} - {0}) == 1
    starts = [len(sizes)] * len(sizes) if shared else torch.tensor([len(sizes), *widths]).cumsum(0).tolist()[:-1]
    out = torch.zeros(sum(sizes), len(sizes) + (max(widths) if shared else sum(widths)))
    out[torch.arange(len(out)), kinds] = 1
    row = 0
    for each, start in zip(known, starts, strict=True):
        out[row : row + len(each), start : start + each.shape[1]] = each
        row += len(each)
    return out
