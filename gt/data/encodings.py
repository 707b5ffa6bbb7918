"""Encodings computed once for a dataset and kept beside it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gt.data.arrays import Rows, once, read_array, write_arrays
from gt.data.files import Damaged, lock, say
from gt.data.packed import Arrays, Graphs
from gt.data.parallel import mapped
from gt.data.store import fingerprint
from gt.data.store_folders import beside
from gt.encodings.base import Encoding, Progress
from gt.errors import UserError
from gt.keys import full_key

TOGETHER = 2**21  # nodes for which starting processes takes longer than they would save
SPAN = 2**18  # nodes that a process works on at a time: tens of megabytes
LAYOUT = 2  # raise when files of the same names come to mean something else
OF = "_of"  # ends the name of an array that says which row each node has
WORTH = 0.7  # rows of a node above which to keep equal ones once saves too little


def attach(graphs: Graphs, folder: Path, encodings: Sequence[Encoding], progress: Progress = iter) -> Graphs:
    """The same graphs with each encoding's arrays among ``encodings``, memory-mapped.

    An array is computed where its file is missing or damaged; for many graphs, by several processes. Safe when several
    ask at once: one computes and the others wait for it.

    Args:
        graphs: a whole dataset.
        folder: where that dataset is stored; an array is the file ``<name>-<hash of the encoding's key>.npy`` in it,
            and where equal rows are kept once ``<name>_of-<hash>.npy`` says which of them each node has. What a
            folder lacks that cannot be written to is kept elsewhere, see `gt.data.store_folders.beside`.
        encodings: those that need nothing precomputed are passed over.
        progress: wraps the parts of a computation, to show how far it is.

    Raises:
        UserError: two encodings that differ but would store an array under one name; a disk that is full.
    """
    arrays = dict(graphs.encodings)
    for encoding, facts in _apart(encodings):
        kinds = [name + kind for name in encoding.arrays for kind in ("", OF)]
        for place in beside(folder):
            paths = {name: place / f"{name}-{facts}.npy" for name in kinds}
            with suppress(FileNotFoundError, Damaged):
                arrays |= _opened(paths)
                break
        else:
            with lock(place / f"{encoding.arrays[0]}-{facts}.lock"):
                arrays |= _computed(graphs, encoding, paths, progress)
    return replace(graphs, encodings=arrays)


def compute(graphs: Graphs, encodings: Sequence[Encoding]) -> Graphs:
    """`attach` in memory: what is little enough costs less to compute than to keep.

    Raises:
        UserError: two encodings that differ but would store an array under one name.
    """
    arrays = dict(graphs.encodings)
    for encoding, _ in _apart(encodings):
        arrays |= _rows(next(_packed([_checked(encoding, graphs)])))
    return replace(graphs, encodings=arrays)


def _apart(encodings: Sequence[Encoding]) -> Iterator[tuple[Encoding, str]]:
    """The encodings that need something precomputed, with a fingerprint of what it is.

    Raises:
        UserError: two that differ would store an array under one name; one that computes has no key, or
            names no arrays.
    """
    stored: dict[str, str] = {}
    for encoding in encodings:
        kind = type(encoding)
        if kind.compute is not Encoding.compute and kind.key is Encoding.key:
            raise UserError(f"{_name(encoding)} has a compute and no key, which returns the facts that it depends on")
        if encoding.key() is None:
            continue
        if not encoding.arrays:
            raise UserError(f"{_name(encoding)}.arrays is empty, and should name what compute returns")
        facts = fingerprint({"layout": LAYOUT, **full_key(encoding)})
        for name in encoding.arrays:
            if stored.setdefault(name, facts) != facts:
                raise UserError(f"two encodings with different options both store '{name}': keep one of them")
        yield encoding, facts


def _opened(paths: Mapping[str, Path]) -> dict[str, Rows]:
    return _rows({name: read_array(path) for name, path in paths.items()})


def _rows(arrays: Arrays) -> dict[str, Rows]:
    rows = {}
    for name, values in arrays.items():
        if not name.endswith(OF):
            which = arrays.get(name + OF)
            rows[name] = Rows(values, None if which is None or not len(which) else which)
    return rows


def _computed(graphs: Graphs, encoding: Encoding, paths: Mapping[str, Path], progress: Progress) -> dict[str, Rows]:
    """An encoding's arrays, computed unless another process did so while this one waited."""
    try:
        return _opened(paths)
    except Damaged as error:
        say(f"{error}: computing it again")
    except FileNotFoundError:
        pass
    if graphs.node_ptr[-1] <= TOGETHER:
        write_arrays(paths, _packed([_checked(encoding, graphs, progress)]))
    else:
        with closing(
            mapped(partial(_checked, encoding), Spans(graphs), what=f"computing {encoding.arrays[0]}")
        ) as chunks:
            write_arrays(paths, _packed(chunks))
    return _opened(paths)


def _checked(encoding: Encoding, graphs: Graphs, progress: Progress = iter) -> Arrays:
    """What an encoding computes.

    Raises:
        UserError: it is not what it promises, for each node a row of numbers, which are finite but in this package.
    """
    arrays, nodes = encoding.compute(graphs, progress), int(graphs.node_ptr[-1])
    who = _name(encoding)
    if not isinstance(arrays, Mapping) or arrays.keys() != {*encoding.arrays}:
        held = ", ".join(arrays) if isinstance(arrays, Mapping) else type(arrays).__name__
        raise UserError(f"{who}.compute gives {held or 'nothing'}, where arrays names {', '.join(encoding.arrays)}")
    for name, values in arrays.items():
        shape = values.shape if isinstance(values, np.ndarray) else type(values).__name__
        if not isinstance(values, np.ndarray) or values.ndim != 2 or len(values) != nodes:
            raise UserError(f"{who}.compute: {name} is {shape}, and should be ({nodes}, K), a row for each node")
        if encoding.compute.__module__.startswith("gt."):
            continue  # NaN is an eigenvector that a small graph does not have
        if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise UserError(f"{who}.compute: {name} {shape} of {values.dtype} holds what is no finite number")
    return arrays


def _name(encoding: Encoding) -> str:
    return f"{type(encoding).__module__}.{type(encoding).__qualname__}"


def _packed(chunks: Iterable[Arrays]) -> Iterator[Arrays]:
    """The same chunks in 16 bits, equal rows kept once in arrays where that saves room in the first chunk."""
    begun: dict[str, int] = {}  # rows until now of the arrays that keep equal ones once
    for number, chunk in enumerate(chunks):
        packed = {name: _in_16_bits(values) for name, values in chunk.items()}
        for name in begun if number else chunk:
            rows, which = once(packed[name])
            if number == 0 and len(rows) > WORTH * len(which):
                continue
            low = begun.get(name, 0)
            begun[name] = low + len(rows)
            packed |= {name: rows, name + OF: low + which}
        yield packed


def _in_16_bits(values: np.ndarray) -> np.ndarray:
    """Eleven significant bits of each number, where their range allows it: mixed precision keeps no more."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return values if np.isinf(half).any() else half


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
