"""Plain ``.npy`` files: written at once, or grown chunk by chunk in the smallest type that holds all numbers."""

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gt.data.files import VERIFIED, Damaged, check, durable, read_facts, seal, whole, write_facts, writing

INTEGERS = [np.dtype(f"{sign}int{bits}") for bits in (8, 16, 32, 64) for sign in ("u", "")]
KINDS = {"b": "truth", "i": "integer", "u": "integer", "f": "real"}
HEADER = 256  # bytes before the numbers of a .npy file: room for its type and shape, and numbers start aligned
VALUES = 2**20  # numbers that are in memory at a time


def holding(low: int, high: int) -> np.dtype:
    """The smallest integer type from ``low`` to ``high``.

    Raises:
        ValueError: none is wide enough.
    """
    for kind in INTEGERS:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind
    raise ValueError(f"no integer type goes from {low} to {high}")


class Column:
    """One array on its way to disk: `append` adds rows, `save` makes a ``.npy`` file of them.

    Until the type of all is known, rows lie in a file of their own, each chunk in the smallest type that holds it.

    Args:
        path: where the ``.npy`` file will be.
        turned: keep the K columns of rows (R, K) one after the other, as an array (K, R).

    Attributes:
        rows: how many there are.
        bytes: what they take on disk until now.
    """

    def __init__(self, path: Path, turned: bool = False) -> None:
        self.path, self.turned, self.raw = path, turned, path.with_suffix(".raw")
        self.rows, self.bytes = 0, 0
        self.shape: tuple[int, ...] | None = None  # of a row
        self.empty = np.dtype(np.int64)  # type of an array without numbers
        self.low, self.high = 0, 0
        self.runs: list[tuple[np.dtype, int]] = []  # types of the numbers and how many of each, as they lie on disk
        self.raw.unlink(missing_ok=True)  # left by a process that was killed

    def append(self, values: np.ndarray) -> None:
        """Add rows (R, ...).

        Raises:
            ValueError: they are no numbers, or of another kind or shape than those before.
        """
        _refuse(self.path, values)
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
            values = values.astype(holding(low, high), copy=False)
        self.bytes += values.nbytes
        with open(self.raw, "ab") as handle:
            handle.write(np.ascontiguousarray(values).data)
        if self.runs and self.runs[-1][0] == values.dtype:
            self.runs[-1] = (values.dtype, self.runs[-1][1] + values.size)
        else:
            self.runs.append((values.dtype, values.size))

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds all numbers there are."""
        if not self.runs:
            return self.empty
        if KINDS[self.runs[0][0].kind] == "integer":
            return holding(self.low, self.high)
        return np.result_type(*(kind for kind, _ in self.runs))

    def save(self) -> None:
        """Write the ``.npy`` file, and remove what led to it."""
        shape = (self.rows, *(self.shape or ()))
        columns = range(shape[1]) if self.turned else (slice(None),)
        with durable(self.path) as handle:
            handle.write(header(self.dtype, (shape[1], shape[0]) if self.turned else shape))
            for column in columns:
                for slab in self._slabs():
                    handle.write(np.ascontiguousarray(slab[:, column], dtype=self.dtype).data)
        self.raw.unlink(missing_ok=True)

    def _slabs(self) -> Iterator[np.ndarray]:
        """All numbers in order, some rows (R, K) at a time."""
        width = math.prod(self.shape or ())
        if not self.runs:
            return
        with open(self.raw, "rb") as handle:
            for kind, count in self.runs:
                for low in range(0, count, step := max(1, VALUES // width) * width):
                    yield np.fromfile(handle, kind, min(step, count - low)).reshape(-1, width)


def header(kind: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The first bytes of a ``.npy`` file (version 1.0 of the format)."""
    about = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    magic = np.lib.format.magic(1, 0)
    text = repr(about).encode().ljust(HEADER - len(magic) - 3) + b"\n"
    return magic + struct.pack("<H", len(text)) + text


def _refuse(path: Path, values: np.ndarray) -> None:
    if values.dtype.kind not in KINDS:
        raise ValueError(f"{path.stem}: numbers and truth values can be stored, not {values.dtype}")


def write_array(path: Path, values: np.ndarray) -> None:
    """Save one array whole or not at all, with a JSON file beside it that `read_array` checks it by.

    Raises:
        ValueError: it holds no numbers.
        UserError: the disk is full, or may not be written to.
    """
    _refuse(path, values)
    with writing(path.parent, lambda: values.nbytes):
        beside = path.with_suffix(".json")
        beside.unlink(missing_ok=True)  # between the two files there must be no moment at which they disagree
        with whole(path) as handle:
            handle.write(header(values.dtype, values.shape))
            handle.write(np.ascontiguousarray(values).data)
        write_facts(beside, seal(path))


def write_arrays(paths: Mapping[str, Path], chunks: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Save arrays of which some rows come at a time: all of them whole or none, each as `write_array` does.

    Raises:
        ValueError: chunks do not fit together.
        UserError: the disk is full, or may not be written to.
    """

    def remove() -> None:
        for path in paths.values():
            for suffix in (".json", ".npy", ".raw"):  # the first says that the second is complete
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
                write_facts(column.path.with_suffix(".json"), seal(column.path))
    except BaseException:
        remove()
        raise


def read_array(path: Path) -> np.ndarray:
    """Map the array that `write_array` saved.

    Raises:
        Damaged: it is not as it was.
        FileNotFoundError: it was never completed.
    """
    try:
        facts = read_facts(path.with_suffix(".json"))
        check(path, facts, facts["bytes"] <= VERIFIED)
    except Damaged as error:
        raise Damaged(f"{path.stem} in {path.parent} {error}") from None
    return mapped_array(path)


def mapped_array(path: Path) -> np.ndarray:
    """A ``.npy`` file in memory, read where it is used: a plain array, for `np.memmap` itself slows every access."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


@dataclass(frozen=True)
class Rows:
    """A row for each of N nodes, equal ones kept once or not.

    Attributes:
        values: (R, K) rows.
        which: (N,) the row of each node; None where node n has row n.
    """

    values: np.ndarray
    which: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values if self.which is None else self.which)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.which is None else self.which.nbytes)

    def take(self, nodes: np.ndarray) -> np.ndarray:
        """(M, K) those of the nodes (M,) with the given numbers."""
        return self.values.take(nodes if self.which is None else self.which.take(nodes), axis=0)


def once(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows (R, K) among rows (N, K), and which of them (N,) each one is."""
    bits = np.ascontiguousarray(values).view(f"V{values.itemsize * values.shape[1]}").ravel()
    _, first, which = np.unique(bits, return_index=True, return_inverse=True)
    return values[first], which
