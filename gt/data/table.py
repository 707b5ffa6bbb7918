"""Tables in files: CSV, TSV, JSON Lines and Parquet as columns of cells; every row keeps its location.

Text is parsed by the standard library: unlike the faster parsers of pandas and pyarrow, it reports the line of an error
and can continue after it.
"""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gt.data.reading import ESCAPED, ending, lines, open_bytes, parse_json
from gt.errors import UserError, first_line

Locator = Callable[[int], str]  # the location of a row of a table, such as "nodes.csv, line 7"
Row = tuple[int, list[str] | str]  # the line where a row begins, and its cells, or an error message

TABLES = (".csv", ".tsv", ".tab", ".txt", ".jsonl", ".ndjson", ".parquet")
LONGEST = 2**26  # characters of a line
QUOTED = re.compile(r'"(?:[^"]|"")*"')
COMMA = re.compile(r"[+-]?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+)?,\d+(?:[eE][+-]?\d+)?")  # 3,918 or 1.234,5
WHOLE = re.compile(r"[+-]?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+)(?:[eE][+-]?\d+)?")  # 12 or 1.234.567 with decimal commas
AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}")  # either three decimals or a thousands separator
NUMERIC_SHARE = 0.9  # the share of cells that must be numbers in a numeric column

csv.field_size_limit(LONGEST)


