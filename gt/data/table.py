"""Tables in files: CSV, TSV, JSON Lines and Parquet as columns of cells; every row is known by where it stands.

The standard library parts the cells of a text: it says on which line a fault is and reads on, which the faster parsers
of pandas and pyarrow do not.
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

from gt.data.reading import ESCAPED, ending, lines, opened, parse_json
from gt.errors import UserError, first_line

Where = Callable[[int], str]  # says where row r of a table stands, such as "nodes.csv, line 7"
Row = tuple[int, list[str] | str]  # the line where a row begins, and its cells, or what is wrong with it

TABLES = (".csv", ".tsv", ".tab", ".txt", ".jsonl", ".ndjson", ".parquet")
LONGEST = 2**26  # characters of a line
QUOTED = re.compile(r'"(?:[^"]|"")*"')
COMMA = re.compile(r"[+-]?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+)?,\d+(?:[eE][+-]?\d+)?")  # 3,918 or 1.234,5
WHOLE = re.compile(r"[+-]?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+)(?:[eE][+-]?\d+)?")  # 12 or 1.234.567 beside such
EITHER = re.compile(r"[+-]?[1-9]\d{0,2}([.,])\d{3}")  # a number of three decimals, or of thousands
MOST = 0.9  # the share of a column's cells that are numbers where it is one of numbers

csv.field_size_limit(LONGEST)


@dataclass
class Table:
    """R rows in columns.

    Attributes:
        name: what messages call the table; of `read_table` its path.
        columns: (R,) cells by name; `read_table` gives those of a text as they stand there, None in a row of `faults`.
        where: names the place of a row.
        header: the names as the file has them, in the order of ``columns``; none where it does not name its columns.
        lines: (R,) the line of the file where each row begins, from 1; None where it has no lines.
        faults: by row that could not be read, its text and what is wrong with it.
        spoiled: by column, the rows whose cell has a byte that is not UTF-8 text, and which byte.
        commas: numbers may have decimal commas, as something else parts the cells.
    """

    name: str
    columns: dict[str, np.ndarray]
    where: Where
    header: Sequence[str] = ()
    lines: np.ndarray | None = None
    faults: dict[int, tuple[str, str]] = field(default_factory=dict)
    spoiled: dict[str, dict[int, int]] = field(default_factory=dict)
    commas: bool = False

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()) if self.lines is None else self.lines)

    def take(self, rows: np.ndarray) -> "Table":
        """The given rows, each still known by where it stands."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Table(self.name, columns, lambda row: self.where(int(rows[row])))

    def written(self, name: str) -> str:
        """What the file calls a column."""
        return dict(zip(self.columns, self.header, strict=False)).get(name, name)

    def as_written(self) -> pd.DataFrame:
        """The columns, by the names of the file."""
        return pd.DataFrame({self.written(name): values for name, values in self.columns.items()})

    def select(self, names: Sequence[str]) -> list[np.ndarray] | None:
        """The columns of the given names, empty ones for those that are missing; None where all are."""
        empty = np.full(len(self), None)
        return [self.columns.get(name, empty) for name in names] if {*names} & self.columns.keys() else None

    def refuse_repeated(self, names: Collection[str]) -> None:
        """Whether the file calls no two columns like one of these.

        Raises:
            UserError: it does.
        """
        for name, own in zip(self.columns, self.header, strict=False):
            if name in names and own and self.header.count(own) > 1:
                raise UserError(f"{self.name}, line 1: several columns are called '{own}': rename all but one")

    def others(self, *names: str) -> list[str]:
        """The columns but for those of the given names."""
        return [name for name in self.columns if name not in names]


