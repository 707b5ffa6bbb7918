"""Cycle counts per node, which message passing cannot compute and chemistry depends on."""

from typing import Any

import numpy as np
from torch import Tensor

from gt.encodings.base import Encoding, PackedGraphs, Progress, precomputed
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.linear import Linear
from gt.schema import Schema

CHUNK = 1 << 14  # start nodes processed at a time
MAX_PATHS = 20_000_000  # held at a time: some gigabytes


class Cycles(Encoding):
    """The logarithm of 1 plus the number of simple cycles of 3, 4, ..., ``length`` nodes through each node.

    Cycles of the undirected simple graph, without directions, repeated edges and loops; embedded by a linear map.

    Args:
        length: nodes of the longest cycles; in dense graphs the number of cycles grows fast with it.

    Raises:
        UserError: when computed, a dataset with too many paths of this length.
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
        i, j = graphs.edge_index.astype(np.int64) + first
        no_loop = i != j
        key = np.unique(np.concatenate([i[no_loop] * nodes + j[no_loop], j[no_loop] * nodes + i[no_loop]]))
        ptr = np.searchsorted(key, np.arange(nodes + 1) * nodes)
        count = np.zeros((nodes, self.length - 2))
        for low in progress(range(0, nodes, CHUNK)):
            for size, cycle in cycles_from(np.arange(low, min(low + CHUNK, nodes)), key, ptr, self.length):
                np.add.at(count[:, size - 3], cycle.ravel(), 0.5)  # each occurs in both directions
        return {"cycles": np.log1p(count).astype(np.float32)}

    def build(self, width: int, schema: Schema) -> None:
        self.linear = Linear(self.length - 2, width)

    def nodes(self, batch: GraphBatch) -> Tensor:
        return self.linear(precomputed(batch, "cycles").to(self.linear.weight.dtype))


def cycles_from(starts: np.ndarray, key: np.ndarray, ptr: np.ndarray, length: int) -> list[tuple[int, np.ndarray]]:
    """The cycles (C, size) of each size from 3 whose smallest node is in ``starts``, each in both directions.

    Args:
        starts: (S,) nodes.
        key: (E,) sorted, ``i * N + j`` for each neighbour j of each node i; those of i are ``key[ptr[i]:ptr[i + 1]]``.
    """
    nodes, path, cycles = len(ptr) - 1, starts[:, None], []
    for size in range(2, length + 1):
        degree = np.diff(ptr)[path[:, -1]]
        if degree.sum() > MAX_PATHS:
            raise UserError(f"there are too many paths of {size} nodes: lower encoding.cycles.length={length}")
        begin = np.repeat(ptr[path[:, -1]] - np.cumsum(degree) + degree, degree)
        step = key[begin + np.arange(len(begin))] % nodes
        path = path.repeat(degree, axis=0)
        new = (step > path[:, 0]) & (path != step[:, None]).all(1)  # the start is the smallest node of a cycle
        path = np.hstack([path[new], step[new, None]])
        if size > 2:
            back = path[:, -1] * nodes + path[:, 0]
            index = np.searchsorted(key, back).clip(max=max(len(key) - 1, 0))
            cycles.append((size, path[key[index] == back]))
    return cycles
