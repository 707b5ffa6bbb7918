"""New texts for a trained model: every row of a file in order, labelled or not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gt.data.files import print_line
from gt.data.reading import lines
from gt.data.source import Records
from gt.data.table import Row, Table, plain, read_table, table_of
from gt.data.targets import known_targets
from gt.data.text.labelled import TEXTS, as_text, has_header, kind_of, longest_column, usual_column
from gt.errors import UserError, nearest, shell_override
from gt.schema import Schema, format_list

COLUMN_PREFIX = "column "  # of the names of columns without a header, followed by their 0-based numbers


def known_texts(paths: Sequence[Path], text: str | None, model_schema: Schema) -> tuple[list[str], np.ndarray, Records]:
    """The texts of CSV, TSV, JSONL or Parquet files, or the lines of other files, with their targets and rows.

    The text column is the given one, else the one used in training, else one with a usual name, else the only one. In a
    file without a header, columns are numbered from 0.

    Args:
        text: the column given by the user.
        model_schema: the schema of the trained model.

    Raises:
        UserError: a missing or empty file, or no column that can be identified as the text.
    """
    tables = [_read(path, text, model_schema) for path in paths]
    return texts_of(tables, [_text_column(table, text, model_schema) for table in tables], model_schema)


def texts_of(
    tables: Sequence[Table], columns: Sequence[str], model_schema: Schema
) -> tuple[list[str], np.ndarray, Records]:
    """The texts in a column of each table, with their targets and rows."""
    ends = np.cumsum([0, *map(len, tables)])

    def where(row: int) -> str:
        part = int(np.searchsorted(ends, row, side="right")) - 1
        return tables[part].location(row - int(ends[part]))

    texts: list[str] = []
    unreadable: dict[int, str] = {}
    for table, column in zip(tables, columns, strict=True):
        for row, cell in enumerate(table.columns[column]):
            if fault := _fault(table, column, row):
                unreadable[len(texts)] = f"{table.location(row)}: {fault}"
            texts.append(cell)
    frames = [
        pd.DataFrame(
            {name: list(map(as_text, pd.Series(cells))) for name, cells in table.columns.items()}, dtype=object
        )
        for table in tables
    ]
    names = [
        next((name for name in model_schema.target if name in table.columns and name != column), None)
        for table, column in zip(tables, columns, strict=True)
    ]
    labels = None
    if None not in names:
        labels = [plain(np.concatenate([frame[name] for frame, name in zip(frames, names, strict=True)]))]
    y = known_targets(
        labels, len(texts), model_schema, lambda row: f"{where(row)}, the label {labels and labels[0][row]!r}"
    )
    readable = np.array([row for row in range(len(texts)) if row not in unreadable], np.int64)
    records = Records(pd.concat(frames, ignore_index=True), readable, unreadable)
    return [texts[row] for row in readable], y[readable], records


def _read(path: Path, text: str | None, model_schema: Schema) -> Table:
    if not kind_of(path):
        rows: list[Row] = [(number, [line.rstrip("\n")]) for number, line in enumerate(lines(path), 1)]
        return table_of(path, [(0, ["text"]), *rows], bool)
    header, certain = has_header(path, (text,), (*model_schema.node_names, *model_schema.target))
    table = read_table(path, lambda _: header, lenient=True, raw_tabs=True)
    trained = next(iter(model_schema.node_names), COLUMN_PREFIX)
    if not (header or certain) and not trained.startswith(COLUMN_PREFIX):
        print_line(
            f"{path}, line 1: '{trained}', the text column in training, is not a name here, so the line is read as "
            "data (set data.text=NAME if it names the columns)"
        )
    if not table.header:
        table.columns = {f"{COLUMN_PREFIX}{name}": cells for name, cells in table.columns.items()}
    return table


def _text_column(table: Table, text: str | None, model_schema: Schema) -> str:
    names = list(table.columns)
    if text is not None:
        name = f"{COLUMN_PREFIX}{text}" if text.isdigit() and text not in names else text
        if name not in names:
            raise UserError(f"{table.name} has no column '{text}' (data.text): {nearest(text, names)}")
        return name
    trained = next((name for name in model_schema.node_names if name in names), None)
    column = trained or usual_column(TEXTS, names) or (names[0] if len(names) == 1 else None)
    if column is None and not table.header:
        column = longest_column(table, names)
    if column is None:
        also = f", or that in training, '{model_schema.node_names[0]}'" if model_schema.node_names else ""
        example = shell_override("data.text", longest_column(table, names))
        hint = f"set data.text to one of {format_list(names, 12)}, such as {example}"
        raise UserError(f"no column of {table.name} has a usual name for the text{also}: {hint}")
    return column


def _fault(table: Table, column: str, row: int) -> str | None:
    """Why the text of a row cannot be read; None if it can."""
    cell = table.columns[column][row]
    if row in table.faults:
        return table.faults[row][1]
    if (byte := table.spoiled.get(column, {}).get(row)) is not None:
        return f"byte 0x{byte:02x} is not UTF-8 text"
    if isinstance(cell, str) or cell is None:
        return None if cell and cell.strip() else "the text is empty"
    return "this is not text"
