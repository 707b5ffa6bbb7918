"""Packed graphs on disk: flat arrays in ``.npy`` files and one JSON of facts, memory-mapped when read.

A store is a folder named by a hash of what it was built from. It is written beside its final place, chunk by chunk so
that memory is bounded, and moved there whole: a killed build leaves nothing that could be mistaken for data. A lock
lets several processes ask at once and one of them build. Checksums tell when it is not what was written, and it is
built again. Nothing is ever pickled.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any, cast

import numpy as np

from gt.data import files
from gt.data.arrays import Column, Rows, holding, mapped_array
from gt.data.files import Damaged, Seal, lock, say, writing
from gt.schema import Schema

Arrays = dict[str, np.ndarray]


@dataclass
class Graphs:
    """G graphs, N nodes and E edges in flat arrays; graph g owns nodes ``node_ptr[g]:node_ptr[g + 1]``.

    Attributes:
        node_ptr, edge_ptr: (G + 1,) int64 offsets.
        edge_index: (2, E) integers, row 0 the source and row 1 the target, numbered from 0 within each graph and
            sorted by (graph, target, source); ``sort_edges`` brings any order into this one.
        nodes, edges, graphs: arrays with one row a node (``x``), an edge (``edge_attr``), a graph (``y``).
        pairs: arrays with one row for each two nodes of a graph, n * n for a graph of n nodes, by first and second.
        links: arrays with one row for each pair that has a target, as many a graph as ``graphs["links"]`` (G,) says:
            ``ends`` (two columns, numbered from 0 within each graph) and ``y``; none where links have no targets.
        splits: graph numbers under ``train``, ``valid`` and ``test``.
        encodings: what was computed of each node's place, see `gt.encodings`; kept in files of their own.
        schema: what a model needs to know of these arrays.
        notes: facts worth showing (JSON values), such as rows that were skipped.
    """

    node_ptr: np.ndarray
    edge_ptr: np.ndarray
    edge_index: np.ndarray
    schema: Schema
    nodes: Arrays = field(default_factory=dict)
    edges: Arrays = field(default_factory=dict)
    pairs: Arrays = field(default_factory=dict)
    graphs: Arrays = field(default_factory=dict)
    links: Arrays = field(default_factory=dict)
    splits: Arrays = field(default_factory=dict)
    encodings: dict[str, Rows] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.node_ptr) - 1

    @property
    def sizes(self) -> np.ndarray:
        """(G,) nodes of each graph."""
        return np.diff(self.node_ptr)

    @property
    def pair_ptr(self) -> np.ndarray:
        """(G + 1,) int64 offsets of the pairs of each graph."""
        return pointers(self.sizes**2)

    @cached_property
    def link_ptr(self) -> np.ndarray:
        """(G + 1,) int64 offsets of the links of each graph."""
        return pointers(np.asarray(self.graphs.get("links", np.zeros(len(self), np.int64))))

    def between(self, low: int, high: int) -> "Graphs":
        """The graphs ``low <= g < high`` without splits and notes, as arrays of their own."""
        parts: dict[str, Any] = {}
        pointer = (self.node_ptr, self.edge_ptr, self.pair_ptr, np.arange(len(self) + 1), self.link_ptr)
        for group, rows in zip(GROUPS, pointer, strict=False):  # all but the splits
            arrays = getattr(self, group)
            parts[group] = {name: np.array(values[rows[low] : rows[high]]) for name, values in arrays.items()}
        return Graphs(
            node_ptr=self.node_ptr[low : high + 1] - self.node_ptr[low],
            edge_ptr=self.edge_ptr[low : high + 1] - self.edge_ptr[low],
            edge_index=np.array(self.edge_index[:, self.edge_ptr[low] : self.edge_ptr[high]]),
            schema=self.schema,
            **parts,
        )

    def sort_edges(self) -> "Graphs":
        """Sort edges by (graph, target, source), their attributes with them; in place, returns self."""
        graph = np.repeat(np.arange(len(self)), np.diff(self.edge_ptr))
        source, target = self.edge_index
        order = np.lexsort((source, target, graph))
        self.edge_index = self.edge_index[:, order]
        self.edges = {name: values[order] for name, values in self.edges.items()}
        return self


def pointers(sizes: np.ndarray) -> np.ndarray:
    """(G + 1,) int64 offsets of runs of the given lengths (G,)."""
    ends = np.empty(len(sizes) + 1, np.int64)
    ends[0] = 0
    np.add.accumulate(sizes, out=ends[1:])
    return ends


def held(flags: np.ndarray, pointer: np.ndarray) -> np.ndarray:
    """(G,) how many of some flags (R,) are set in each of the runs that offsets (G + 1,) tell apart."""
    return np.diff(pointers(flags)[pointer])


def smallest(values: np.ndarray) -> np.ndarray:
    """The same numbers in the smallest integer type that holds them; booleans and real numbers stay."""
    if values.dtype.kind not in "iu" or values.size == 0:
        return values
    return values.astype(holding(int(values.min()), int(values.max())), copy=False)


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that change when any of the (JSON-able) facts does."""
    text = json.dumps(dict(facts), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


GROUPS = ("nodes", "edges", "pairs", "graphs", "links", "splits")
POINTERS = ("node_ptr", "edge_ptr")


class _Writer:
    """Appends chunks of graphs to the growing arrays of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.columns: dict[str, Column] = {}
        self.graphs = 0
        self.totals = dict.fromkeys(POINTERS, 0)
        self.schema: Schema | None = None
        self.splits: Arrays = {}
        self.notes: dict[str, Any] = {}

    @property
    def bytes(self) -> int:
        """What was to be written until now."""
        return sum(column.bytes for column in self.columns.values())

    def append(self, chunk: Graphs) -> None:
        """Add graphs.

        Raises:
            ValueError: names an array that lacks rows, or differs from what earlier chunks hold.
        """
        arrays = {"edge_index": chunk.edge_index.T}
        rows = {"edge_index": chunk.edge_ptr[-1]}
        counts = (chunk.node_ptr[-1], chunk.edge_ptr[-1], chunk.pair_ptr[-1], len(chunk), chunk.link_ptr[-1])
        for group, count in zip(GROUPS, counts, strict=False):  # all but the splits
            for name, values in getattr(chunk, group).items():
                arrays[f"{group}.{name}"], rows[f"{group}.{name}"] = np.asarray(values), count
        for name, values in arrays.items():
            if len(values) != rows[name]:
                raise ValueError(f"{name} has {len(values)} rows where there should be {rows[name]}")
        odd = self.columns.keys() - arrays.keys() - set(POINTERS) if len(chunk) else set()
        odd |= arrays.keys() - self.columns.keys() if self.graphs else set()
        if odd:
            raise ValueError(f"{min(odd)} is in some chunks and not in others")

        for name in POINTERS:
            offsets = getattr(chunk, name)
            if offsets[0] != 0:
                raise ValueError(f"{name} begins at {offsets[0]} instead of 0")
            arrays[name] = offsets[1 if self.schema else 0 :] + self.totals[name]
            self.totals[name] += int(offsets[-1])
        for name, values in arrays.items():
            self._column(name).append(values)
        self.graphs += len(chunk)
        largest = max(chunk.schema.max_nodes, self.schema.max_nodes if self.schema else 0)
        self.schema = replace(chunk.schema, max_nodes=largest)
        self.splits, self.notes = chunk.splits, chunk.notes

    def finish(self) -> None:
        """Complete the folder with the splits, schema and notes of the last chunk.

        Raises:
            ValueError: there was none.
        """
        if self.schema is None:
            raise ValueError("no graphs were built, not even a chunk of none")
        for name, values in self.splits.items():
            self._column(f"splits.{name}").append(np.asarray(values))
        for column in self.columns.values():
            column.save()
        facts = {
            "schema": self.schema.to_dict(),
            "notes": self.notes,
            "arrays": {name: files.seal(column.path) for name, column in self.columns.items()},
        }
        files.write_facts(self.folder / "facts.json", facts)

    def _column(self, name: str) -> Column:
        if name not in self.columns:
            self.columns[name] = Column(self.folder / f"{name}.npy", turned=name == "edge_index")
        return self.columns[name]


def save(graphs: Graphs | Iterable[Graphs], folder: Path) -> None:
    """Write a store beside ``folder`` and move it there in one step; for one process at a time, see `open_or_build`.

    Args:
        graphs: all graphs, or chunks of consecutive ones: then only one chunk is in memory at a time. Chunks hold the
            same arrays; splits, schema and notes are those of the last, but for the largest ``max_nodes`` of all.

    Raises:
        ValueError: an array does not fit in with the others.
        UserError: the disk is full, or may not be written to.
    """
    part = folder.with_name(folder.name + ".part")
    for left in folder.parent.glob(f"{escape(part.name)}*"):  # by processes that were killed
        files.discard(left)
    writer = _Writer(part)
    chunks = iter((graphs,) if isinstance(graphs, Graphs) else graphs)
    try:
        with writing(folder.parent, lambda: 0):
            part.mkdir(parents=True)
        for chunk in chunks:
            with writing(folder.parent, lambda: writer.bytes):
                writer.append(chunk)
            del chunk  # while the next one is made there is room for it
        with writing(folder.parent, lambda: writer.bytes):
            writer.finish()
        if folder.exists() or folder.is_symlink():  # moved away first: at no moment is half of it in place
            old = folder.with_name(part.name + "-old")
            os.replace(folder, old)
            files.discard(old)
        os.replace(part, folder)
        files.sync(folder.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(chunks, Generator):
            chunks.close()  # now, not when the error is forgotten: it may hold worker processes
        raise


def load(folder: Path) -> Graphs:
    """Open a store; arrays are memory-mapped, what is used of a large one is read only then.

    Raises:
        Damaged: it is not as it was written, or was written by another version.
    """
    try:
        facts = files.read_facts(folder / "facts.json")
        seals: dict[str, Seal] = facts["arrays"]
        fully = sum(sealed["bytes"] for sealed in seals.values()) <= files.VERIFIED
        for name, sealed in seals.items():
            files.check(folder / f"{name}.npy", sealed, fully)
        arrays = {name: mapped_array(folder / f"{name}.npy") for name in seals}
        schema = Schema.from_dict(facts["schema"])
    except Damaged as error:
        raise Damaged(f"the store at {folder} {error}") from None
    except FileNotFoundError as error:
        raise Damaged(f"the store at {folder} is damaged ({Path(error.filename).name} is missing)") from None
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"the store at {folder} is outdated ({error})") from None
    groups: dict[str, Arrays] = {group: {} for group in GROUPS}
    for name, values in arrays.items():
        group, _, own = name.partition(".")
        if own:
            groups[group][own] = values
    return Graphs(
        node_ptr=np.array(arrays["node_ptr"], dtype=np.int64),
        edge_ptr=np.array(arrays["edge_ptr"], dtype=np.int64),
        edge_index=arrays["edge_index"],
        schema=schema,
        notes=facts["notes"],
        **cast(dict[str, Any], groups),
    )


def is_complete(folder: Path) -> bool:
    """Whether there is a store in a folder, complete and as it was written."""
    try:
        load(folder)
    except Damaged:
        return False
    return True


def open_or_build(folder: Path, build: Callable[[], Graphs | Iterable[Graphs]]) -> Graphs:
    """The store in ``folder``, built first where it is absent, damaged or outdated.

    Safe when several processes ask at once: one builds and the others wait for it.

    Args:
        build: gives what `save` takes.

    Raises:
        UserError: the disk is full, or may not be written to.
    """
    with suppress(Damaged):
        return load(folder)
    with lock(folder.with_name(folder.name + ".lock")):
        try:
            return load(folder)  # another process may have built it while this one waited
        except Damaged as error:
            if folder.exists():
                say(f"{error}: building it again")
        save(build(), folder)
        files.mention_others(folder)
        return load(folder)
