"""Graphs of PyTorch Geometric in a file of ``torch.save``, read without running anything that the file holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData, InMemoryDataset
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

from gt.data.own.pyg_types import of_one_type
from gt.data.reading import load_tensors
from gt.errors import UserError
from gt.schema import several

# what a `Data` and a `HeteroData` are made of in a file, tensors aside
PARTS = [Data, HeteroData, BaseStorage, GlobalStorage, NodeStorage, EdgeStorage, DataTensorAttr, DataEdgeAttr]
ADVICE = (
    "save plain Data, a list of them, or their dictionaries, torch.save([graph.to_dict() for graph in graphs], path), "
    "which hold tensors, numbers and text alone; of a NumPy value, torch.as_tensor(value)"
)
FEW = 3  # names in a message
ENDS = ("edge_index", "edge_label_index")
# all that is read; by positions, numbers of atoms and a number of nodes how many nodes there are
ALIKE = {
    *ENDS, "x", "edge_attr", "y", "edge_label", "train_mask", "val_mask", "test_mask", "pos", "z", "num_nodes",
}  # fmt: skip


def saved_graphs(path: str) -> InMemoryDataset:
    """The graphs in a file, as a dataset of PyG.

    Args:
        path: of what ``torch.save`` made of a `Data`, a `HeteroData`, the ``to_dict()`` of either, or a list of one of
            these; or of what `InMemoryDataset.save` writes of `Data`.

    Raises:
        UserError: no such file; it holds anything else; a graph without ``edge_index``, one whose tensors do not fit in
            with the others', or a shape that no such tensor has: names it.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}: set data.path to an existing one")
    content = load_tensors(Path(path), ADVICE, PARTS)
    dataset = InMemoryDataset()
    several = [_typed(item) for item in (content if isinstance(content, list | tuple) else [content])]
    if several and all(isinstance(item, HeteroData) for item in several):
        content = of_one_type(several, path)
        content = content if len(content) > 1 else content[0]
    if _is_collated(content):
        data = _plain(content[0], path)
        dataset.slices = content[1] if content[1] is None else _slices(data, content[1], path)
    elif isinstance(content, list | tuple):
        if not content:
            raise UserError(f"{path} holds no graphs")
        graphs = [_plain(item, f"{path}, graph {number}") for number, item in enumerate(content)]
        data, dataset.slices = InMemoryDataset.collate(alike(graphs, path))
    else:
        data = _plain(content, path)
    dataset._data = data
    return dataset


def _typed(item: Any) -> Any:
    """An item, or the `HeteroData` whose dictionary it is: by types of nodes and, in threes, of edges."""
    edges = [key for key in item if isinstance(key, tuple)] if isinstance(item, dict) else []
    if not edges or any(len(key) != 3 for key in edges):
        return item
    stores = all(isinstance(store, dict) and all(isinstance(name, str) for name in store) for store in item.values())
    return HeteroData.from_dict(item) if stores else item


def _is_collated(content: Any) -> bool:
    """Whether graphs lie one after the other, with where each begins: of a list of dictionaries none is a class."""
    if not isinstance(content, tuple) or len(content) not in (2, 3) or not isinstance(content[1], dict | None):
        return False
    return isinstance(content[0], Data) or content[2:] == (Data,)


