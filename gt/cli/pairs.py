"""Read a table of node pairs for which to predict links in the graph that a model was trained on."""

from pathlib import Path

import numpy as np
import pandas as pd

from gt.data.datamodule import DataModule
from gt.data.graphs import Stored
from gt.data.large.links import LinkData
from gt.data.source import Records
from gt.data.table import read_table
from gt.errors import UserError

COLUMN_NAMES = (("source", "target"), ("from_node", "to_node"))  # of the two ends of a pair


def ask_pairs(data: DataModule, path: Path) -> None:
    """Make the pairs of a table the split `ALL`; unreadable rows are listed in the source's ``records``.

    Args:
        data: opened data.
        path: a table of node numbers, or of ids if the data have them, in two columns named as in `COLUMN_NAMES`, else
            in the first two.

    Raises:
        UserError: the model does not predict links, the data already name the pairs, or the table has one column.
    """
    if isinstance(data, Stored) and data.schema.level == "link" and not isinstance(data, LinkData):
        raise UserError(f"--pairs {path}: these data already name the pairs within each graph: leave it out")
    if not isinstance(data, LinkData):
        raise UserError(f"--pairs {path}: this model does not predict links")
    table = read_table(path, lenient=True)
    names = next((ends for ends in COLUMN_NAMES if {*ends} <= table.columns.keys()), tuple(table.columns)[:2])
    if len(names) < 2:
        raise UserError(f"{path} has one column: pairs need two, such as source and target")
    nodes = int(data.graphs.node_ptr[-1])
    cells = [pd.Series(table.columns[name]) for name in names]
    ids = data.source.ids()
    if ids is None:
        numbers = [pd.to_numeric(column, errors="coerce").to_numpy(np.float64) for column in cells]
        ends = np.stack(numbers, axis=1)  # (rows, 2)
        invalid, fault = (
            ~((ends >= 0) & (ends < nodes) & (ends == np.floor(ends))),
            f"but nodes are numbered 0 to {nodes - 1}",
        )
    else:
        ends = np.stack([ids.get_indexer(pd.Index(column.astype(str).str.strip())) for column in cells], axis=1)
        invalid, fault = ends < 0, "which is not a node of the graph"
    unreadable = {}
    for row in map(int, np.flatnonzero(invalid.any(1))):
        end = int(invalid[row].argmax())
        cell = table.columns[names[end]][row]
        unreadable[row] = f"{table.location(row)}: {names[end]} is {cell!r}, {fault}"
    unreadable |= {row: f"{table.location(row)}: {reason}" for row, (_, reason) in table.faults.items()}
    rows = np.setdiff1d(np.arange(len(table)), list(unreadable))
    data.source.records = Records(pd.DataFrame(table.columns), rows, dict(sorted(unreadable.items())))
    data.ask(ends[rows].astype(np.int64))
