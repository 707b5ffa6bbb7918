"""The graphs of PyG datasets as flat arrays, sliced from the tensors that PyG keeps collated."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset, HeteroData, InMemoryDataset

from gt.data.batching import runs
from gt.data.own.pyg_open import tensors_only
from gt.data.own.pyg_saved import without_unshared
from gt.data.own.pyg_types import of_one_type
from gt.errors import UserError
from gt.schema import Level

PYG_SPLITS = {"train": "train", "valid": "val", "test": "test"}  # PyG's names of splits


@dataclass
class Part:
    """The graphs of one PyG dataset in flat arrays; ``edge_index`` counts from 0 within each graph.

    ``y`` has a row per graph, node or node pair, by ``level``; ``pairs`` (P, 2) are the node pairs, ``pair_counts``
    (G,) of each graph. ``masks`` are (N,) by split, ``unused`` the other attributes of the data.
    """

    sizes: np.ndarray
    edges: np.ndarray
    edge_index: np.ndarray
    x: np.ndarray | None
    edge_attr: np.ndarray | None
    y: np.ndarray | None
    level: Level
    masks: dict[str, np.ndarray]
    unused: list[str]
    pairs: np.ndarray
    pair_counts: np.ndarray

    def target_counts(self, level: Level) -> np.ndarray:
        """(G,) the number of target rows of each graph."""
        return {"graph": np.ones_like(self.sizes), "node": self.sizes, "link": self.pair_counts}[level]


def collate(dataset: Dataset, name: str) -> tuple[Data, Mapping[str, Any] | None, np.ndarray]:
    """All graphs collated in one `Data`, the slices (None for a single graph), and the indices of those in use.

    Heterogeneous graphs are converted to homogeneous ones, see `gt.data.own.pyg_types.of_one_type`.

    Raises:
        UserError: no graphs, other objects, or tensors of a graph that do not match those of the others.
    """
    if len(dataset) == 0:
        raise UserError(f"{name} holds no graphs")
    if isinstance(dataset, InMemoryDataset) and dataset.transform is None and isinstance(dataset._data, Data):
        return dataset._data, dataset.slices, np.asarray(dataset.indices(), dtype=np.int64)
    with tensors_only():  # some keep a file per graph
        graphs = list(dataset)
    if all(isinstance(graph, HeteroData) for graph in graphs):
        graphs = of_one_type(graphs, name)
    if others := {type(graph).__name__ for graph in graphs if not isinstance(graph, Data)}:
        raise UserError(f"{name} holds {' and '.join(sorted(others))} objects: only Data or HeteroData can be read")
    try:
        data, slices = InMemoryDataset.collate(graphs)
    except Exception:  # PyG may raise anything if the graphs differ in their attributes
        data, slices = InMemoryDataset.collate(without_unshared(graphs, name))
    return data, slices, np.arange(len(dataset))


def _array(values: Tensor) -> np.ndarray:
    values = values.detach().cpu()
    values = values if values.layout == torch.strided else values.to_dense()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def read(dataset: Dataset, name: str, level: Level | None = None, optional: bool = False) -> Part:
    """Slice the collated tensors of a dataset, without a loop over graphs if PyG keeps them collated.

    Raises:
        UserError: gives the graph: edges or pairs that leave their graph, features without a row for each node or edge,
            or targets that match neither graphs nor nodes nor pairs.
    """
    data, slices, ids = collate(dataset, name)

    def cut(key: str) -> tuple[np.ndarray, np.ndarray]:
        """The rows of an attribute (columns of index tensors) and their number in each graph."""
        values: Any = data[key]
        if not isinstance(values, Tensor):
            raise UserError(f"{name}: {key} is a {type(values).__name__}, not a tensor")
        array = _array(values)
        array = array[None] if array.ndim == 0 else array
        array = array.T if key in ("edge_index", "edge_label_index") else array
        ptr = np.array([0, len(array)]) if slices is None else np.asarray(slices[key], dtype=np.int64)
        if ptr[-1] != len(array):
            raise UserError(f"{name}: {key} has {len(array)} rows, but its slices end at {ptr[-1]}")
        lengths = np.diff(ptr)[ids]
        in_order = len(ids) == len(ptr) - 1 and (ids == np.arange(len(ids))).all()
        return array if in_order else array[runs(ptr[ids], lengths)], lengths

    keys = {key for key in data.keys() if data[key] is not None}  # noqa: SIM118  iterating gives pairs
    ends, edges = cut("edge_index") if "edge_index" in keys else (np.empty((0, 2), np.int64), np.zeros(len(ids), int))
    sizes = _sizes(data, slices, ids, ends, edges, {key: cut(key)[1] for key in ("x", "pos", "z") if key in keys})
    arrays: dict[str, np.ndarray] = {}
    for key in sorted({"x", "edge_attr", *(f"{pyg_split}_mask" for pyg_split in PYG_SPLITS.values())} & keys):
        arrays[key], rows = cut(key)
        expected, unit = (edges, "edges") if key == "edge_attr" else (sizes, "nodes")
        if (rows != expected).any():
            graph = int(np.argmax(rows != expected))
            raise UserError(f"{name}, graph {graph}: {key} has {rows[graph]} rows for {expected[graph]} {unit}")
    _check_ends(ends, edges, sizes, name, "an edge joins")
    if (sizes < 1).any():
        raise UserError(
            f"{name}, graph {int(np.argmin(sizes))} has no nodes: remove it, in a PyG dataset by "
            "data.dataset.pre_filter"
        )
    y: np.ndarray | None = None
    pairs, pair_counts = np.empty((0, 2), np.int64), np.zeros(len(ids), np.int64)
    if level == "link" or (level is None and "y" not in keys and "edge_label_index" in keys):
        level = "link"
        for key in ("edge_label_index", "edge_label")[: 1 if optional else 2]:
            if key not in keys:
                raise UserError(f"{name}: no {key}, but links need edge_label_index (2, P) and edge_label (P,), 1 or 0")
        pairs, pair_counts = cut("edge_label_index")
        _check_ends(pairs, pair_counts, sizes, name, "edge_label_index names")
        if "edge_label" in keys:
            y, lengths = cut("edge_label")
            if (lengths != pair_counts).any():
                graph = int(np.argmax(lengths != pair_counts))
                raise UserError(
                    f"{name}, graph {graph}: {lengths[graph]} edge_label for {pair_counts[graph]} node pairs"
                )
    elif "y" in keys:
        y, lengths = cut("y")
        y, level = _targets(y, lengths, sizes, name, level)
    elif not optional:
        hint = ": set data.level=link to read labels of node pairs" if "edge_label_index" in keys else ""
        raise UserError(f"{name} has no targets: its graphs hold {', '.join(sorted(keys))} but no y{hint}")
    used = {"x", "edge_index", "edge_attr", "y", *(f"{pyg_split}_mask" for pyg_split in PYG_SPLITS.values())}
    if level == "link":
        used = used - {"y"} | {"edge_label_index", "edge_label"}
    for key in sorted(keys & used):
        if data[key].is_complex():
            raise UserError(
                f"{name}: {key} holds complex numbers: store their real and imaginary parts, "
                "torch.view_as_real(...).flatten(1)"
            )
    return Part(
        sizes=sizes,
        edges=edges,
        edge_index=ends.T,
        x=arrays.get("x"),
        edge_attr=arrays.get("edge_attr"),
        y=y,
        level=level or "graph",
        unused=sorted(keys - used),
        masks={
            split: arrays[f"{pyg_split}_mask"]
            for split, pyg_split in PYG_SPLITS.items()
            if f"{pyg_split}_mask" in arrays
        },
        pairs=pairs,
        pair_counts=pair_counts,
    )


def _check_ends(ends: np.ndarray, counts: np.ndarray, sizes: np.ndarray, name: str, subject: str) -> None:
    """Check that both ends of each row (R, 2) are nodes of its graph; graph g has ``counts[g]`` rows.

    Raises:
        UserError: names the first pair that is not.
    """
    outside = (ends < 0) | (ends >= np.repeat(sizes, counts)[:, None])
    if outside.any():
        row = int(np.argwhere(outside)[0, 0])
        graph = int(np.searchsorted(np.cumsum(counts), row, side="right"))
        raise UserError(f"{name}, graph {graph}: {subject} {ends[row].tolist()}, but nodes are 0..{sizes[graph] - 1}")


def _sizes(
    data: Data,
    slices: Mapping[str, Any] | None,
    ids: np.ndarray,
    ends: np.ndarray,
    edges: np.ndarray,
    rows: Mapping[str, np.ndarray],
) -> np.ndarray:
    """(G,) nodes of each graph: from ``num_nodes``, else the rows of its features, else the last node with an edge."""
    num_nodes = data._store.__dict__.get("_num_nodes")
    if num_nodes is not None:
        return np.asarray(num_nodes, dtype=np.int64)[ids]
    if slices is None and "num_nodes" in data:
        return np.array([data.num_nodes])
    if rows:
        return next(iter(rows.values()))
    sizes = np.zeros(len(ids), dtype=np.int64)
    np.maximum.at(sizes, np.repeat(np.arange(len(ids)), edges), ends.max(1, initial=-1) + 1)
    return sizes


def _targets(
    y: np.ndarray, lengths: np.ndarray, sizes: np.ndarray, name: str, level: Level | None
) -> tuple[np.ndarray, Level]:
    """Targets with a row per graph or node, and their level; a flat vector per graph becomes a row."""
    per_node, per_graph = (lengths == sizes).all(), (lengths == lengths[0]).all()
    if level == "node" or (level is None and per_node and not (lengths == 1).all()):
        if not per_node:
            graph = int(np.argmax(lengths != sizes))
            raise UserError(f"{name}, graph {graph}: {lengths[graph]} targets for {sizes[graph]} nodes")
        return y, "node"
    if not per_graph or (y.ndim > 1 and lengths[0] != 1):
        graph = int(np.argmax(lengths != lengths[0]))
        raise UserError(
            f"{name}, graph {graph}: y has {lengths[graph]} rows, neither one for the graph nor one for each of its "
            f"{sizes[graph]} nodes"
        )
    return (y if lengths[0] == 1 else y.reshape(len(sizes), -1)), "graph"


def concatenate(parts: Sequence[Part], name: str) -> Part:
    """Concatenate the graphs of several datasets."""

    def rows(key: str) -> np.ndarray | None:
        arrays = [getattr(part, key) for part in parts]
        shapes = {None if values is None else (values.shape[1:], values.dtype.kind) for values in arrays}
        if len(shapes) > 1:
            raise UserError(f"{name}: {key} differs between the splits: {' and '.join(map(str, shapes))}")
        return None if arrays[0] is None else np.concatenate(arrays)

    levels = {part.level for part in parts}
    if len(levels) > 1:
        raise UserError(f"{name}: the splits have targets of {' and '.join(sorted(levels))}s: set data.level")
    keys = ("sizes", "edges", "x", "edge_attr", "y", "pairs", "pair_counts")
    columns: dict[str, Any] = {key: rows(key) for key in keys}
    edge_index = np.concatenate([part.edge_index for part in parts], axis=1)
    masks = parts[0].masks if len(parts) == 1 else {}
    return Part(edge_index=edge_index, level=parts[0].level, masks=masks, unused=parts[0].unused, **columns)


def digest(datasets: Mapping[str, Dataset], name: str) -> str:
    """A hash of every tensor of the datasets."""
    total = hashlib.sha256()
    for split, dataset in datasets.items():
        data, slices, ids = collate(dataset, name)
        total.update(repr((split, len(ids))).encode())
        total.update(ids.tobytes())
        for key in sorted(key for key in data.keys() if isinstance(data[key], Tensor)):  # noqa: SIM118
            array = np.ascontiguousarray(_array(data[key]))
            total.update(repr((key, array.dtype.str, array.shape)).encode())
            total.update(array.data if array.size else b"")
            total.update(b"" if slices is None or key not in slices else np.asarray(slices[key]).tobytes())
        total.update(repr(data._store.__dict__.get("_num_nodes")).encode())
    return total.hexdigest()
