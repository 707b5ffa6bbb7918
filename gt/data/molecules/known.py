"""Molecules that are new to a trained model: every row of a file in its order, labelled or not."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pandas as pd

from gt.data.datamodule import Records
from gt.data.molecules.skipped import SkippedRows
from gt.data.molecules.smiles import smiles_graphs
from gt.data.molecules.table_columns import named, smiles_column
from gt.data.molecules.table_files import read_table
from gt.data.molecules.table_targets import where
from gt.data.parallel import mapped
from gt.data.store import Graphs
from gt.data.targets import known_targets, no_targets, say_strange
from gt.schema import Schema


def known_molecules(
    path: Path, smiles: str | None, known: Schema, processes: int | None, part: int
) -> Generator[Graphs, None, Records]:
    """The molecules of a file in chunks, without splits; returns what stands in its rows.

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
    table = read_table(path, smiles or learned, empty=True)
    frame = table.frame
    if smiles is not None:
        column = named(table, smiles, path, "data.smiles")
    else:
        column = learned if learned is not None and learned in frame.columns else smiles_column(table, path)
    skipped = SkippedRows(table)
    texts = ["" if missing else str(cell) for cell, missing in zip(frame[column], frame[column].isna(), strict=True)]
    for place, text in enumerate(texts):
        if not text:
            skipped.add(place, "", "no molecule")
    for place, byte in table.spoiled.get(column, {}).items():
        skipped.add(place, texts[place], f"byte 0x{byte:02x} is not UTF-8 text, in '{column}'")
    y = no_targets(len(frame), known)
    if known.target and set(known.target) <= set(frame.columns):
        y, strange = known_targets([frame[name].to_numpy(dtype=object) for name in known.target], known)
        say_strange(strange, lambda place: f"{path}, {where(table, place)}")
    rows = frame.index.to_numpy(np.int64)
    places = np.array([place for place, row in enumerate(rows.tolist()) if row not in skipped], np.int64)
    parts = [places[begin : begin + part] for begin in range(0, len(places), part)] or [places]
    found = mapped(smiles_graphs, [[texts[place] for place in some] for some in parts], processes, "reading molecules")
    kept: list[np.ndarray] = []
    for some, molecules in zip(parts, found, strict=True):
        for among, why in molecules.failed:
            skipped.add(int(some[among]), texts[some[among]], why)
        mine = some[molecules.kept]
        kept.append(mine)
        yield molecules.graphs({"y": y[mine]}, known)
    every = pd.DataFrame(frame).reindex(range(table.rows))
    return Records(every, rows[np.concatenate(kept)], skipped.by_row(path))
