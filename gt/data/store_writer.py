"""A store's arrays written chunk by chunk, so that only one chunk is in memory at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gt.data import files
from gt.data.arrays import Column
from gt.data.packed import GROUPS, POINTERS, Arrays, Graphs
from gt.schema import Schema


class Writer:
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
