"""A graph cut into parts of like size that few edges cross, by whole arrays and without METIS.

Nodes are put in breadth-first order (reverse Cuthill & McKee 1969) and cut into runs. Then rounds of balanced label
propagation (Ugander & Backstrom 2013): each node would move to the part where most of its neighbours are; a part takes
those that gain most, up to its room.
"""

from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee

from gt.data.packed import smallest

SLAB = 1 << 22  # edges counted at a time
ROUNDS = 16
SLACK = 0.1  # by how much a part may be larger than the mean, as a share of it


def clusters(pointer: np.ndarray, source: np.ndarray, parts: int) -> np.ndarray:
    """(N,) the part of each node, 0 to ``parts - 1``: none has more than ``ceil((1 + SLACK) N / parts)`` nodes, nor
    less than half of ``N // parts``, rounded down, and none is empty.

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
    most, least = int(np.ceil((1 + SLACK) * nodes / parts)), max(1, nodes // parts // 2)
    draw = np.random.default_rng(0)
    for _ in range(ROUNDS):
        better, gain = _best(links, part, parts)
        # half of them at a time: two neighbours that both move to the other's part would gain nothing
        mover = np.flatnonzero((gain > 0) & (draw.random(nodes) < 0.5))
        if not len(mover):
            break
        size = np.bincount(part, minlength=parts)
        mover = _first(mover, gain, better, most - size)
        mover = _first(mover, gain, part, size - least)
        part[mover] = better[mover]
    return smallest(part)


def _first(mover: np.ndarray, gain: np.ndarray, group: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Of the movers, the ``most[g]`` of each group g, ``group[mover]``, that gain most."""
    mover = mover[np.lexsort((-gain[mover], group[mover]))]
    of = group[mover]
    return mover[np.arange(len(of)) - np.searchsorted(of, of) < most[of]]


def _best(links: csr_matrix, part: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) the part where most neighbours of each node are, and how many more than in its own."""
    nodes = len(part)
    member = csr_matrix((np.ones(nodes, np.float32), part, np.arange(nodes + 1)), (nodes, parts))
    better, gain = part.copy(), np.zeros(nodes, np.float32)
    slabs = np.searchsorted(links.indptr, np.arange(0, links.indptr[-1] + 1, SLAB))
    for low, high in pairwise(np.unique(np.append(slabs, nodes)).tolist()):
        counts = links[low:high] @ member
        row = np.repeat(np.arange(high - low), np.diff(counts.indptr))
        own = np.zeros(high - low, np.float32)
        at_home = counts.indices == part[low:high][row]
        own[row[at_home]] = counts.data[at_home]
        last = np.lexsort((counts.data, row))  # the largest count of a row comes last
        ends = counts.indptr[1:][np.diff(counts.indptr) > 0] - 1
        some = row[last[ends]]
        better[low + some] = counts.indices[last[ends]]
        gain[low + some] = counts.data[last[ends]] - own[some]
    return better, gain
