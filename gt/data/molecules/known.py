"""New molecules for a trained model: every row of a file in order, labelled or not."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pandas as pd

from gt.data.molecules.columns import find_column, smiles_column
from gt.data.molecules.files import read_molecules
from gt.data.molecules.smiles import smiles_graphs
from gt.data.packed import Graphs
from gt.data.parallel import parallel_map
from gt.data.skipped import SkippedRows
from gt.data.source import Records
from gt.data.table import Table
from gt.data.targets import known_targets
from gt.schema import Schema


def known_molecules(
    path: Path, smiles: str | None, model_schema: Schema, processes: int | None, part: int
) -> Generator[Graphs, None, Records]:
    """Yield the molecules of a file in chunks, without splits, and return its rows; see `molecules_of`.

    Args:
        path: the file.
        smiles: the user's column of molecules; None takes the one used in training, or detects it.
        model_schema: the schema of the trained model.
        processes: number of processes that parse molecules.
        part: molecules per task of a process.

    Raises:
        UserError: the file cannot be read, or no column holds molecules.
    """
    trained = next(iter(model_schema.node_names), None)
    table = read_molecules(path, smiles or trained, empty=True)
    if smiles is not None:
        column = find_column(table, smiles, "data.smiles")
    else:
        column = trained if trained in table.columns else smiles_column(table)
    return (yield from molecules_of(table, column, model_schema, processes, part))


def molecules_of(
    table: Table, column: str, model_schema: Schema, processes: int | None, part: int
) -> Generator[Graphs, None, Records]:
    """Yield the molecules in a column of a table in chunks, without splits, and return the rows of the table."""
    skipped = SkippedRows(table)
    cells = table.columns[column]
    texts = ["" if missing else str(cell) for cell, missing in zip(cells, pd.isna(cells), strict=True)]
    for row in np.flatnonzero(pd.isna(cells)):
        skipped.add(row, "", "no molecule")
    skipped.add_spoiled(column, column)
    y = known_targets(table.select(model_schema.target), len(table), model_schema, table.location)
    rows = skipped.others()
    parts = [rows[start : start + part] for start in range(0, len(rows), part)] or [rows]
    arrays = parallel_map(smiles_graphs, [[texts[row] for row in ids] for ids in parts], processes, "reading molecules")
    valid: list[np.ndarray] = []
    for ids, molecules in zip(parts, arrays, strict=True):
        for index, reason in molecules.failed:
            skipped.add(ids[index], texts[ids[index]], reason)
        valid.append(ids[molecules.indices])
        chunk = molecules.graphs({"y": y[valid[-1]]}, model_schema)
        chunk.notes = {"smiles": column}
        yield chunk
    return Records(pd.DataFrame(table.columns), np.concatenate(valid), skipped.reasons())
