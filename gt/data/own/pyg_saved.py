"""Graphs of PyTorch Geometric in a file of ``torch.save``, read without executing anything in the file."""

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
from gt.schema import format_list

# the classes in a saved `Data` or `HeteroData`, tensors aside
SAFE_CLASSES = [Data, HeteroData, BaseStorage, GlobalStorage, NodeStorage, EdgeStorage, DataTensorAttr, DataEdgeAttr]
ADVICE = (
    "save plain Data, a list of them, or their dictionaries, torch.save([graph.to_dict() for graph in graphs], path), "
    "with nothing but tensors, numbers and text; convert NumPy values by torch.as_tensor(value)"
)
MAX_LISTED = 3  # names in an error message
ENDS = ("edge_index", "edge_label_index")
# the attributes that are read; pos, z and num_nodes only for the number of nodes
READ_KEYS = {
    *ENDS, "x", "edge_attr", "y", "edge_label", "train_mask", "val_mask", "test_mask", "pos", "z", "num_nodes",
}  # fmt: skip


def saved_graphs(path: str) -> InMemoryDataset:
    """Load the graphs in a file as a PyG dataset.

    Args:
        path: a file of ``torch.save`` with a `Data`, a `HeteroData`, the ``to_dict()`` of either, or a list of these;
            or a file of `InMemoryDataset.save` with `Data`.

    Raises:
        UserError: no such file, or one with other content; names a graph without ``edge_index``, with tensors that do
            not match those of the others, or with a tensor of an impossible shape.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}: set data.path to an existing one")
    content = load_tensors(Path(path), ADVICE, SAFE_CLASSES)
    dataset = InMemoryDataset()
    items = [_as_hetero(item) for item in (content if isinstance(content, list | tuple) else [content])]
    if items and all(isinstance(item, HeteroData) for item in items):
        content = of_one_type(items, path)
        content = content if len(content) > 1 else content[0]
    if _is_collated(content):
        data = _to_data(content[0], path)
        dataset.slices = content[1] if content[1] is None else _slices(data, content[1], path)
    elif isinstance(content, list | tuple):
        if not content:
            raise UserError(f"{path} holds no graphs")
        graphs = [_to_data(item, f"{path}, graph {number}") for number, item in enumerate(content)]
        data, dataset.slices = InMemoryDataset.collate(without_unshared(graphs, path))
    else:
        data = _to_data(content, path)
    dataset._data = data
    return dataset


def _as_hetero(item: Any) -> Any:
    """An item; or a `HeteroData`, if it is the dictionary of one: by node types and, as triples, edge types."""
    edges = [key for key in item if isinstance(key, tuple)] if isinstance(item, dict) else []
    if not edges or any(len(key) != 3 for key in edges):
        return item
    stores = all(isinstance(store, dict) and all(isinstance(name, str) for name in store) for store in item.values())
    return HeteroData.from_dict(item) if stores else item


def _is_collated(content: Any) -> bool:
    """Whether the content is collated graphs with their slices, rather than a tuple of graphs."""
    if not isinstance(content, tuple) or len(content) not in (2, 3) or not isinstance(content[1], dict | None):
        return False
    return isinstance(content[0], Data) or content[2:] == (Data,)


def _to_data(item: Any, location: str) -> Data:
    """Copy an item into a new `Data`.

    Raises:
        UserError: it is not a graph, or an index tensor is not (2, E).
    """
    try:
        values = item.to_dict() if isinstance(item, Data) else item
    except (AttributeError, RuntimeError):  # saved without any content
        raise UserError(f"{location}: an empty Data: {ADVICE}") from None
    if not isinstance(values, dict):
        raise UserError(f"{location}: {type(item).__name__} is not a graph: {ADVICE}")
    if "edge_index" not in values and values and all(map(_is_graphs, values.values())):
        raise UserError(
            f"{location} is a dictionary of graphs by {format_list(list(map(str, values)), MAX_LISTED)}: save a single "
            "list, which is split at random; for your own split write a PyG class with a split, "
            "data.dataset._target_=CLASS"
        )
    graph = Data.from_dict({str(key): _densified(key, value) for key, value in values.items() if value is not None})
    if isinstance(item, Data) and (sizes := vars(item._store).get("_num_nodes")) is not None:
        graph._num_nodes = sizes  # of collated graphs, which a dictionary does not keep
    if "x" in graph and graph.get("num_nodes") == len(graph["x"]):
        del graph["num_nodes"]  # redundant
    if "edge_index" not in graph:
        raise UserError(f"{location} has no edge_index (2, E): add an empty one, (2, 0), if there are no edges")
    for key in ENDS:
        if key in graph and not (
            isinstance(ends := graph[key], Tensor) and ends.ndim == 2 and len(ends) == 2 and _is_integer(ends.dtype)
        ):
            raise UserError(f"{location}: {key} is {_described(ends)}, but must be integers (2, E), a column per edge")
    return graph


def _densified(key: Any, value: Any) -> Any:
    """Densify an attribute that is read, if it is sparse: PyG cannot collate sparse tensors."""
    sparse = key in READ_KEYS and isinstance(value, Tensor) and value.layout != torch.strided
    return value.to_dense() if sparse else value


def _is_graphs(value: Any) -> bool:
    """Whether a value is a graph or a list of graphs, and so not an attribute of a graph."""
    first = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(first, Data) or (isinstance(first, dict) and "edge_index" in first)


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _described(value: Any) -> str:
    """Describe a tensor by dtype and shape, ``float32 (3, 2)``, anything else by its type."""
    if not isinstance(value, Tensor):
        return "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"
    return f"{value.dtype}".removeprefix("torch.") + f" {tuple(value.shape)}"


def _signature(key: str, value: Any) -> Any:
    """The properties of an attribute that must agree among graphs to collate it."""
    if not isinstance(value, Tensor):
        return _described(value)
    shape = list(value.shape)
    if shape:
        shape[-1 if key in ENDS else 0] = -1
    return value.dtype, tuple(shape)


def without_unshared(graphs: list[Data], path: str) -> list[Data]:
    """The graphs without attributes that cannot be collated.

    Raises:
        UserError: an attribute that is read cannot be collated.
    """
    first = graphs[0].to_dict()
    dropped: set[str] = set()
    for number, graph in enumerate(graphs[1:], 1):
        values = graph.to_dict()
        lacking = first.keys() ^ values.keys()
        other = {
            key for key in first.keys() & values.keys() if _signature(key, first[key]) != _signature(key, values[key])
        }
        # a graph without features often has num_nodes instead: report the features
        if key := min((lacking | other) & READ_KEYS, key=lambda k: (k == "num_nodes", k), default=None):
            descriptions = [_described(each[key]) if key in each else "missing" for each in (values, first)]
            raise UserError(f"{path}, graph {number}: {key} is {descriptions[0]}, but in graph 0 {descriptions[1]}")
        dropped |= lacking | other
    return [Data.from_dict({k: v for k, v in graph.to_dict().items() if k not in dropped}) for graph in graphs]


def _slices(data: Data, slices: Mapping[str, Any], path: str) -> dict[str, Tensor]:
    """The slices of all attributes that are read.

    Raises:
        UserError: names an attribute that is not sliced into as many graphs as the others.
    """
    result: dict[str, Tensor] = {}
    for key in sorted(READ_KEYS.intersection(data.keys()) - {"num_nodes"}):
        ptr, rows = torch.as_tensor(slices.get(key, ())), data[key].shape[-1 if key in ENDS else 0]
        agree = all(len(ptr) == len(other) for other in result.values())
        if not (agree and ptr.ndim == 1 and len(ptr) and ptr[0] == 0 and ptr[-1] == rows and (ptr.diff() >= 0).all()):
            raise UserError(f"{path}: the slices do not divide {key} into graphs: save a list of Data instead")
        result[key] = ptr
    sizes = vars(data._store).get("_num_nodes")
    if sizes is not None and len(sizes) != len(result["edge_index"]) - 1:
        raise UserError(f"{path}: num_nodes has {len(sizes)} graphs, unlike the slices: save a list of Data instead")
    return result
