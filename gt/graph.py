"""`GraphBatch`: many graphs as one, the only thing that flows from data to model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor

from gt.schema import many
from gt.transforms import outside

if TYPE_CHECKING:
    from torch_geometric.data import Data

T = TypeVar("T")
Move = Callable[[Tensor], Tensor]  # to another device or kind of memory
WHOLE_DEGREES = "degrees in the whole graph"  # in the memo of a batch that has some of its edges alone


class lasting(cached_property[T]):
    """A `functools.cached_property` that any later pass may use, whichever asks for it first: see `outside`."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        first = super().__get__
        return outside(lambda: first(instance, owner))


@dataclass
class GraphBatch:
    """B graphs with N nodes and E edges in all, packed without padding; field names are PyG's.

    Attributes:
        ptr: (B + 1,) int64; graph b owns nodes ``ptr[b]:ptr[b + 1]``.
        edge_index: (2, E) int64, row 0 the source that is read, row 1 the target that reads, sorted by target.
        max_nodes: nodes of the largest graph, a Python int so that shapes never wait for a device.
        x: (N, F) node features; edge_attr: (E, F') edge features; y: targets, a row a graph, a node or a link.
        links: (2, K) int64, pairs of nodes that have a target: whether, or how, they are joined.
        node_mask: (N,) bool, False at nodes that only fill a static shape; None where every node is real.
        padding: how many graphs, and nodes, at the end only fill a static shape; Python ints.
        extras: any other tensor with a row a node, such as a precomputed encoding.
        memo: what others work out of this batch, so that each does it once: tensors, or objects whose
            ``moved(move, batch)`` gives the same for this batch on another device.
    """

    ptr: Tensor
    edge_index: Tensor
    max_nodes: int
    x: Tensor | None = None
    edge_attr: Tensor | None = None
    y: Tensor | None = None
    links: Tensor | None = None
    node_mask: Tensor | None = None
    padding: tuple[int, int] = (0, 0)
    extras: dict[str, Tensor] = field(default_factory=dict)
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        """How much there is of what; as of PyG's batches, tensors by their shapes."""
        held = {"x": self.x, "edge_attr": self.edge_attr, "y": self.y, "links": self.links, **self.extras}
        shapes = [f"{name}={list(values.shape)}" for name, values in held.items() if values is not None]
        counts = [f"graphs={self.num_graphs}", f"nodes={self.num_nodes}", f"edges={self.num_edges}"]
        return f"{type(self).__name__}({', '.join(counts + shapes)})"

    @property
    def num_graphs(self) -> int:
        return self.ptr.numel() - 1

    @cached_property
    def num_nodes(self) -> int:
        return self.batch.numel()

    @cached_property
    def equal_sizes(self) -> bool:
        """Whether every graph has ``max_nodes`` nodes: the dense view is then a reshape."""
        return self.num_nodes == self.num_graphs * self.max_nodes

    @property
    def num_edges(self) -> int:
        return self.edge_index.shape[1]

    @property
    def device(self) -> torch.device:
        return self.ptr.device

    @lasting
    def sizes(self) -> Tensor:
        """(B,) nodes of each graph."""
        return self.ptr.diff()

    @lasting
    def batch(self) -> Tensor:
        """(N,) the graph of each node."""
        graphs = torch.arange(self.num_graphs, device=self.device)
        return graphs.repeat_interleave(self.sizes)

    @lasting
    def position(self) -> Tensor:
        """(N,) the place of each node within its graph, from 0."""
        return torch.arange(self.num_nodes, device=self.device) - self.ptr[self.batch]

    @lasting
    def slot(self) -> Tensor:
        """(N,) the row of each node in the dense view (B * L, ...), L = max_nodes."""
        return self.batch * self.max_nodes + self.position

    @lasting
    def in_degree(self) -> Tensor:
        """(N,) int64, edges that each node reads."""
        return self.rowptr.diff()

    @property
    def out_degree(self) -> Tensor:
        """(N,) int64, edges that read each node."""
        source = self.edge_index[0]
        # torch.bincount would wait for the device to learn its output's length
        return torch.zeros_like(self.in_degree).index_add_(0, source, torch.ones_like(source))

    @property
    def whole_degrees(self) -> tuple[Tensor, Tensor]:
        """(N,) the in-degree and (N,) the out-degree, in the whole graph where the memo of a part of it has them."""
        if WHOLE_DEGREES in self.memo:
            return self.memo[WHOLE_DEGREES].unbind()
        return self.in_degree, self.out_degree

    @lasting
    def rowptr(self) -> Tensor:
        """(N + 1,) offsets into the edges of each target."""
        nodes = torch.arange(self.num_nodes + 1, device=self.device)
        return torch.searchsorted(self.edge_index[1].contiguous(), nodes)

    @lasting
    def edge_mask(self) -> Tensor | None:
        """(E,) bool, False at edges that only fill a static shape; None where every edge is real."""
        return None if self.node_mask is None else self.node_mask[self.edge_index[1]]

    @lasting
    def graph_mask(self) -> Tensor | None:
        """(B,) bool, False at graphs that only fill a static shape; None where every graph is real."""
        if self.node_mask is None:
            return None
        return self.node_mask.new_zeros(self.num_graphs).scatter(0, self.batch, self.node_mask)

    def to_dense(self, values: Tensor) -> Tensor:
        """(N, ...) packed rows to (B, L, ...), zeros where a graph is shorter than L."""
        shape = (self.num_graphs, self.max_nodes, *values.shape[1:])
        if self.equal_sizes:
            return values.reshape(shape)
        rows = values.new_zeros(self.num_graphs * self.max_nodes, *values.shape[1:])
        return rows.index_copy(0, self.slot, values).view(shape)

    def to_packed(self, dense: Tensor) -> Tensor:
        """(B, L, ...) to (N, ...): the inverse of `to_dense`."""
        rows = dense.reshape(self.num_graphs * self.max_nodes, *dense.shape[2:])
        return rows if self.equal_sizes else rows.index_select(0, self.slot)

    def cached(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `memo` holds under this key, made now if it holds nothing."""
        if key not in self.memo:
            self.memo[key] = outside(make)
        return self.memo[key]

    def finish(self) -> Self:
        """Compute every index a model asks for, so that no layer does and no device is waited for; returns self."""
        _ = self.slot, self.rowptr, self.in_degree, self.edge_mask, self.graph_mask, self.equal_sizes
        return self

    def repeated(self, count: int) -> GraphBatch:
        """So many copies of these graphs as one batch, without targets and without a memo."""
        shifts = self.num_nodes * torch.arange(count, device=self.device)
        return GraphBatch(
            ptr=torch.cat([self.ptr[:1], (self.ptr[1:] + shifts[:, None]).flatten()]),
            edge_index=(self.edge_index[:, None] + shifts[:, None]).flatten(1),
            max_nodes=self.max_nodes,
            x=None if self.x is None else self.x.repeat(count, 1),
            edge_attr=None if self.edge_attr is None else self.edge_attr.repeat(count, 1),
            extras={name: values.repeat(count, *[1] * (values.dim() - 1)) for name, values in self.extras.items()},
        ).finish()

    def apply(self, move: Move) -> Self:
        """The same batch with ``move`` applied to every tensor, those already derived and the memo's included."""
        out = copy(self)
        out.num_nodes = self.num_nodes  # a Python int must not wait for the new device
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(out, name, move(value))
        out.extras = {name: move(value) for name, value in self.extras.items()}
        out.memo = {
            key: value.moved(move, out) if hasattr(value, "moved") else move(value) for key, value in self.memo.items()
        }
        return out

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self.apply(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self.apply(lambda tensor: tensor.pin_memory())

    @classmethod
    def from_data_list(cls, graphs: Iterable[Data]) -> GraphBatch:
        """Pack PyG graphs; tensors beyond x, edge_index, edge_attr and y with a row a node become extras.

        Raises:
            ValueError: no graphs, an edge that points outside its graph, a field that some graphs lack, or one that
                has not a row for each node, or edge.
        """
        if hasattr(graphs, "edge_index"):
            raise ValueError(
                f"a {type(graphs).__name__} is no list of graphs: [graph], or batch.to_data_list(), is one"
            )
        graphs = list(graphs)
        if not graphs:
            raise ValueError("a batch needs at least one graph")
        sizes = [int(graph.num_nodes or 0) for graph in graphs]
        ptr = torch.tensor([0, *sizes]).cumsum(0)
        indices = []
        for number, (graph, size) in enumerate(zip(graphs, sizes, strict=True)):
            index = graph.edge_index if graph.edge_index is not None else torch.empty(2, 0, dtype=torch.long)
            if index.dim() != 2 or len(index) != 2 or index.is_floating_point():
                wrong = f"{tuple(index.shape)} of {index.dtype}"
                raise ValueError(f"graph {number} has an edge_index {wrong}, which should be (2, edges) of torch.int64")
            if index.numel() and (int(index.min()) < 0 or int(index.max()) >= size):
                raise ValueError(f"graph {number} has an edge to a node outside 0..{size - 1}")
            indices.append(index + ptr[number])
        edge_index = torch.cat(indices, dim=1)
        order = (edge_index[1] * int(ptr[-1]) + edge_index[0]).argsort(stable=True)

        def joined(name: str) -> Tensor | None:
            values = [graph.get(name) for graph in graphs]
            rows = [torch.atleast_1d(torch.as_tensor(value)) for value in values if value is not None]
            counts = [index.shape[1] for index in indices] if name == "edge_attr" else sizes
            for number, (value, count) in enumerate(zip(values, counts, strict=True)):
                if rows and value is None and not (name == "edge_attr" and count == 0):
                    raise ValueError(f"graph {number} has no {name}, which others of the batch have")
                if value is not None and name != "y" and len(value) != count:
                    of = "edge" if name == "edge_attr" else "node"
                    raise ValueError(f"graph {number} has {len(value)} rows of {name}, and {many(count, of)}")
            return torch.cat(rows) if rows else None

        known = {"x", "edge_index", "edge_attr", "y", "ptr", "batch"}
        names = dict.fromkeys(
            name
            for graph in graphs
            for name, value in graph.to_dict().items()
            if isinstance(value, Tensor) and graph.is_node_attr(name)
        )
        extras = {name: values for name in names if name not in known and (values := joined(name)) is not None}
        edge_attr = joined("edge_attr")
        return cls(
            ptr=ptr,
            edge_index=edge_index[:, order],
            max_nodes=max(sizes),
            x=joined("x"),
            edge_attr=None if edge_attr is None else edge_attr[order],
            y=joined("y"),
            extras=extras,
        ).finish()

    def to_data_list(self) -> list[Data]:
        """One PyG graph for each graph of the batch, edges numbered from 0 again."""
        from torch_geometric.data import Data  # takes two seconds to import, which few runs need

        graphs = []
        starts = self.ptr.tolist()
        edge_ptr = self.rowptr[self.ptr].tolist()
        for b, (low, high) in enumerate(pairwise(starts)):
            edges = slice(edge_ptr[b], edge_ptr[b + 1])
            data = Data(edge_index=self.edge_index[:, edges] - low, num_nodes=high - low)
            for name, values in (("x", self.x), *self.extras.items()):
                if values is not None:
                    data[name] = values[low:high]
            if self.edge_attr is not None:
                data.edge_attr = self.edge_attr[edges]
            if self.y is not None:
                data.y = self.y[low:high] if len(self.y) == self.num_nodes else self.y[b : b + 1]
            graphs.append(data)
        return graphs


def path_graphs(sizes: Sequence[int]) -> GraphBatch:
    """Paths of the given lengths, without features; node i reads node i - 1, so that edges never look ahead."""
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    target = torch.arange(int(ptr[-1]))
    target = target[~torch.isin(target, ptr)]
    return GraphBatch(
        ptr=ptr,
        edge_index=torch.stack([target - 1, target]),
        max_nodes=max(sizes),
    ).finish()
