"""Encodings computed once for a dataset and kept beside it."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gt.data.arrays import read_array, write_arrays
from gt.data.files import Damaged, lock, say
from gt.data.parallel import mapped
from gt.data.store import Arrays, Graphs, fingerprint
from gt.encodings.base import Encoding, Progress
from gt.errors import UserError

TOGETHER = 2**21  # nodes for which starting processes takes longer than they would save
SPAN = 2**18  # nodes that a process works on at a time: tens of megabytes


def attach(graphs: Graphs, folder: Path, encodings: Sequence[Encoding], progress: Progress = iter) -> Graphs:
    """The same graphs with each encoding's arrays among ``nodes``, memory-mapped.

    An array is computed where its file is missing or damaged; for many graphs, by several processes. Safe when several
    ask at once: one computes and the others wait for it.

    Args:
        graphs: a whole dataset.
        folder: where that dataset is stored; an array is the file ``<name>-<hash of the encoding's key>.npy`` in it.
        encodings: those that need nothing precomputed are passed over.
        progress: wraps the parts of a computation, to show how far it is.

    Raises:
        UserError: two encodings that differ but would store an array under one name; a disk that is full.
    """
    nodes, taken = dict(graphs.nodes), dict[str, Path]()
    for encoding in encodings:
        key = encoding.key()
        if key is None:
            continue
        facts = fingerprint(key)
        paths = {name: folder / f"{name}-{facts}.npy" for name in encoding.arrays}
        for name, path in paths.items():
            if taken.setdefault(name, path) != path:
                raise UserError(f"two encodings with different options both store '{name}': keep one of them")
        try:
            nodes |= _opened(paths)
        except (FileNotFoundError, Damaged):
            with lock(folder / f"{encoding.arrays[0]}-{facts}.lock"):
                nodes |= _computed(graphs, encoding, paths, progress)
    return replace(graphs, nodes=nodes)


def _opened(paths: Mapping[str, Path]) -> Arrays:
    return {name: read_array(path) for name, path in paths.items()}


def _computed(graphs: Graphs, encoding: Encoding, paths: Mapping[str, Path], progress: Progress) -> Arrays:
    """An encoding's arrays, computed unless another process did so while this one waited."""
    try:
        return _opened(paths)
    except Damaged as error:
        say(f"{error}: computing it again")
    except FileNotFoundError:
        pass
    if graphs.node_ptr[-1] <= TOGETHER:
        write_arrays(paths, [encoding.compute(graphs, progress)])
    else:
        with closing(mapped(encoding.compute, Spans(graphs), what=f"computing {encoding.arrays[0]}")) as chunks:
            write_arrays(paths, chunks)
    return _opened(paths)


class Spans(Sequence[Graphs]):
    """Runs of consecutive graphs with about ``size`` nodes each, cut out when they are asked for."""

    def __init__(self, graphs: Graphs, size: int = SPAN) -> None:
        self.graphs = graphs
        ends = np.arange(size, graphs.node_ptr[-1] + size, size)
        self.bounds = np.unique([0, *np.searchsorted(graphs.node_ptr, ends).clip(max=len(graphs))])

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, number: Any) -> Any:
        low, high = int(self.bounds[number]), int(self.bounds[number + 1])
        return self.graphs.between(low, high)
