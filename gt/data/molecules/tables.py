"""Tables from files: CSV, TSV and Parquet as columns, and SDF as a table of SMILES and properties; gzipped or not.

A row that cannot be read is set aside with a reason. A file that cannot be read is a `UserError` with the line.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pandas as pd

from gt.data.molecules.smiles import chemistry
from gt.data.reading import opened
from gt.errors import UserError

LONGEST = 2**24  # characters of a line


@dataclass
class Table:
    """R rows of a file.

    Attributes:
        frame: the columns. From text files the cells are text, those that are empty or say NA are missing. Its index
            is the number of the row in the file, counted from 0 over all rows, those set aside included.
        lines: the line of the file where each row of ``frame`` begins, from 1; empty where there are no lines.
        skipped: (row, line, text, why) of the rows that could not be read; line 0 where there are no lines.
        smiles: the column that was made from structures (SDF); None where SMILES are a column of the file.
        repeated: columns that share their name with others, by the names that tell them apart here.
    """

    frame: pd.DataFrame
    lines: list[int] = field(default_factory=list)
    skipped: list[tuple[int, int, str, str]] = field(default_factory=list)
    smiles: str | None = None
    repeated: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return len(self.frame) + len(self.skipped)


def lines_of(stream: IO[bytes], path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text, with their ends; a byte that is none spoils its own cell only.

    Raises:
        UserError: a line without an end, or no such text at all.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    number = 0
    while line := text.readline(LONGEST):
        number += 1
        if len(line) == LONGEST:
            raise UserError(f"{path}, line {number}: longer than {LONGEST:,} characters; is this a table?")
        if number == 1 and "\0" in line:
            raise UserError(f"{path} is not UTF-8 text: convert it first")
        yield line


def read_table(path: Path) -> Table:
    """Read a file by its extension.

    Raises:
        UserError: no such file, an extension that is not known, a file that is damaged or has no rows.
    """
    kind = _extension(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}: set data.path to an existing one")
    table = READERS[kind](path)
    if not len(table.frame):
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


def _delimited(path: Path) -> Table:
    """CSV and TSV. Rows with more or fewer cells than the header, or broken quotes, are set aside."""
    with opened(path) as stream:
        lines = lines_of(stream, path)
        first = next(lines, "")
        if not first.strip():
            raise UserError(f"{path}, line 1: no header; the first line must name the columns")
        reader = csv.reader(_chained(first, lines), delimiter=_delimiter(path, first), strict=True)
        return _from_rows(path, reader)


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _delimiter(path: Path, header: str) -> str:
    """Tab, comma or semicolon: what the header has, in this order where the name says TSV."""
    order = "\t,;" if _extension(path) in (".tsv", ".tab") else ",;\t"
    return next((mark for mark in order if mark in header), order[0])


def _from_rows(path: Path, reader: Any) -> Table:
    try:
        header = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise UserError(f"{path}, line 1: {error}; quote names that hold quotes") from None
    names = _unique(header)
    columns: list[list[str]] = [[] for _ in names]
    index: list[int] = []
    lines: list[int] = []
    skipped: list[tuple[int, int, str, str]] = []
    row = -1
    while True:
        begin = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise UserError(f"{path}, line {begin}: a quote that opens there is never closed") from None
            row += 1
            skipped.append((row, begin, "", str(error)))
            continue
        if not cells:
            continue  # a blank line
        row += 1
        if len(cells) != len(names):
            text = ",".join(cells)
            skipped.append((row, begin, text, f"{len(cells)} cells where the header has {len(names)}"))
            continue
        index.append(row)
        lines.append(begin)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    if len(skipped) > len(index):
        row, line, _, why = skipped[0]
        raise UserError(f"{path}, line {line}: {why}; most rows are so: is the header right?")
    named = {name: _cells(column) for name, column in zip(names, columns, strict=True)}
    frame = pd.DataFrame(named, index=index, dtype=object)
    repeated = {name: own for name, own in zip(names, header, strict=True) if own and header.count(own) > 1}
    return Table(frame, lines, skipped, repeated=repeated)


def _unique(names: list[str]) -> list[str]:
    """Names of columns: an empty one is called by its place, one that repeats gets a number."""
    named = [name or f"column {place}" for place, name in enumerate(names, 1)]
    seen: Counter[str] = Counter()
    unique = []
    for name in named:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


MISSING = {"", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "<NA>", "#N/A"}


def _cells(column: list[str]) -> list[str | None]:
    """Text with blanks around it removed, None where a cell is missing."""
    stripped = (cell.strip() for cell in column)
    return [None if cell in MISSING else cell for cell in stripped]


def _parquet(path: Path) -> Table:
    with opened(path) as stream:
        try:
            frame = pd.read_parquet(io.BytesIO(stream.read()) if path.suffix.lower() == ".gz" else path)
        except ImportError:
            raise UserError(
                f"{path}: Parquet is read by pyarrow, which is not installed: pip install pyarrow"
            ) from None
        except Exception as error:
            raise UserError(f"{path} is not a Parquet file that can be read: {str(error).splitlines()[0]}") from None
    frame.columns = pd.Index(_unique([str(name).strip() for name in frame.columns]))
    return Table(frame.reset_index(drop=True))


STRUCTURE = "structure"  # the column of SMILES that is made from an SDF file
PROPERTY = re.compile(r"^>.*?<(.+?)>.*$")


def _sdf(path: Path) -> Table:
    """Each record as the SMILES of its structure and its properties; a record without a structure is set aside."""
    records: list[dict[str, str | None]] = []
    index: list[int] = []
    lines: list[int] = []
    skipped: list[tuple[int, int, str, str]] = []
    with opened(path) as stream:
        for row, (line, record) in enumerate(_records(lines_of(stream, path))):
            smiles = _structure(record)
            if smiles is None:
                title = record[0].strip() if record else ""
                skipped.append((row, line, title, "RDKit cannot read the structure"))
                continue
            records.append({STRUCTURE: smiles, **_properties(record)})
            index.append(row)
            lines.append(line)
    return Table(pd.DataFrame(records, index=index, dtype=object), lines, skipped, STRUCTURE)


def _records(lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """(line where it begins, its lines) of each record."""
    record: list[str] = []
    begin = 1
    number = 0
    for number, line in enumerate(lines, 1):
        if line.startswith("$$$$"):
            yield begin, record
            record, begin = [], number + 1
        else:
            record.append(line.rstrip("\r\n"))
    if any(line.strip() for line in record):
        yield begin, record


def _structure(record: list[str]) -> str | None:
    """The SMILES of a record; of one that RDKit refuses too, for whoever reads the SMILES to refuse with a reason."""
    from rdkit import rdBase

    chem = chemistry()
    block = "\n".join(record)
    with rdBase.BlockLogs():
        mol = chem.MolFromMolBlock(block) or chem.MolFromMolBlock(block, sanitize=False)
        return None if mol is None else str(chem.MolToSmiles(mol))


def _properties(record: list[str]) -> dict[str, str | None]:
    """The named values of a record; of a value of many lines the first."""
    found: dict[str, str | None] = {}
    for line, value in pairwise(record):
        if (match := PROPERTY.match(line)) and match[1] != STRUCTURE:
            found[match[1]] = None if value.strip() in MISSING else value.strip()
    return found


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".tab": _delimited,
    ".txt": _delimited,
    ".parquet": _parquet,
    ".sdf": _sdf,
}
