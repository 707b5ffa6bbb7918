"""`GraphBatch`: a batch of graphs packed into one, the only type that passes from data to model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor

from gt.schema import pluralise
from gt.transforms import outside_transforms, tracing

if TYPE_CHECKING:
    from torch_geometric.data import Data

T = TypeVar("T")
Move = Callable[[Tensor], Tensor]  # to another device, or to pinned memory
WHOLE_DEGREES = "degrees in the whole graph"  # memo key of batches that hold only some of the edges


class lasting(cached_property[T]):
    """A `functools.cached_property` that is safe to reuse in any later pass, see `outside_transforms`."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        compute = super().__get__
        return outside_transforms(lambda: compute(instance, owner))


@dataclass
class GraphBatch:
    """B graphs with N nodes and E edges in total, packed without padding; field names follow PyG.

    Attributes:
        ptr: (B + 1,) int64; graph b owns nodes ``ptr[b]:ptr[b + 1]``.
        edge_index: (2, E) int64, sorted by target; row 0 holds sources, which are read, row 1 targets, which read them.
        max_nodes: nodes of the largest graph, a Python int so that shapes need no device synchronisation.
        x: (N, F) node features; edge_attr: (E, F') edge features; y: targets, one row per graph, node or link.
        links: (2, K) int64, pairs of nodes with a target: whether, or how, they are linked.
        node_mask: (N,) bool, False at nodes that pad to a static shape; None if every node is real.
        padding: numbers of graphs and of nodes at the end that pad to a static shape; Python ints.
        extras: other tensors with one row per node, such as precomputed encodings.
        memo: cache of what is derived from this batch: tensors, or objects whose ``moved(move, batch)`` returns their
            equivalent for this batch on another device.
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
        """Counts, and tensors by their shapes, as in PyG."""
        fields = {"x": self.x, "edge_attr": self.edge_attr, "y": self.y, "links": self.links, **self.extras}
        shapes = [f"{name}={list(values.shape)}" for name, values in fields.items() if values is not None]
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
        """Whether every graph has ``max_nodes`` nodes, so that the dense view is a reshape."""
        return self.num_nodes == self.num_graphs * self.max_nodes

    @property
    def num_edges(self) -> int:
        return self.edge_index.shape[1]

    @property
    def device(self) -> torch.device:
        return self.ptr.device

    @lasting
    def sizes(self) -> Tensor:
        """(B,) number of nodes of each graph."""
        return self.ptr.diff()

    @lasting
    def batch(self) -> Tensor:
        """(N,) graph index of each node."""
        graphs = torch.arange(self.num_graphs, device=self.device)
        return graphs.repeat_interleave(self.sizes)

    @lasting
    def position(self) -> Tensor:
        """(N,) index of each node within its graph."""
        return torch.arange(self.num_nodes, device=self.device) - self.ptr[self.batch]

    @lasting
    def slot(self) -> Tensor:
        """(N,) row of each node in the dense view (B * L, ...), L = max_nodes."""
        return self.batch * self.max_nodes + self.position

    @lasting
    def in_degree(self) -> Tensor:
        """(N,) int64, number of incoming edges, which a node reads."""
        return self.rowptr.diff()

    @property
    def out_degree(self) -> Tensor:
        """(N,) int64, number of outgoing edges, which read a node."""
        source = self.edge_index[0]
        # torch.bincount would synchronise with the device to learn the length of its output
        return torch.zeros_like(self.in_degree).index_add_(0, source, torch.ones_like(source))

    @property
    def whole_degrees(self) -> tuple[Tensor, Tensor]:
        """(N,) in-degrees and (N,) out-degrees, those in the whole graph if this batch holds only some of its edges."""
        if WHOLE_DEGREES in self.memo:
            return self.memo[WHOLE_DEGREES].unbind()
        return self.in_degree, self.out_degree

    @lasting
    def rowptr(self) -> Tensor:
        """(N + 1,) CSR offsets: edges ``rowptr[n]:rowptr[n + 1]`` have target n."""
        nodes = torch.arange(self.num_nodes + 1, device=self.device)
        return torch.searchsorted(self.edge_index[1].contiguous(), nodes)

    @lasting
    def edge_mask(self) -> Tensor | None:
        """(E,) bool, False at edges that pad to a static shape; None if every edge is real."""
        return None if self.node_mask is None else self.node_mask[self.edge_index[1]]

    @lasting
    def graph_mask(self) -> Tensor | None:
        """(B,) bool, False at graphs that pad to a static shape; None if every graph is real."""
        if self.node_mask is None:
            return None
        return self.node_mask.new_zeros(self.num_graphs).scatter(0, self.batch, self.node_mask)

    def to_dense(self, values: Tensor) -> Tensor:
        """(N, ...) packed rows to (B, L, ...), zero-padded."""
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
        """The entry of `memo` under this key; calls ``make`` if it is missing. Compiled code keeps nothing new."""
        if key not in self.memo:
            value = outside_transforms(make)
            if tracing():
                return value
            self.memo[key] = value
        return self.memo[key]

    def finish(self) -> Self:
        """Precompute every index that a model needs, so that no layer synchronises with the device; returns self."""
        _ = self.slot, self.rowptr, self.in_degree, self.edge_mask, self.graph_mask, self.equal_sizes
        return self

    def repeated(self, count: int) -> GraphBatch:
        """``count`` copies of these graphs as one batch, without targets or memo."""
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
        """A copy with ``move`` applied to every tensor, cached ones and those in the memo included."""
        out = copy(self)
        out.num_nodes = self.num_nodes  # computing it on the new device would synchronise
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
        """Pack PyG graphs; other node-level tensors than x, edge_index, edge_attr and y become extras.

        Raises:
            ValueError: no graphs, an edge that points outside its graph, or a field that some graphs lack or that does
                not have one row per node or edge.
        """
        if hasattr(graphs, "edge_index"):
            raise ValueError(
                f"expected a list of graphs, not a {type(graphs).__name__}: pass [graph] or batch.to_data_list()"
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
                actual = f"{tuple(index.shape)} of {index.dtype}"
                raise ValueError(f"graph {number} has an edge_index {actual}; expected (2, edges) of torch.int64")
            if index.numel() and (int(index.min()) < 0 or int(index.max()) >= size):
                raise ValueError(f"graph {number} has an edge to a node outside 0..{size - 1}")
            indices.append(index + ptr[number])
        edge_index = torch.cat(indices, dim=1)
        order = (edge_index[1] * int(ptr[-1]) + edge_index[0]).argsort(stable=True)

        def concatenated(name: str) -> Tensor | None:
            values = [graph.get(name) for graph in graphs]
            rows = [torch.atleast_1d(torch.as_tensor(value)) for value in values if value is not None]
            counts = [index.shape[1] for index in indices] if name == "edge_attr" else sizes
            for number, (value, count) in enumerate(zip(values, counts, strict=True)):
                if rows and value is None and not (name == "edge_attr" and count == 0):
                    raise ValueError(f"graph {number} has no {name}, but other graphs of the batch do")
                if value is not None and name != "y" and len(value) != count:
                    unit = "edge" if name == "edge_attr" else "node"
                    raise ValueError(f"graph {number} has {len(value)} rows of {name} for {pluralise(count, unit)}")
            return torch.cat(rows) if rows else None

        standard = {"x", "edge_index", "edge_attr", "y", "ptr", "batch"}
        names = dict.fromkeys(
            name
            for graph in graphs
            for name, value in graph.to_dict().items()
            if isinstance(value, Tensor) and graph.is_node_attr(name)
        )
        extras = {name: values for name in names if name not in standard and (values := concatenated(name)) is not None}
        edge_attr = concatenated("edge_attr")
        return cls(
            ptr=ptr,
            edge_index=edge_index[:, order],
            max_nodes=max(sizes),
            x=concatenated("x"),
            edge_attr=None if edge_attr is None else edge_attr[order],
            y=concatenated("y"),
            extras=extras,
        ).finish()

    def to_data_list(self) -> list[Data]:
        """Unpack into PyG graphs, with nodes numbered from 0 in each."""
        from torch_geometric.data import Data  # takes two seconds to import, and few runs need it

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
    """Paths of the given lengths, without features; node i reads node i - 1, so edges are causal."""
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    target = torch.arange(int(ptr[-1]))
    target = target[~torch.isin(target, ptr)]
    return GraphBatch(
        ptr=ptr,
        edge_index=torch.stack([target - 1, target]),
        max_nodes=max(sizes),
    ).finish()