@dataclass
class Table:
    """R rows in columns.

    Attributes:
        name: the name of the table in messages; from `read_table`, its path.
        columns: (R,) cells by name; `read_table` leaves those of text files as they are, None in rows of ``faults``.
        location: returns the location of a row.
        header: the column names in the file, in the order of ``columns``; empty if the file does not name them.
        lines: (R,) the line of the file where each row begins, from 1; None if the file has no lines.
        faults: by row that could not be read, its text and the reason.
        spoiled: by column, the rows whose cell has a byte that is not UTF-8, and that byte.
        commas: numbers may have decimal commas, as the delimiter is not a comma.
    """

    name: str
    columns: dict[str, np.ndarray]
    location: Locator
    header: Sequence[str] = ()
    lines: np.ndarray | None = None
    faults: dict[int, tuple[str, str]] = field(default_factory=dict)
    spoiled: dict[str, dict[int, int]] = field(default_factory=dict)
    commas: bool = False

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()) if self.lines is None else self.lines)

    def take(self, rows: np.ndarray) -> "Table":
        """The given rows, with their original locations."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Table(self.name, columns, lambda row: self.location(int(rows[row])))

    def written(self, name: str) -> str:
        """The name of a column in the file."""
        return dict(zip(self.columns, self.header, strict=False)).get(name, name)

    def as_written(self) -> pd.DataFrame:
        """The columns, by their names in the file."""
        return pd.DataFrame({self.written(name): values for name, values in self.columns.items()})

    def select(self, names: Sequence[str]) -> list[np.ndarray] | None:
        """The columns of the given names, empty if missing; None if all are missing."""
        empty = np.full(len(self), None)
        return [self.columns.get(name, empty) for name in names] if {*names} & self.columns.keys() else None

    def refuse_repeated(self, names: Collection[str]) -> None:
        """Check that none of these column names is repeated in the file.

        Raises:
            UserError: one is.
        """
        for name, header in zip(self.columns, self.header, strict=False):
            if name in names and header and self.header.count(header) > 1:
                raise UserError(f"{self.name}, line 1: several columns are called '{header}': rename all but one")

    def others(self, *names: str) -> list[str]:
        """All columns except those of the given names."""
        return [name for name in self.columns if name not in names]


def read_table(
    path: Path,
    header: Callable[[list[str]], bool] = bool,
    lenient: bool = False,
    raw_tabs: bool = False,
    most: int | None = None,
) -> Table:
    """Read a file by its suffix, one of `TABLES`, optionally gzipped.

    The delimiter of text files, a comma, semicolon or tab, is inferred from the first line; blank lines are skipped.

    Args:
        header: whether the first row of a text file, passed as cells, is a header; else columns are numbered from 0.
        lenient: record unreadable rows and bytes that are not UTF-8 in the table instead of raising.
        raw_tabs: in a ``.tsv`` file the delimiter is always a tab, and quotes have no special meaning.
        most: maximum number of rows to read from a text file, including the header.

    Raises:
        UserError: the file is missing, damaged or empty, or a line cannot be read; gives the line.
    """
    kind = ending(path)
    if kind == ".parquet":
        return _parquet(path)
    if kind in (".jsonl", ".ndjson"):
        return _json_lines(path, most)
    text, head = lines(path, lenient, LONGEST), list[str]()
    for line in text:
        head.append(line)
        if line.strip():
            break
    raw = raw_tabs and kind == ".tsv"
    delimiter = "\t" if raw else delimiter_of(head[-1] if head else "", tabs=kind in (".tsv", ".tab"))
    quoting: Any = csv.QUOTE_NONE if raw else csv.QUOTE_MINIMAL
    reader = csv.reader(chain(head, text), delimiter=delimiter, quoting=quoting, strict=True)
    return table_of(path, islice(_rows(path, reader), most), header, lenient, commas=delimiter != ",")


def _rows(path: Path, reader: Any) -> Iterator[Row]:
    while True:
        begin = reader.line_num + 1
        try:
            if cells := next(reader):
                yield begin, cells
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise UserError(f"{path}, line {begin}: a quote opened here is never closed") from None
            yield begin, str(error)


def table_of(
    path: Path, rows: Iterable[Row], header: Callable[[list[str]], bool], lenient: bool = True, commas: bool = False
) -> Table:
    """A table from rows that have been parsed by other means; otherwise as `read_table`."""
    rows, head = iter(rows), list[Row]()
    for first in rows:
        head.append(first)
        if any(cell.strip() for cell in first[1]):
            break
    else:
        raise UserError(f"{path} is empty: it should have a header line, and rows below")
    begin, names = head[0]
    if isinstance(names, str):
        raise UserError(f"{path}, line {begin}: {names}; quote names that contain quotes")
    names = [visible(name.strip()) for name in names]
    has_header, width = header(names), len(names)
    begins: list[int] = []
    cells: list[str] = []  # of all rows: the garbage collector would traverse millions of lists again and again
    table = Table(str(path), {}, lambda row: f"{path}, line {begins[row]}", names if has_header else (), commas=commas)
    for begin, row in chain(head[has_header:], rows):
        if isinstance(row, str) or len(row) != width:
            expected = f"the {'header' if has_header else 'first line'} has {width}"
            reason = row if isinstance(row, str) else f"{len(row)} cells where {expected}"
            if not lenient:
                raise UserError(f"{path}, line {begin}: {reason}")
            table.faults[len(begins)] = ("" if isinstance(row, str) else visible(",".join(row)), reason)
            row = [""] * width
        begins.append(begin)
        cells += row
    values = np.array(cells, dtype=object).reshape(len(begins), width)
    for name, column in zip(unique(names) if has_header else map(str, range(width)), values.T, strict=True):
        for index, cell in enumerate(column) if lenient and ESCAPED.search("".join(column)) else ():
            if byte := ESCAPED.search(cell):
                table.spoiled.setdefault(name, {})[index] = ord(byte[0]) - 0xDC00
                column[index] = visible(cell)
        table.columns[name] = column
    values[list(table.faults)] = None
    table.lines = np.array(begins, np.int64)
    return table


def table_of_records(path: Path, records: Sequence[Mapping[str, Any]], starts: Sequence[int]) -> Table:
    """A table from records and the lines where they begin; missing values are None."""
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {name: np.fromiter((record.get(name) for record in records), object, len(records)) for name in names}
    return Table(str(path), columns, lambda row: f"{path}, line {starts[row]}", names, np.array(starts, np.int64))


def _json_lines(path: Path, most: int | None) -> Table:
    records, starts = [], []
    numbered_lines = ((number, line) for number, line in enumerate(lines(path, longest=LONGEST), 1) if line.strip())
    for number, line in islice(numbered_lines, most):
        record = parse_json(line, path, number)
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: each line should be a JSON object, with cells by column name")
        records.append(record)
        starts.append(number)
    if not any(records):
        raise UserError(f"{path} is empty: each line should be a JSON object, with cells by column name")
    return table_of_records(path, records, starts)


def _parquet(path: Path) -> Table:
    with open_bytes(path) as stream:
        try:
            from pyarrow import parquet  # late: optional dependency

            content = parquet.read_table(io.BytesIO(stream.read()) if path.suffix.lower() == ".gz" else path)
            frame = content.to_pandas(integer_object_nulls=True)  # else integers with gaps become floats
            index = [name for name in frame.index.names if name is not None and name not in frame.columns]
            frame = frame.reset_index(index)  # index levels that are not columns become columns
        except ImportError:
            raise UserError(f"{path}: Parquet needs pyarrow, which is not installed: pip install pyarrow") from None
        except Exception as error:
            raise UserError(f"{path} cannot be read as Parquet: {first_line(error)}") from None
    header = [str(name).strip() for name in frame.columns]
    columns = {}
    for name, (_, column) in zip(unique(header), frame.items(), strict=True):
        gaps = column.dtype.kind in "iu" and column.hasnans  # a nullable integer dtype of pandas
        cells = columns[name] = column.to_numpy(object if gaps else None, copy=True)
        if cells.dtype.kind == "O":
            cells[pd.isna(cells)] = None
            cells[:] = [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells]
    return Table(str(path), columns, lambda row: f"{path}, row {row}", header)


def delimiter_of(line: str, tabs: bool = False) -> str:
    """The first delimiter found outside of quotes: comma, semicolon or tab, in this order; tab first if ``tabs``."""
    unquoted = QUOTED.sub("", line)
    order = "\t,;" if tabs else ",;\t"
    return next((mark for mark in order if mark in unquoted), order[0])


def plain(cells: np.ndarray, missing: Collection[str] = ("",), commas: bool = False) -> np.ndarray:
    """(R,) cells with text stripped, and None for those that are ``missing``.

    Args:
        commas: convert decimal commas to points, see `decimal_points`.
    """
    column_text = [
        cell if not isinstance(cell, str) else None if (word := cell.strip()) in missing else word
        for cell in cells.tolist()
    ]
    return np.fromiter(decimal_points(column_text) if commas else column_text, object, len(column_text))


def with_commas(cells: Iterable[Any]) -> bool:
    """Whether nearly all cells of a column are numbers if commas are read as decimal, and some have such commas."""
    filled = [str(cell) for cell in cells if cell]
    commas = sum(COMMA.fullmatch(cell) is not None for cell in filled)
    return commas > 0 and commas + sum(WHOLE.fullmatch(cell) is not None for cell in filled) >= NUMERIC_SHARE * len(
        filled
    )


def first_ambiguous(cells: Iterable[Any]) -> int | None:
    """The first cell of a column `with_commas` that is ambiguous by a factor of a thousand; None if there is none.

    1,234 may have a thousands separator unless another cell, such as 12,5 or 0,123, shows that commas are decimal; and
    1.234 may have three decimals unless another cell, such as 1.234,5, shows that points separate thousands.
    """
    words = list(map(str, cells))
    matches = [AMBIGUOUS.fullmatch(word) for word in words]
    unambiguous = [word for word, match in zip(words, matches, strict=True) if not match and COMMA.fullmatch(word)]
    ambiguous = ("" if unambiguous else ",") + ("" if any("." in word for word in unambiguous) else ".")
    return next((row for row, match in enumerate(matches) if match and match[1] in ambiguous), None)


def decimal_points(cells: Sequence[str | None]) -> Sequence[str | None]:
    """The cells of a column with decimal commas replaced by points, if that is unambiguous; else unchanged.

    With decimal commas, points separate thousands. Only for files whose delimiter is not a comma.
    """
    if not with_commas(cells) or first_ambiguous(cells) is not None:
        return cells
    return [
        cell.replace(".", "").replace(",", ".") if cell and (COMMA.fullmatch(cell) or WHOLE.fullmatch(cell)) else cell
        for cell in cells
    ]


def visible(text: str) -> str:
    """The same text, with bytes that are not UTF-8 escaped, such as ``\\xe9``."""
    return text if text.isascii() else ESCAPED.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)


def unique(names: Sequence[str]) -> list[str]:
    """Unique column names: an empty one is named by its position, a repeated one gets a number."""
    distinct: dict[str, None] = {}
    for position, name in enumerate(names, 1):
        name = name or f"column {position}"
        numbered = (f"{name} ({number})" for number in count(2))
        distinct[next(candidate for candidate in chain([name], numbered) if candidate not in distinct)] = None
    return list(distinct)
