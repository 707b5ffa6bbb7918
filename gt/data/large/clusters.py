"""Balanced graph partitioning with few cut edges, vectorised and without METIS.

Nodes in breadth-first order (reverse Cuthill & McKee 1969) are cut into runs. Rounds of balanced label propagation
(Ugander & Backstrom 2013) follow: each node proposes to move to the part with most of its neighbours, and each part
accepts the nodes with the largest gain, up to its capacity.
"""

from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee

from gt.data.packed import smallest

SLAB = 1 << 22  # edges processed at a time
ROUNDS = 16
SLACK = 0.1  # relative excess of a part over the mean size


def clusters(pointer: np.ndarray, source: np.ndarray, parts: int) -> np.ndarray:
    """(N,) the part of each node, 0 to ``parts - 1``; no part is empty, has more than ``ceil((1 + SLACK) N / parts)``
    nodes, or fewer than half of ``N // parts``, rounded down.

    Args:
        parts: at most N.
        pointer, source: (N + 1,) and (E,); node i reads ``source[pointer[i]:pointer[i + 1]]``. Directions and
            self-loops do not matter.
    """
    nodes = len(pointer) - 1
    links = csr_matrix((np.ones(len(source), np.float32), source, pointer), (nodes, nodes))
    links = links + links.T
    order = reverse_cuthill_mckee(links, symmetric_mode=True)
    part = np.empty(nodes, np.int64)
    part[order] = np.arange(nodes) * parts // nodes
    max_size, min_size = int(np.ceil((1 + SLACK) * nodes / parts)), max(1, nodes // parts // 2)
    rng = np.random.default_rng(0)
    for _ in range(ROUNDS):
        better, gain = _best_parts(links, part, parts)
        # only half of them at a time: two neighbours that swap parts would gain nothing
        mover = np.flatnonzero((gain > 0) & (rng.random(nodes) < 0.5))
        if not len(mover):
            break
        size = np.bincount(part, minlength=parts)
        mover = _top_movers(mover, gain, better, max_size - size)
        mover = _top_movers(mover, gain, part, size - min_size)
        part[mover] = better[mover]
    return smallest(part)


def _top_movers(mover: np.ndarray, gain: np.ndarray, group: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The ``limit[g]`` movers with the largest gain of each group g, where ``group`` (N,) is that of each node."""
    mover = mover[np.lexsort((-gain[mover], group[mover]))]
    groups = group[mover]
    return mover[np.arange(len(groups)) - np.searchsorted(groups, groups) < limit[groups]]


def _best_parts(links: csr_matrix, part: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) the part with most neighbours of each node, and how many more they are than in its own part."""
    nodes = len(part)
    member = csr_matrix((np.ones(nodes, np.float32), part, np.arange(nodes + 1)), (nodes, parts))
    better, gain = part.copy(), np.zeros(nodes, np.float32)
    slabs = np.searchsorted(links.indptr, np.arange(0, links.indptr[-1] + 1, SLAB))
    for low, high in pairwise(np.unique(np.append(slabs, nodes)).tolist()):
        counts = links[low:high] @ member
        row = np.repeat(np.arange(high - low), np.diff(counts.indptr))
        own = np.zeros(high - low, np.float32)
        is_own = counts.indices == part[low:high][row]
        own[row[is_own]] = counts.data[is_own]
        last = np.lexsort((counts.data, row))  # the largest count of a row comes last
        ends = counts.indptr[1:][np.diff(counts.indptr) > 0] - 1
        rows = row[last[ends]]
        better[low + rows] = counts.indices[last[ends]]
        gain[low + rows] = counts.data[last[ends]] - own[rows]
    return better, gain
