"""Encodings, computed once per dataset and stored beside it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gt.data.arrays import Rows, read_array, unique_rows, write_arrays
from gt.data.files import Damaged, lock, print_line
from gt.data.packed import Arrays, Graphs
from gt.data.parallel import parallel_map
from gt.data.store import fingerprint
from gt.data.store_folders import computed_folders
from gt.encodings.base import Encoding, Progress
from gt.errors import UserError
from gt.keys import full_key

SERIAL_LIMIT = 2**21  # nodes up to which starting worker processes takes longer than it saves
SPAN = 2**18  # nodes that a worker processes at a time: tens of megabytes
LAYOUT = 2  # raise when the meaning of the files changes
INDEX_SUFFIX = "_of"  # of the name of an array with the row of each node
MAX_UNIQUE = 0.7  # distinct rows per node above which deduplication saves too little


def attach(graphs: Graphs, folder: Path, encodings: Sequence[Encoding], progress: Progress = iter) -> Graphs:
    """Add the memory-mapped arrays of each encoding to the ``encodings`` of the graphs.

    An array is computed if its file is missing or damaged; for many graphs, by several processes. Safe for concurrent
    callers: one computes and the others wait.

    Args:
        graphs: a whole dataset.
        folder: the store of that dataset; an array is the file ``<name>-<hash of the encoding's key>.npy`` in it, and
            if equal rows are deduplicated, ``<name>_of-<hash>.npy`` holds the row of each node. If the folder is
            read-only, new files are kept elsewhere, see `gt.data.store_folders.computed_folders`.
        encodings: those that need no precomputation are skipped.
        progress: wraps the parts of a computation, to show its progress.

    Raises:
        UserError: two different encodings would store an array under the same name; the disk is full.
    """
    arrays = dict(graphs.encodings)
    for encoding, key_hash in _precomputed(encodings):
        names = [name + suffix for name in encoding.arrays for suffix in ("", INDEX_SUFFIX)]
        for location in computed_folders(folder):
            paths = {name: location / f"{name}-{key_hash}.npy" for name in names}
            with suppress(FileNotFoundError, Damaged):
                arrays |= _read_rows(paths)
                break
        else:
            with lock(location / f"{encoding.arrays[0]}-{key_hash}.lock"):
                arrays |= _read_or_compute(graphs, encoding, paths, progress)
    return replace(graphs, encodings=arrays)


def compute(graphs: Graphs, encodings: Sequence[Encoding]) -> Graphs:
    """`attach` in memory, for data so small that computing costs less than storing.

    Raises:
        UserError: two different encodings would store an array under the same name.
    """
    arrays = dict(graphs.encodings)
    for encoding, _ in _precomputed(encodings):
        arrays |= _rows(next(_compressed([_compute_checked(encoding, graphs)])))
    return replace(graphs, encodings=arrays)


def _precomputed(encodings: Sequence[Encoding]) -> Iterator[tuple[Encoding, str]]:
    """The encodings that need precomputation, each with a fingerprint of its key.

    Raises:
        UserError: two different ones would store an array under the same name; one that computes has no key, or names
            no arrays.
    """
    stored: dict[str, str] = {}
    for encoding in encodings:
        kind = type(encoding)
        if kind.compute is not Encoding.compute and kind.key is Encoding.key:
            raise UserError(f"{_name(encoding)} has compute but no key: key returns the values that compute depends on")
        if encoding.key() is None:
            continue
        if not encoding.arrays:
            raise UserError(f"{_name(encoding)}.arrays is empty, but should name what compute returns")
        key_hash = fingerprint({"layout": LAYOUT, **full_key(encoding)})
        for name in encoding.arrays:
            if stored.setdefault(name, key_hash) != key_hash:
                raise UserError(f"two encodings with different options both store '{name}': keep one of them")
        yield encoding, key_hash


def _read_rows(paths: Mapping[str, Path]) -> dict[str, Rows]:
    return _rows({name: read_array(path) for name, path in paths.items()})


def _rows(arrays: Arrays) -> dict[str, Rows]:
    rows = {}
    for name, values in arrays.items():
        if not name.endswith(INDEX_SUFFIX):
            row_of = arrays.get(name + INDEX_SUFFIX)
            rows[name] = Rows(values, None if row_of is None or not len(row_of) else row_of)
    return rows


def _read_or_compute(
    graphs: Graphs, encoding: Encoding, paths: Mapping[str, Path], progress: Progress
) -> dict[str, Rows]:
    """The arrays of an encoding, computed unless another process did so in the meantime."""
    try:
        return _read_rows(paths)
    except Damaged as error:
        print_line(f"{error}: computing it again")
    except FileNotFoundError:
        pass
    if graphs.node_ptr[-1] <= SERIAL_LIMIT:
        write_arrays(paths, _compressed([_compute_checked(encoding, graphs, progress)]))
    else:
        with closing(
            parallel_map(partial(_compute_checked, encoding), Spans(graphs), what=f"computing {encoding.arrays[0]}")
        ) as chunks:
            write_arrays(paths, _compressed(chunks))
    return _read_rows(paths)


def _compute_checked(encoding: Encoding, graphs: Graphs, progress: Progress = iter) -> Arrays:
    """Compute an encoding and check the result.

    Raises:
        UserError: the result does not have a row of numbers per node, all finite unless the encoding is built in.
    """
    arrays, nodes = encoding.compute(graphs, progress), int(graphs.node_ptr[-1])
    owner = _name(encoding)
    if not isinstance(arrays, Mapping) or arrays.keys() != {*encoding.arrays}:
        result = ", ".join(arrays) if isinstance(arrays, Mapping) else type(arrays).__name__
        raise UserError(f"{owner}.compute returns {result or 'nothing'}, but arrays names {', '.join(encoding.arrays)}")
    for name, values in arrays.items():
        shape = values.shape if isinstance(values, np.ndarray) else type(values).__name__
        if not isinstance(values, np.ndarray) or values.ndim != 2 or len(values) != nodes:
            raise UserError(f"{owner}.compute: {name} is {shape}, but should be ({nodes}, K), a row for each node")
        if encoding.compute.__module__.startswith("gt."):
            continue  # NaN marks eigenvectors that a small graph does not have
        if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise UserError(f"{owner}.compute: {name} {shape} of {values.dtype} has values that are not finite numbers")
    return arrays


def _name(encoding: Encoding) -> str:
    return f"{type(encoding).__module__}.{type(encoding).__qualname__}"


def _compressed(chunks: Iterable[Arrays]) -> Iterator[Arrays]:
    """The same chunks in half precision, with rows deduplicated in arrays where that saves space in the first chunk."""
    row_counts: dict[str, int] = {}  # number of rows so far of each deduplicated array
    for number, chunk in enumerate(chunks):
        packed = {name: _to_half(values) for name, values in chunk.items()}
        for name in row_counts if number else chunk:
            rows, row_of = unique_rows(packed[name])
            if number == 0 and len(rows) > MAX_UNIQUE * len(row_of):
                continue
            low = row_counts.get(name, 0)
            row_counts[name] = low + len(rows)
            packed |= {name: rows, name + INDEX_SUFFIX: low + row_of}
        yield packed


def _to_half(values: np.ndarray) -> np.ndarray:
    """Values in float16 if their range allows it: mixed precision keeps no more than its eleven significant bits."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return values if np.isinf(half).any() else half


class Spans(Sequence[Graphs]):
    """Runs of consecutive graphs with about ``size`` nodes each, sliced on access."""

    def __init__(self, graphs: Graphs, size: int = SPAN) -> None:
        self.graphs = graphs
        ends = np.arange(size, graphs.node_ptr[-1] + size, size)
        self.bounds = np.unique([0, *np.searchsorted(graphs.node_ptr, ends).clip(max=len(graphs))])

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, number: Any) -> Any:
        low, high = int(self.bounds[number]), int(self.bounds[number + 1])
        return self.graphs.between(low, high)
