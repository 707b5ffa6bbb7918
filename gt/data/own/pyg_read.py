"""The graphs of PyG datasets as flat arrays, cut from the tensors that PyG keeps collated."""

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
from gt.data.own.pyg_saved import alike
from gt.data.own.pyg_types import of_one_type
from gt.errors import UserError
from gt.schema import Level

THEIRS = {"train": "train", "valid": "val", "test": "test"}  # the words of PyG's datasets for splits


@dataclass
class Part:
    """The graphs of one PyG dataset in flat arrays; ``edge_index`` counts from 0 within each graph.

    ``y`` has a row a graph, a node or a pair of nodes, as ``level`` says; ``pairs`` (P, 2) are these, ``asked`` (G,) of
    each graph. ``masks`` are (N,) by split, ``others`` what else PyG holds.
    """

    sizes: np.ndarray
    edges: np.ndarray
    edge_index: np.ndarray
    x: np.ndarray | None
    edge_attr: np.ndarray | None
    y: np.ndarray | None
    level: Level
    masks: dict[str, np.ndarray]
    others: list[str]
    pairs: np.ndarray
    asked: np.ndarray

    def targets(self, level: Level) -> np.ndarray:
        """(G,) rows of targets that each graph has."""
        return {"graph": np.ones_like(self.sizes), "node": self.sizes, "link": self.asked}[level]


def collated(dataset: Dataset, name: str) -> tuple[Data, Mapping[str, Any] | None, np.ndarray]:
    """All graphs as one `Data`, where each begins (None where there is but one), and the numbers of those meant.

    Graphs of several types of nodes are made ones of one type, see `gt.data.own.pyg_types.of_one_type`.

    Raises:
        UserError: no graphs, anything else, or tensors of a graph that do not fit in with the others'.
    """
    if len(dataset) == 0:
        raise UserError(f"{name} holds no graphs")
    if isinstance(dataset, InMemoryDataset) and dataset.transform is None and isinstance(dataset._data, Data):
        return dataset._data, dataset.slices, np.asarray(dataset.indices(), dtype=np.int64)
    with tensors_only():  # some keep a file a graph
        graphs = list(dataset)
    if all(isinstance(graph, HeteroData) for graph in graphs):
        graphs = of_one_type(graphs, name)
    if others := {type(graph).__name__ for graph in graphs if not isinstance(graph, Data)}:
        raise UserError(f"{name} holds {' and '.join(sorted(others))} objects: Data or HeteroData alone can be read")
    try:
        data, slices = InMemoryDataset.collate(graphs)
    except Exception:  # PyG raises whatever it stumbles over where graphs do not hold the same
        data, slices = InMemoryDataset.collate(alike(graphs, name))
    return data, slices, np.arange(len(dataset))


def _array(values: Tensor) -> np.ndarray:
    values = values.detach().cpu()
    values = values if values.layout == torch.strided else values.to_dense()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def read(dataset: Dataset, name: str, level: Level | None = None, optional: bool = False) -> Part:
    """Cut the collated tensors of a dataset, without a loop over graphs where PyG keeps them collated.

    Raises:
        UserError: naming the graph, for edges or pairs that leave their graph, features that have not a row for each
            node or edge, or targets that fit neither graphs nor nodes nor pairs.
    """
    data, slices, ids = collated(dataset, name)

    def cut(key: str) -> tuple[np.ndarray, np.ndarray]:
        """The rows of an attribute (the columns of those that hold ends) and how many each graph has."""
        values: Any = data[key]
        if not isinstance(values, Tensor):
            raise UserError(f"{name}: {key} is a {type(values).__name__}, not a tensor")
        array = _array(values)
        array = array[None] if array.ndim == 0 else array
        array = array.T if key in ("edge_index", "edge_label_index") else array
        ptr = np.array([0, len(array)]) if slices is None else np.asarray(slices[key], dtype=np.int64)
        if ptr[-1] != len(array):
            raise UserError(f"{name}: {key} has {len(array)} rows where its graphs take {ptr[-1]}")
        lengths = np.diff(ptr)[ids]
        whole = len(ids) == len(ptr) - 1 and (ids == np.arange(len(ids))).all()
        return array if whole else array[runs(ptr[ids], lengths)], lengths

    keys = {key for key in data.keys() if data[key] is not None}  # noqa: SIM118  iterating gives pairs
    ends, edges = cut("edge_index") if "edge_index" in keys else (np.empty((0, 2), np.int64), np.zeros(len(ids), int))
    sizes = _sizes(data, slices, ids, ends, edges, {key: cut(key)[1] for key in ("x", "pos", "z") if key in keys})
    arrays: dict[str, np.ndarray] = {}
    for key in sorted({"x", "edge_attr", *(f"{word}_mask" for word in THEIRS.values())} & keys):
        arrays[key], rows = cut(key)
        wanted, what = (edges, "edges") if key == "edge_attr" else (sizes, "nodes")
        if (rows != wanted).any():
            graph = int(np.argmax(rows != wanted))
            raise UserError(f"{name}, graph {graph}: {key} has {rows[graph]} rows for {wanted[graph]} {what}")
    _within(ends, edges, sizes, name, "an edge joins")
    if (sizes < 1).any():
        raise UserError(
            f"{name}, graph {int(np.argmin(sizes))} has no nodes: leave it out, of a PyG dataset by "
            "data.dataset.pre_filter"
        )
    y: np.ndarray | None = None
    pairs, asked = np.empty((0, 2), np.int64), np.zeros(len(ids), np.int64)
    if level == "link" or (level is None and "y" not in keys and "edge_label_index" in keys):
        level = "link"
        for key in ("edge_label_index", "edge_label")[: 1 if optional else 2]:
            if key not in keys:
                raise UserError(
                    f"{name}: no {key}, where links take edge_label_index (2, P) and edge_label (P,), 1 or 0"
                )
        pairs, asked = cut("edge_label_index")
        _within(pairs, asked, sizes, name, "edge_label_index names")
        if "edge_label" in keys:
            y, lengths = cut("edge_label")
            if (lengths != asked).any():
                graph = int(np.argmax(lengths != asked))
                raise UserError(f"{name}, graph {graph}: {lengths[graph]} edge_label for {asked[graph]} pairs of nodes")
    elif "y" in keys:
        y, lengths = cut("y")
        y, level = _targets(y, lengths, sizes, name, level)
    elif not optional:
        of_pairs = ": data.level=link reads what is known of pairs of nodes" if "edge_label_index" in keys else ""
        raise UserError(f"{name} has no targets: its graphs hold {', '.join(sorted(keys))} and no y{of_pairs}")
    used = {"x", "edge_index", "edge_attr", "y", *(f"{word}_mask" for word in THEIRS.values())}
    if level == "link":
        used = used - {"y"} | {"edge_label_index", "edge_label"}
    for key in sorted(keys & used):
        if data[key].is_complex():
            raise UserError(
                f"{name}: {key} holds complex numbers: store the real and the imaginary part as real numbers, "
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
        others=sorted(keys - used),
        masks={split: arrays[f"{word}_mask"] for split, word in THEIRS.items() if f"{word}_mask" in arrays},
        pairs=pairs,
        asked=asked,
    )


