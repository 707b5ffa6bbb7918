"""Files as tables: CSV, TSV, SMI and Parquet by their columns, SDF by its structures and properties; gzipped or not.

A file that cannot be read is a `UserError` with the line.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from gt.data.delimited import decimal_points, delimiter_of
from gt.data.molecules.parsing import parses
from gt.data.molecules.sdf import read_sdf
from gt.data.molecules.table import ESCAPED, MISSING, Table, lines_of, unique, visible
from gt.data.reading import opened
from gt.errors import UserError


def read_table(path: Path, smiles: str | None = None, empty: bool = False) -> Table:
    """Read a file by its extension.

    Args:
        smiles: the column of molecules, where it is known. Where that is a number, from 0, and the first line of a
            text has a molecule there, there is no header: columns are called by their numbers then.
        empty: a file may have no rows.

    Raises:
        UserError: no such file, an extension that is not known, a file that is damaged or has no rows.
    """
    kind = _extension(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}: set data.path to an existing one")
    table = READERS[kind](path, smiles)
    if not (len(table.frame) or (empty and not table.skipped)):
        why = "; line {1}: {3}".format(*table.skipped[0]) if table.skipped else ""
        raise UserError(f"{path} has no rows that can be read{why}")
    return table


def _extension(path: Path) -> str:
    """The extension that says how to read a file, ``.gz`` left out."""
    name = path.name.lower().removesuffix(".gz")
    kind = Path(name).suffix
    if kind not in READERS:
        raise UserError(f"{path}: cannot tell what it is from '{kind}'; there are {', '.join(READERS)}, each also .gz")
    return kind


def _delimited(path: Path, smiles: str | None) -> Table:
    """CSV and TSV. Rows with more or fewer cells than the header, or broken quotes, are set aside."""
    with opened(path) as stream:
        lines = lines_of(stream, path)
        first = next(lines, "")
        if not first.strip():
            raise UserError(f"{path}, line 1: no header; the first line must name the columns")
        delimiter = delimiter_of(first, tabs=_extension(path) in (".tsv", ".tab"))
        reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        try:
            header = [visible(name.strip()) for name in next(reader)]
        except csv.Error as error:
            raise UserError(f"{path}, line 1: {error}; quote names that hold quotes") from None
        rows = _rows(path, reader)
        if _headless(header, smiles):
            rows, header = chain([(1, header)], rows), list(map(str, range(len(header))))
        return _from_rows(path, header, rows, commas=delimiter != ",")


def _smi(path: Path, smiles: str | None) -> Table:
    """SMILES and perhaps a name in each line, parted by a blank; where there are tabs, these part any columns."""
    with opened(path) as stream:
        lines = lines_of(stream, path)
        first = next((line for line in lines if line.strip()), "")
        tabs = "\t" in first
        split = (lambda line: line.rstrip("\r\n").split("\t")) if tabs else (lambda line: line.split(maxsplit=1))
        header = [visible(cell.strip()) for cell in split(first)]
        rows: Iterable[tuple[int, list[str]]] = ((number, split(line)) for number, line in enumerate(lines, 2))
        if not header or "smiles" not in header[0].lower():
            rows = chain([(1, header)], rows)
            header = ["smiles", "name", *map(str, range(2, len(header)))][: len(header)]
        if len(header) == 2 and not tabs:
            rows = ((number, cells + [""] * (len(cells) == 1)) for number, cells in rows)  # some have no name
        return _from_rows(path, header, rows, commas=False)


def _headless(cells: Sequence[str], smiles: str | None) -> bool:
    """Whether the first line is a row already: the column of molecules is known by a number, and one stands there."""
    if smiles is None or not smiles.isdecimal() or smiles in cells:
        return False
    return int(smiles) < len(cells) and parses(cells[int(smiles)])


def _rows(path: Path, reader: Any) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The line where each row begins, and its cells, or what is wrong with its quotes."""
    while True:
        begin = reader.line_num + 1
        try:
            yield begin, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise UserError(f"{path}, line {begin}: a quote that opens there is never closed") from None
            yield begin, error


def _from_rows(
    path: Path, header: Sequence[str], rows: Iterable[tuple[int, list[str] | csv.Error]], commas: bool
) -> Table:
    """A table of rows and the lines where they begin; with ``commas``, numbers may have decimal commas."""
    names = unique(header)
    columns: list[list[str]] = [[] for _ in names]
    index: list[int] = []
    lines: list[int] = []
    skipped: list[tuple[int, int, str, str]] = []
    spoiled: dict[str, dict[int, int]] = {}
    row = -1
    for begin, cells in rows:
        if not cells:
            continue  # a blank line
        row += 1
        if isinstance(cells, csv.Error):
            skipped.append((row, begin, "", str(cells)))
            continue
        if len(cells) != len(names):
            text = visible(",".join(cells))
            skipped.append((row, begin, text, f"{len(cells)} cells where the header has {len(names)}"))
            continue
        for name, column, cell in zip(names, columns, cells, strict=True):
            if not cell.isascii() and (byte := ESCAPED.search(cell)):
                spoiled.setdefault(name, {})[len(index)] = ord(byte[0]) - 0xDC00
                cell = visible(cell)
            column.append(cell)
        index.append(row)
        lines.append(begin)
    if len(skipped) > len(index):
        row, line, _, why = skipped[0]
        raise UserError(f"{path}, line {line}: {why}; most rows are so: is the header right?")
    named = {name: _cells(column, commas) for name, column in zip(names, columns, strict=True)}
    frame = pd.DataFrame(named, index=index, dtype=object)
    repeated = {name: own for name, own in zip(names, header, strict=True) if own and header.count(own) > 1}
    return Table(frame, lines, skipped, spoiled, repeated=repeated)


def _cells(column: list[str], commas: bool) -> Sequence[str | None]:
    """Text with blanks around it removed, None where a cell is missing."""
    stripped = (cell.strip() for cell in column)
    found = [None if cell in MISSING else cell for cell in stripped]
    return decimal_points(found) if commas else found


def _parquet(path: Path, smiles: str | None) -> Table:
    with opened(path) as stream:
        try:
            frame = pd.read_parquet(io.BytesIO(stream.read()) if path.suffix.lower() == ".gz" else path)
        except ImportError:
            raise UserError(
                f"{path}: Parquet is read by pyarrow, which is not installed: pip install pyarrow"
            ) from None
        except Exception as error:
            raise UserError(f"{path} is not a Parquet file that can be read: {str(error).splitlines()[0]}") from None
    frame.columns = pd.Index(unique([str(name).strip() for name in frame.columns]))
    return Table(frame.reset_index(drop=True))


READERS: dict[str, Callable[[Path, str | None], Table]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".tab": _delimited,
    ".txt": _delimited,
    ".smi": _smi,
    ".parquet": _parquet,
    ".sdf": read_sdf,
}
