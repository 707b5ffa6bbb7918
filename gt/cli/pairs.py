"""A table of pairs of nodes: is each linked, in the graph that a model was trained on?"""

from pathlib import Path

import numpy as np
import pandas as pd

from gt.data.datamodule import DataModule
from gt.data.graphs import Stored
from gt.data.large.links import LinkData
from gt.data.source import Records
from gt.data.table import read_table
from gt.errors import UserError

ENDS = (("source", "target"), ("from_node", "to_node"))  # what columns of pairs are called


def ask_pairs(data: DataModule, path: Path) -> None:
    """Let the split `ALL` be the pairs of a table; rows that hold none are listed in the source's ``records``.

    Args:
        data: open.
        path: a table with two columns of node numbers, or of ids where the data have such, as `ENDS` or, without such,
            the first two.

    Raises:
        UserError: the model is asked for no links, or the table has fewer columns.
    """
    if isinstance(data, Stored) and data.schema.level == "link" and not isinstance(data, LinkData):
        raise UserError(f"--pairs {path}: the pairs are named by these data, within each of their graphs: leave it out")
    if not isinstance(data, LinkData):
        raise UserError(f"--pairs {path}: this model does not predict links")
    table = read_table(path, lenient=True)
    names = next((ends for ends in ENDS if {*ends} <= table.columns.keys()), tuple(table.columns)[:2])
    if len(names) < 2:
        raise UserError(f"{path} has one column: a pair takes two, such as source and target")
    nodes = int(data.graphs.node_ptr[-1])
    cells = [pd.Series(table.columns[name]) for name in names]
    known = data.source.ids()
    if known is None:
        numbers = [pd.to_numeric(column, errors="coerce").to_numpy(np.float64) for column in cells]
        ends = np.stack(numbers, axis=1)  # (rows, 2)
        wrong, what = ~((ends >= 0) & (ends < nodes) & (ends == np.floor(ends))), f"where a node is 0 to {nodes - 1}"
    else:
        ends = np.stack([known.get_indexer(pd.Index(column.astype(str).str.strip())) for column in cells], axis=1)
        wrong, what = ends < 0, "which is no node of the graph"
    unreadable = {}
    for row in map(int, np.flatnonzero(wrong.any(1))):
        end = int(wrong[row].argmax())
        cell = table.columns[names[end]][row]
        unreadable[row] = f"{table.where(row)}: {names[end]} is {cell!r}, {what}"
    unreadable |= {row: f"{table.where(row)}: {why}" for row, (_, why) in table.faults.items()}
    rows = np.setdiff1d(np.arange(len(table)), list(unreadable))
    data.source.records = Records(pd.DataFrame(table.columns), rows, dict(sorted(unreadable.items())))
    data.ask(ends[rows].astype(np.int64))
