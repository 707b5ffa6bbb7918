"""Plain ``.npy`` files, written at once or chunk by chunk, in the smallest dtype that holds all numbers."""

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gt.data.files import (
    FULL_CHECK_LIMIT,
    Damaged,
    atomic_file,
    check,
    durable,
    read_metadata,
    seal,
    write_metadata,
    writing,
)

INTEGERS = [np.dtype(f"{sign}int{bits}") for bits in (8, 16, 32, 64) for sign in ("u", "")]
KINDS = {"b": "truth", "i": "integer", "u": "integer", "f": "real"}
HEADER = 256  # bytes of a .npy header: room for dtype and shape, and the data start aligned
VALUES = 2**20  # numbers in memory at a time


def smallest_integer_dtype(low: int, high: int) -> np.dtype:
    """The smallest integer dtype that holds ``low`` to ``high``.

    Raises:
        ValueError: none is wide enough.
    """
    for kind in INTEGERS:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind
    raise ValueError(f"no integer type holds {low} to {high}")


class Column:
    """Writes one array to disk: `append` adds rows, `save` converts them to a ``.npy`` file.

    Until the common dtype is known, rows are in a raw file, each chunk in the smallest dtype that holds it.

    Args:
        path: path of the ``.npy`` file.
        transposed: store rows (R, K) as their transpose, an array (K, R).

    Attributes:
        rows: number of rows so far.
        bytes: their size on disk so far.
    """

    def __init__(self, path: Path, transposed: bool = False) -> None:
        self.path, self.transposed, self.raw = path, transposed, path.with_suffix(".raw")
        self.rows, self.bytes = 0, 0
        self.shape: tuple[int, ...] | None = None  # of a row
        self.empty = np.dtype(np.int64)  # dtype of an empty array
        self.low, self.high = 0, 0
        self.runs: list[tuple[np.dtype, int]] = []  # dtype and length of each run in the raw file
        self.raw.unlink(missing_ok=True)  # left by a process that was killed

    def append(self, values: np.ndarray) -> None:
        """Add rows (R, ...).

        Raises:
            ValueError: the rows are not numbers, or of another kind or shape than earlier ones.
        """
        _check_dtype(self.path, values)
        if self.shape not in (None, values.shape[1:]):
            raise ValueError(f"{self.path.stem}: rows of shape {values.shape[1:]} after rows of shape {self.shape}")
        if self.shape is None:
            self.shape, self.empty = values.shape[1:], values.dtype
        self.rows += len(values)
        if values.size == 0:
            return
        if self.runs and KINDS[self.runs[-1][0].kind] != KINDS[values.dtype.kind]:
            raise ValueError(f"{self.path.stem}: {values.dtype} after {self.runs[-1][0]}")
        if KINDS[values.dtype.kind] == "integer":
            low, high = int(values.min()), int(values.max())
            self.low, self.high = (min(low, self.low), max(high, self.high)) if self.runs else (low, high)
            values = values.astype(smallest_integer_dtype(low, high), copy=False)
        self.bytes += values.nbytes
        with open(self.raw, "ab") as handle:
            handle.write(np.ascontiguousarray(values).data)
        if self.runs and self.runs[-1][0] == values.dtype:
            self.runs[-1] = (values.dtype, self.runs[-1][1] + values.size)
        else:
            self.runs.append((values.dtype, values.size))

    @property
    def dtype(self) -> np.dtype:
        """The smallest dtype that holds all numbers so far."""
        if not self.runs:
            return self.empty
        if KINDS[self.runs[0][0].kind] == "integer":
            return smallest_integer_dtype(self.low, self.high)
        return np.result_type(*(kind for kind, _ in self.runs))

    def save(self) -> None:
        """Write the ``.npy`` file, and remove the raw file."""
        shape = (self.rows, *(self.shape or ()))
        columns = range(shape[1]) if self.transposed else (slice(None),)
        with durable(self.path) as handle:
            handle.write(header(self.dtype, (shape[1], shape[0]) if self.transposed else shape))
            for column in columns:
                for slab in self._slabs():
                    handle.write(np.ascontiguousarray(slab[:, column], dtype=self.dtype).data)
        self.raw.unlink(missing_ok=True)

    def _slabs(self) -> Iterator[np.ndarray]:
        """All numbers in order, as blocks of rows (R, K)."""
        width = math.prod(self.shape or ())
        if not self.runs:
            return
        with open(self.raw, "rb") as handle:
            for kind, count in self.runs:
                for low in range(0, count, step := max(1, VALUES // width) * width):
                    yield np.fromfile(handle, kind, min(step, count - low)).reshape(-1, width)


def header(kind: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The header of a ``.npy`` file (version 1.0 of the format)."""
    metadata = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    magic = np.lib.format.magic(1, 0)
    text = repr(metadata).encode().ljust(HEADER - len(magic) - 3) + b"\n"
    return magic + struct.pack("<H", len(text)) + text


def _check_dtype(path: Path, values: np.ndarray) -> None:
    if values.dtype.kind not in KINDS:
        raise ValueError(f"{path.stem}: only numbers and booleans can be stored, not {values.dtype}")


def write_array(path: Path, values: np.ndarray) -> None:
    """Save one array atomically, with a JSON file beside it against which `read_array` checks it.

    Raises:
        ValueError: the array does not hold numbers.
        UserError: the disk is full or not writable.
    """
    _check_dtype(path, values)
    with writing(path.parent, lambda: values.nbytes):
        seal_path = path.with_suffix(".json")
        seal_path.unlink(missing_ok=True)  # the two files must never disagree
        with atomic_file(path) as handle:
            handle.write(header(values.dtype, values.shape))
            handle.write(np.ascontiguousarray(values).data)
        write_metadata(seal_path, seal(path))


def write_arrays(paths: Mapping[str, Path], chunks: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Save arrays that arrive in chunks of rows, each as `write_array` does: all of them or none.

    Raises:
        ValueError: chunks do not match.
        UserError: the disk is full or not writable.
    """

    def remove() -> None:
        for path in paths.values():
            for suffix in (".json", ".npy", ".raw"):  # the first marks the second as complete
                path.with_suffix(suffix).unlink(missing_ok=True)

    remove()
    columns = {name: Column(path) for name, path in paths.items()}
    folder = next(iter(paths.values())).parent
    try:
        for chunk in chunks:
            with writing(folder, lambda: sum(column.bytes for column in columns.values())):
                for name, values in chunk.items():
                    columns[name].append(values)
        with writing(folder, lambda: sum(column.bytes for column in columns.values())):
            for column in columns.values():
                column.save()
                write_metadata(column.path.with_suffix(".json"), seal(column.path))
    except BaseException:
        remove()
        raise


def read_array(path: Path) -> np.ndarray:
    """Memory-map an array saved by `write_array`.

    Raises:
        Damaged: the file has changed.
        FileNotFoundError: it was never completed.
    """
    try:
        metadata = read_metadata(path.with_suffix(".json"))
        check(path, metadata, metadata["bytes"] <= FULL_CHECK_LIMIT)
    except Damaged as error:
        raise Damaged(f"{path.stem} in {path.parent} {error}") from None
    return mapped_array(path)


def mapped_array(path: Path) -> np.ndarray:
    """Memory-map a ``.npy`` file, as a plain array: `np.memmap` itself slows down every access."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


@dataclass(frozen=True)
class Rows:
    """A row for each of N nodes, optionally deduplicated.

    Attributes:
        values: (R, K) rows.
        index: (N,) the row of each node; None if node n has row n.
    """

    values: np.ndarray
    index: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values if self.index is None else self.index)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.index is None else self.index.nbytes)

    def take(self, nodes: np.ndarray) -> np.ndarray:
        """(M, K) the rows of the given nodes (M,)."""
        return self.values.take(nodes if self.index is None else self.index.take(nodes), axis=0)


def unique_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows (R, K) among rows (N, K), and the index (N,) of each row in these."""
    bits = np.ascontiguousarray(values).view(f"V{values.itemsize * values.shape[1]}").ravel()
    _, first, index = np.unique(bits, return_index=True, return_inverse=True)
    return values[first], index