def _plain(item: Any, where: str) -> Data:
    """What an item says, in a new `Data`.

    Raises:
        UserError: it is none, or its ends of edges are not (2, E).
    """
    try:
        values = item.to_dict() if isinstance(item, Data) else item
    except (AttributeError, RuntimeError):  # of which nothing was saved
        raise UserError(f"{where}: a Data that holds nothing: {ADVICE}") from None
    if not isinstance(values, dict):
        raise UserError(f"{where}: {type(item).__name__} is no graph: {ADVICE}")
    if "edge_index" not in values and values and all(map(_is_several, values.values())):
        raise UserError(
            f"{where} is a dictionary of graphs by {several(list(map(str, values)), FEW)}: save one list of them, "
            "which is split at random; a split of your own takes a class of PyG with split, data.dataset._target_=CLASS"
        )
    graph = Data.from_dict({str(key): _dense(key, value) for key, value in values.items() if value is not None})
    if isinstance(item, Data) and (sizes := vars(item._store).get("_num_nodes")) is not None:
        graph._num_nodes = sizes  # of graphs that lie one after the other, which a dictionary does not keep
    if "x" in graph and graph.get("num_nodes") == len(graph["x"]):
        del graph["num_nodes"]  # which says nothing new
    if "edge_index" not in graph:
        raise UserError(f"{where} has no edge_index (2, E): give it an empty one, (2, 0), if no nodes are joined")
    for key in ENDS:
        if key in graph and not (
            isinstance(ends := graph[key], Tensor) and ends.ndim == 2 and len(ends) == 2 and _whole(ends.dtype)
        ):
            raise UserError(
                f"{where}: {key} is {_shown(ends)}, where whole numbers (2, E) are needed, a column an edge"
            )
    return graph


def _dense(key: Any, value: Any) -> Any:
    """An attribute that is read, filled up where it is sparse, which PyG does not lay one after the other."""
    sparse = key in ALIKE and isinstance(value, Tensor) and value.layout != torch.strided
    return value.to_dense() if sparse else value


def _is_several(value: Any) -> bool:
    """Whether a value is a graph or a list of graphs, and so no attribute of one."""
    first = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(first, Data) or (isinstance(first, dict) and "edge_index" in first)


def _whole(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _shown(value: Any) -> str:
    """A tensor by its type and shape, ``float32 (3, 2)``; anything else by its type."""
    if not isinstance(value, Tensor):
        return "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"
    return f"{value.dtype}".removeprefix("torch.") + f" {tuple(value.shape)}"


def _form(key: str, value: Any) -> Any:
    """What an attribute has to have in common among graphs that are laid one after the other."""
    if not isinstance(value, Tensor):
        return _shown(value)
    shape = list(value.shape)
    if shape:
        shape[-1 if key in ENDS else 0] = -1
    return value.dtype, tuple(shape)


def alike(graphs: list[Data], path: str) -> list[Data]:
    """The graphs without what not all of them have alike, unless it is read.

    Raises:
        UserError: that is read.
    """
    first = graphs[0].to_dict()
    left: set[str] = set()
    for number, graph in enumerate(graphs[1:], 1):
        values = graph.to_dict()
        lacking = first.keys() ^ values.keys()
        other = {key for key in first.keys() & values.keys() if _form(key, first[key]) != _form(key, values[key])}
        # what lacks features often has a number of nodes instead
        if wrong := min((lacking | other) & ALIKE, key=lambda key: (key == "num_nodes", key), default=None):
            said = [_shown(each[wrong]) if wrong in each else "missing" for each in (values, first)]
            raise UserError(f"{path}, graph {number}: {wrong} is {said[0]}, and in graph 0 {said[1]}")
        left |= lacking | other
    return [Data.from_dict({k: v for k, v in graph.to_dict().items() if k not in left}) for graph in graphs]


def _slices(data: Data, slices: Mapping[str, Any], path: str) -> dict[str, Tensor]:
    """Where each of the graphs begins and the last one ends in all that is read.

    Raises:
        UserError: names what is not cut into as many graphs as the rest.
    """
    found: dict[str, Tensor] = {}
    for key in sorted(ALIKE.intersection(data.keys()) - {"num_nodes"}):
        ptr, rows = torch.as_tensor(slices.get(key, ())), data[key].shape[-1 if key in ENDS else 0]
        alike = all(len(ptr) == len(other) for other in found.values())
        if not (alike and ptr.ndim == 1 and len(ptr) and ptr[0] == 0 and ptr[-1] == rows and (ptr.diff() >= 0).all()):
            raise UserError(f"{path}: its slices do not cut {key} into graphs: save a list of Data instead")
        found[key] = ptr
    sizes = vars(data._store).get("_num_nodes")
    if sizes is not None and len(sizes) != len(found["edge_index"]) - 1:
        raise UserError(
            f"{path}: it has {len(sizes)} graphs by num_nodes, and other slices: save a list of Data instead"
        )
    return found
