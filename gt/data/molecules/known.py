"""Molecules that are new to a trained model: every row of a file in its order, labelled or not."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pandas as pd

from gt.data.molecules.columns import named, smiles_column
from gt.data.molecules.files import read_molecules
from gt.data.molecules.smiles import smiles_graphs
from gt.data.packed import Graphs
from gt.data.parallel import mapped
from gt.data.skipped import SkippedRows
from gt.data.source import Records
from gt.data.table import Table
from gt.data.targets import known_targets
from gt.schema import Schema


def known_molecules(
    path: Path, smiles: str | None, known: Schema, processes: int | None, part: int
) -> Generator[Graphs, None, Records]:
    """The molecules of a file in chunks, without splits; returns what stands in its rows, see `molecules_of`.

    Args:
        path: the file.
        smiles: the column that the user names for molecules; None takes that of the training, or finds it.
        known: of the trained model.
        processes: how many read molecules.
        part: molecules that a process reads at a time.

    Raises:
        UserError: the file cannot be read, or no column holds molecules.
    """
    learned = next(iter(known.node_names), None)
    table = read_molecules(path, smiles or learned, empty=True)
    if smiles is not None:
        column = named(table, smiles, "data.smiles")
    else:
        column = learned if learned in table.columns else smiles_column(table)
    return (yield from molecules_of(table, column, known, processes, part))


def molecules_of(
    table: Table, column: str, known: Schema, processes: int | None, part: int
) -> Generator[Graphs, None, Records]:
    """The molecules in a column of a table in chunks, without splits; returns what stands in its rows."""
    skipped = SkippedRows(table)
    cells = table.columns[column]
    texts = ["" if missing else str(cell) for cell, missing in zip(cells, pd.isna(cells), strict=True)]
    for row in np.flatnonzero(pd.isna(cells)):
        skipped.add(row, "", "no molecule")
    skipped.add_spoiled(column, column)
    y = known_targets(table.select(known.target), len(table), known, table.where)
    rows = skipped.others()
    parts = [rows[begin : begin + part] for begin in range(0, len(rows), part)] or [rows]
    arrays = mapped(smiles_graphs, [[texts[row] for row in some] for some in parts], processes, "reading molecules")
    kept: list[np.ndarray] = []
    for some, molecules in zip(parts, arrays, strict=True):
        for place, why in molecules.failed:
            skipped.add(some[place], texts[some[place]], why)
        kept.append(some[molecules.kept])
        chunk = molecules.graphs({"y": y[kept[-1]]}, known)
        chunk.notes = {"smiles": column}
        yield chunk
    return Records(pd.DataFrame(table.columns), np.concatenate(kept), skipped.reasons())
