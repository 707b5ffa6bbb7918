"""Packed graphs on disk: flat arrays in ``.npy`` files and one JSON of facts, memory-mapped when read.

A store is a folder named by a hash of what it was built from. It is written beside its final place and moved there
whole, so a killed build leaves nothing that could be mistaken for data; a lock lets several processes ask at once
and one of them build. Nothing is ever pickled.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gt.schema import Schema

FORMAT = 1  # raise when the layout on disk changes: older stores are then rebuilt

Arrays = dict[str, np.ndarray]


@dataclass
class Graphs:
    """G graphs, N nodes and E edges in flat arrays; graph g owns nodes ``node_ptr[g]:node_ptr[g + 1]``.

    Attributes:
        node_ptr, edge_ptr: (G + 1,) int64 offsets.
        edge_index: (2, E) integers, row 0 the source and row 1 the target, numbered from 0 within each graph and
            sorted by (graph, target, source); ``sort_edges`` brings any order into this one.
        nodes, edges, graphs: arrays with one row a node (``x``), an edge (``edge_attr``), a graph (``y``).
        splits: graph numbers under ``train``, ``valid`` and ``test``.
        schema: what a model needs to know of these arrays.
        notes: facts worth showing (JSON values), such as rows that were skipped.
    """

    node_ptr: np.ndarray
    edge_ptr: np.ndarray
    edge_index: np.ndarray
    schema: Schema
    nodes: Arrays = field(default_factory=dict)
    edges: Arrays = field(default_factory=dict)
    graphs: Arrays = field(default_factory=dict)
    splits: Arrays = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.node_ptr) - 1

    @property
    def sizes(self) -> np.ndarray:
        """(G,) nodes of each graph."""
        return np.diff(self.node_ptr)

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
    found = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=found[1:])
    return found


INTEGERS = [np.dtype(f"{sign}int{bits}") for bits in (8, 16, 32, 64) for sign in ("u", "")]


def smallest(values: np.ndarray) -> np.ndarray:
    """The same numbers in the smallest integer type that holds them; booleans and real numbers stay."""
    if values.dtype.kind not in "iu" or values.size == 0:
        return values
    low, high = int(values.min()), int(values.max())
    return values.astype(next(k for k in INTEGERS if np.iinfo(k).min <= low and high <= np.iinfo(k).max))


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that change when any of the (JSON-able) facts does."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold ``path`` as a lock between processes; the system frees it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_array(path: Path, values: np.ndarray) -> None:
    """Save one array whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as handle:
        try:
            np.save(handle, np.ascontiguousarray(values), allow_pickle=False)
        except BaseException:
            os.unlink(handle.name)
            raise
    os.replace(handle.name, path)


def read_array(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


GROUPS = ("nodes", "edges", "graphs", "splits")


def save(graphs: Graphs, folder: Path) -> None:
    """Write a store beside ``folder`` and move it there in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name + ".part-"))
    try:
        for name in ("node_ptr", "edge_ptr", "edge_index"):
            values = getattr(graphs, name)
            write_array(part / f"{name}.npy", smallest(values) if name == "edge_index" else values)
        for group in GROUPS:
            for name, values in getattr(graphs, group).items():
                write_array(part / f"{group}.{name}.npy", smallest(np.asarray(values)))
        facts = {"schema": graphs.schema.to_dict(), "notes": graphs.notes}
        (part / "facts.json").write_text(json.dumps(facts, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def load(folder: Path) -> Graphs:
    """Open a store; arrays are memory-mapped, nothing is read until it is used."""
    facts = json.loads((folder / "facts.json").read_text())
    groups: dict[str, Arrays] = {group: {} for group in GROUPS}
    for path in sorted(folder.glob("*.*.npy")):
        group, name, _ = path.name.split(".")
        groups[group][name] = read_array(path)
    return Graphs(
        node_ptr=np.load(folder / "node_ptr.npy", allow_pickle=False),
        edge_ptr=np.load(folder / "edge_ptr.npy", allow_pickle=False),
        edge_index=read_array(folder / "edge_index.npy"),
        schema=Schema.from_dict(facts["schema"]),
        notes=facts["notes"],
        **groups,
    )


def open_or_build(folder: Path, build: Callable[[], Graphs]) -> Graphs:
    """The store in ``folder``, built first where it is absent; safe when several processes ask at once."""
    if not folder.exists():
        with lock(folder.with_name(folder.name + ".lock")):
            if not folder.exists():  # another process may have built it while this one waited
                save(build(), folder)
    return load(folder)