def _within(ends: np.ndarray, counts: np.ndarray, sizes: np.ndarray, name: str, what: str) -> None:
    """Whether both ends of each row (R, 2) are nodes of its graph; graph g has ``counts[g]`` rows.

    Raises:
        UserError: names the first that are not.
    """
    outside = (ends < 0) | (ends >= np.repeat(sizes, counts)[:, None])
    if outside.any():
        row = int(np.argwhere(outside)[0, 0])
        graph = int(np.searchsorted(np.cumsum(counts), row, side="right"))
        raise UserError(f"{name}, graph {graph}: {what} {ends[row].tolist()} where nodes are 0..{sizes[graph] - 1}")


def _sizes(
    data: Data,
    slices: Mapping[str, Any] | None,
    ids: np.ndarray,
    ends: np.ndarray,
    edges: np.ndarray,
    rows: Mapping[str, np.ndarray],
) -> np.ndarray:
    """(G,) nodes of each graph: as they are told, or as its features have rows, or up to the last with an edge."""
    told = data._store.__dict__.get("_num_nodes")
    if told is not None:
        return np.asarray(told, dtype=np.int64)[ids]
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
    """Targets with a row a graph or a node, and which it is; a flat vector of each graph is a row."""
    by_node, by_graph = (lengths == sizes).all(), (lengths == lengths[0]).all()
    if level == "node" or (level is None and by_node and not (lengths == 1).all()):
        if not by_node:
            graph = int(np.argmax(lengths != sizes))
            raise UserError(f"{name}, graph {graph}: {lengths[graph]} targets for {sizes[graph]} nodes")
        return y, "node"
    if not by_graph or (y.ndim > 1 and lengths[0] != 1):
        graph = int(np.argmax(lengths != lengths[0]))
        raise UserError(
            f"{name}, graph {graph}: y has {lengths[graph]} rows, which is neither one for the graph nor one for each "
            f"of its {sizes[graph]} nodes"
        )
    return (y if lengths[0] == 1 else y.reshape(len(sizes), -1)), "graph"


def joined(parts: Sequence[Part], name: str) -> Part:
    """The graphs of several datasets, one after the other."""

    def rows(key: str) -> np.ndarray | None:
        arrays = [getattr(part, key) for part in parts]
        shapes = {None if values is None else (values.shape[1:], values.dtype.kind) for values in arrays}
        if len(shapes) > 1:
            raise UserError(f"{name}: {key} differs between the splits: {' and '.join(map(str, shapes))}")
        return None if arrays[0] is None else np.concatenate(arrays)

    levels = {part.level for part in parts}
    if len(levels) > 1:
        raise UserError(f"{name}: targets are of {' and '.join(sorted(levels))}s in different splits: set data.level")
    keys = ("sizes", "edges", "x", "edge_attr", "y", "pairs", "asked")
    columns: dict[str, Any] = {key: rows(key) for key in keys}
    edge_index = np.concatenate([part.edge_index for part in parts], axis=1)
    masks = parts[0].masks if len(parts) == 1 else {}
    return Part(edge_index=edge_index, level=parts[0].level, masks=masks, others=parts[0].others, **columns)


def digest(datasets: Mapping[str, Dataset], name: str) -> str:
    """A hash of every tensor of the datasets."""
    total = hashlib.sha256()
    for split, dataset in datasets.items():
        data, slices, ids = collated(dataset, name)
        total.update(repr((split, len(ids))).encode())
        total.update(ids.tobytes())
        for key in sorted(key for key in data.keys() if isinstance(data[key], Tensor)):  # noqa: SIM118
            array = np.ascontiguousarray(_array(data[key]))
            total.update(repr((key, array.dtype.str, array.shape)).encode())
            total.update(array.data if array.size else b"")
            total.update(b"" if slices is None or key not in slices else np.asarray(slices[key]).tobytes())
        total.update(repr(data._store.__dict__.get("_num_nodes")).encode())
    return total.hexdigest()