def read_table(
    path: Path,
    header: Callable[[list[str]], bool] = bool,
    lenient: bool = False,
    raw_tabs: bool = False,
    most: int | None = None,
) -> Table:
    """Read a file by its ending, one of `TABLES`, unpacked where it is gzipped.

    A text is parted by commas, semicolons or tabs, which its first line tells; blank lines are passed over.

    Args:
        header: whether the first cells of a text name its columns; else these are called by their numbers from 0.
        lenient: a row that cannot be read, and a byte that is no text, are noted in the table, not refused.
        raw_tabs: in a ``.tsv`` file tabs part the cells whatever its first line has, and a quote is a quote.
        most: rows of a text to read, the one of the header among them.

    Raises:
        UserError: no such file, one that is damaged or empty; the line that cannot be read.
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
                raise UserError(f"{path}, line {begin}: a quote that opens there is never closed") from None
            yield begin, str(error)


def table_of(
    path: Path, rows: Iterable[Row], header: Callable[[list[str]], bool], lenient: bool = True, commas: bool = False
) -> Table:
    """A table of the rows of a text, for whoever parts them otherwise; the rest as in `read_table`."""
    rows, head = iter(rows), list[Row]()
    for first in rows:
        head.append(first)
        if any(cell.strip() for cell in first[1]):
            break
    else:
        raise UserError(f"{path} is empty: it should have a line that names the columns, and rows below")
    begin, names = head[0]
    if isinstance(names, str):
        raise UserError(f"{path}, line {begin}: {names}; quote names that hold quotes")
    names = [visible(name.strip()) for name in names]
    named, width = header(names), len(names)
    begins: list[int] = []
    cells: list[str] = []  # of all rows: garbage collection would look at millions of lists again and again
    table = Table(str(path), {}, lambda row: f"{path}, line {begins[row]}", names if named else (), commas=commas)
    for begin, row in chain(head[named:], rows):
        if isinstance(row, str) or len(row) != width:
            expected = f"the {'header' if named else 'first line'} has {width}"
            why = row if isinstance(row, str) else f"{len(row)} cells where {expected}"
            if not lenient:
                raise UserError(f"{path}, line {begin}: {why}")
            table.faults[len(begins)] = ("" if isinstance(row, str) else visible(",".join(row)), why)
            row = [""] * width
        begins.append(begin)
        cells += row
    values = np.array(cells, dtype=object).reshape(len(begins), width)
    for name, column in zip(unique(names) if named else map(str, range(width)), values.T, strict=True):
        for place, cell in enumerate(column) if lenient and ESCAPED.search("".join(column)) else ():
            if byte := ESCAPED.search(cell):
                table.spoiled.setdefault(name, {})[place] = ord(byte[0]) - 0xDC00
                column[place] = visible(cell)
        table.columns[name] = column
    values[list(table.faults)] = None
    table.lines = np.array(begins, np.int64)
    return table


def table_of_records(path: Path, records: Sequence[Mapping[str, Any]], places: Sequence[int]) -> Table:
    """A table of values by name, and the lines where each row begins; what a row lacks is None."""
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {name: np.fromiter((record.get(name) for record in records), object, len(records)) for name in names}
    return Table(str(path), columns, lambda row: f"{path}, line {places[row]}", names, np.array(places, np.int64))


def _json_lines(path: Path, most: int | None) -> Table:
    records, places = [], []
    written = ((number, line) for number, line in enumerate(lines(path, longest=LONGEST), 1) if line.strip())
    for number, line in islice(written, most):
        record = parse_json(line, path, number)
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: a line should be an object, its cells by the names of columns")
        records.append(record)
        places.append(number)
    if not any(records):
        raise UserError(f"{path} is empty: each line should be an object, its cells by the names of columns")
    return table_of_records(path, records, places)


def _parquet(path: Path) -> Table:
    with opened(path) as stream:
        try:
            from pyarrow import parquet  # late, for not all have it

            content = parquet.read_table(io.BytesIO(stream.read()) if path.suffix.lower() == ".gz" else path)
            frame = content.to_pandas(integer_object_nulls=True)  # else 1 is 1.0 in a column with gaps
            index = [name for name in frame.index.names if name is not None and name not in frame.columns]
            frame = frame.reset_index(index)  # what pandas keeps as the index alone is a column, too
        except ImportError:
            raise UserError(
                f"{path}: Parquet is read by pyarrow, which is not installed: pip install pyarrow"
            ) from None
        except Exception as error:
            raise UserError(f"{path} is not a Parquet file that can be read: {first_line(error)}") from None
    header = [str(name).strip() for name in frame.columns]
    columns = {}
    for name, (_, column) in zip(unique(header), frame.items(), strict=True):
        gaps = column.dtype.kind in "iu" and column.hasnans  # in pandas' own type of whole numbers
        cells = columns[name] = column.to_numpy(object if gaps else None, copy=True)
        if cells.dtype.kind == "O":
            cells[pd.isna(cells)] = None
            cells[:] = [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells]
    return Table(str(path), columns, lambda row: f"{path}, row {row}", header)


def delimiter_of(line: str, tabs: bool = False) -> str:
    """Comma, semicolon or tab: the first of these, or where ``tabs`` tab first, that a line has outside of quotes."""
    plain = QUOTED.sub("", line)
    order = "\t,;" if tabs else ",;\t"
    return next((mark for mark in order if mark in plain), order[0])


def plain(cells: np.ndarray, missing: Collection[str] = ("",), commas: bool = False) -> np.ndarray:
    """(R,) text without the blanks around it, None where a cell is ``missing``; other values as they are.

    Args:
        commas: decimal commas become points, see `decimal_points`.
    """
    text = [
        cell if not isinstance(cell, str) else None if (word := cell.strip()) in missing else word
        for cell in cells.tolist()
    ]
    return np.fromiter(decimal_points(text) if commas else text, object, len(text))


def with_commas(cells: Iterable[Any]) -> bool:
    """Whether nearly all cells of a column are numbers once commas are decimal ones, and some have such."""
    filled = [str(cell) for cell in cells if cell]
    commas = sum(COMMA.fullmatch(cell) is not None for cell in filled)
    return commas > 0 and commas + sum(WHOLE.fullmatch(cell) is not None for cell in filled) >= MOST * len(filled)


def unsure(cells: Iterable[Any]) -> int | None:
    """The first cell of a column `with_commas` that may be a thousand times as large; None where all are plain.

    1,234 has thousands unless another cell, such as 12,5 or 0,123, says that commas are decimal; and 1.234 has three
    decimals, as it would in a file without commas, unless another, such as 1.234,5, says that points part thousands.
    """
    words = list(map(str, cells))
    either = [EITHER.fullmatch(word) for word in words]
    plain = [word for word, match in zip(words, either, strict=True) if not match and COMMA.fullmatch(word)]
    doubtful = ("" if plain else ",") + ("" if any("." in word for word in plain) else ".")
    return next((row for row, match in enumerate(either) if match and match[1] in doubtful), None)


def decimal_points(cells: Sequence[str | None]) -> Sequence[str | None]:
    """The cells of a column with points for decimal commas, where all are plain; else the same.

    Beside a decimal comma, points part thousands. For columns that semicolons or tabs part: a comma is then free.
    """
    if not with_commas(cells) or unsure(cells) is not None:
        return cells
    return [
        cell.replace(".", "").replace(",", ".") if cell and (COMMA.fullmatch(cell) or WHOLE.fullmatch(cell)) else cell
        for cell in cells
    ]


def visible(text: str) -> str:
    """The same text, each byte that is no text written as ``\\xe9``."""
    return text if text.isascii() else ESCAPED.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)


def unique(names: Sequence[str]) -> list[str]:
    """Names of columns: an empty one is called by its place, one that repeats gets a number."""
    distinct: dict[str, None] = {}
    for place, name in enumerate(names, 1):
        name = name or f"column {place}"
        numbered = (f"{name} ({number})" for number in count(2))
        distinct[next(each for each in chain([name], numbered) if each not in distinct)] = None
    return list(distinct)
