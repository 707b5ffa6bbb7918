"""Writes the arrays of a store chunk by chunk, with only one chunk in memory at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gt.data import files
from gt.data.arrays import Column
from gt.data.packed import GROUPS, POINTERS, Arrays, Graphs
from gt.schema import Schema


class Writer:
    """Appends chunks of graphs to the arrays in a folder."""

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
        """The number of bytes so far."""
        return sum(column.bytes for column in self.columns.values())

    def append(self, chunk: Graphs) -> None:
        """Add graphs.

        Raises:
            ValueError: names an array with missing rows, or that does not match earlier chunks.
        """
        arrays = {"edge_index": chunk.edge_index.T}
        rows = {"edge_index": chunk.edge_ptr[-1]}
        counts = (chunk.node_ptr[-1], chunk.edge_ptr[-1], chunk.pair_ptr[-1], len(chunk), chunk.link_ptr[-1])
        for group, count in zip(GROUPS, counts, strict=False):  # all but the splits
            for name, values in getattr(chunk, group).items():
                arrays[f"{group}.{name}"], rows[f"{group}.{name}"] = np.asarray(values), count
        for name, values in arrays.items():
            if len(values) != rows[name]:
                raise ValueError(f"{name} has {len(values)} rows, but should have {rows[name]}")
        mismatched = self.columns.keys() - arrays.keys() - set(POINTERS) if len(chunk) else set()
        mismatched |= arrays.keys() - self.columns.keys() if self.graphs else set()
        if mismatched:
            raise ValueError(f"{min(mismatched)} is in some chunks and not in others")

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
            raise ValueError("no graphs were built, not even an empty chunk")
        for name, values in self.splits.items():
            self._column(f"splits.{name}").append(np.asarray(values))
        for column in self.columns.values():
            column.save()
        metadata = {
            "schema": self.schema.to_dict(),
            "notes": self.notes,
            "arrays": {name: files.seal(column.path) for name, column in self.columns.items()},
        }
        files.write_metadata(self.folder / "facts.json", metadata)

    def _column(self, name: str) -> Column:
        if name not in self.columns:
            self.columns[name] = Column(self.folder / f"{name}.npy", transposed=name == "edge_index")
        return self.columns[name]
