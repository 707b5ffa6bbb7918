"""How many cycles of each length go through a node: what message passing cannot count, and chemistry goes by."""

from typing import Any

import numpy as np
from torch import Tensor

from gt.encodings.base import Encoding, PackedGraphs, Progress, precomputed
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.linear import Linear
from gt.schema import Schema

STARTS = 1 << 14  # nodes that paths start from at a time
MOST = 20_000_000  # paths held at a time: some gigabytes


class Cycles(Encoding):
    """The logarithm of 1 plus the number of simple cycles of 3, 4, ..., ``length`` nodes through each node.

    Of the undirected simple graph: directions, repeats and loops are dropped. Its features are a linear map.

    Args:
        length: nodes of the longest cycles; their number grows fast with it where graphs are dense.

    Raises:
        UserError: when computed: a dataset with too many paths of this length.
    """

    arrays = ("cycles",)

    def __init__(self, length: int = 8) -> None:
        super().__init__()
        if length < 3:
            raise UserError(f"the length of cycles must be 3 or more, not {length}")
        self.length = length

    def key(self) -> dict[str, Any]:
        return {"name": "cycles", "version": 1, "length": self.length}

    def compute(self, graphs: PackedGraphs, progress: Progress = iter) -> dict[str, np.ndarray]:
        nodes = int(graphs.node_ptr[-1])
        first = np.repeat(graphs.node_ptr[:-1], np.diff(graphs.edge_ptr))
        one, other = graphs.edge_index.astype(np.int64) + first
        apart = one != other
        key = np.unique(np.concatenate([one[apart] * nodes + other[apart], other[apart] * nodes + one[apart]]))
        ptr = np.searchsorted(key, np.arange(nodes + 1) * nodes)
        count = np.zeros((nodes, self.length - 2))
        for low in progress(range(0, nodes, STARTS)):
            for size, cycle in cycles_from(np.arange(low, min(low + STARTS, nodes)), key, ptr, self.length):
                np.add.at(count[:, size - 3], cycle.ravel(), 0.5)  # each is there in both directions
        return {"cycles": np.log1p(count).astype(np.float32)}

    def build(self, width: int, schema: Schema) -> None:
        self.linear = Linear(self.length - 2, width)

    def nodes(self, batch: GraphBatch) -> Tensor:
        return self.linear(precomputed(batch, "cycles").to(self.linear.weight.dtype))


def cycles_from(starts: np.ndarray, key: np.ndarray, ptr: np.ndarray, length: int) -> list[tuple[int, np.ndarray]]:
    """For each size from 3 on the cycles (C, size) whose smallest node is a start, each in both directions.

    Args:
        starts: (S,) nodes.
        key: (E,) sorted, ``i * N + j`` for each neighbour j of each node i; those of i are ``key[ptr[i]:ptr[i + 1]]``.
    """
    nodes, path, cycles = len(ptr) - 1, starts[:, None], []
    for size in range(2, length + 1):
        degree = np.diff(ptr)[path[:, -1]]
        if degree.sum() > MOST:
            raise UserError(f"there are too many paths of {size} nodes: lower encoding.cycles.length={length}")
        begin = np.repeat(ptr[path[:, -1]] - np.cumsum(degree) + degree, degree)
        step = key[begin + np.arange(len(begin))] % nodes
        path = path.repeat(degree, axis=0)
        new = (step > path[:, 0]) & (path != step[:, None]).all(1)  # smaller ones have had their turn
        path = np.hstack([path[new], step[new, None]])
        if size > 2:
            back = path[:, -1] * nodes + path[:, 0]
            place = np.searchsorted(key, back).clip(max=max(len(key) - 1, 0))
            cycles.append((size, path[key[place] == back]))
    return cycles
