"""Molecule files as tables: the formats of `gt.data.table`, SMILES files (``.smi``) and SDF; optionally gzipped."""

from collections.abc import Callable, Sequence
from pathlib import Path

from gt.data.molecules.parsing import parses
from gt.data.molecules.sdf import read_sdf
from gt.data.reading import ending, lines
from gt.data.table import LONGEST, TABLES, Row, Table, plain, read_table, table_of
from gt.errors import UserError

MISSING = {"", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "<NA>", "#N/A"}


def read_molecules(path: Path, smiles: str | None = None, empty: bool = False) -> Table:
    """Read every row of a file; in text formats, empty and NA cells become None.

    Args:
        smiles: the column of molecules, if known. If it is a 0-based number and the first line of a text file has a
            molecule there, the file has no header and its columns are named by number.
        empty: accept a file without rows.

    Raises:
        UserError: no such file, an unknown extension, a damaged file, or no readable row.
    """
    kind = ending(path)
    if kind not in (*TABLES, *READERS):
        supported = ", ".join((*TABLES, *READERS))
        raise UserError(f"{path}: unknown file type '{kind}'; supported are {supported}, each also with .gz")
    if not path.is_file():
        raise UserError(f"there is no file {path}: set data.path to an existing one")
    if kind in READERS:
        table = READERS[kind](path)
    else:
        table = read_table(path, header=lambda cells: not _has_molecule(cells, smiles), lenient=True)
    if table.lines is not None:
        table.columns = {name: plain(cells, MISSING, table.commas) for name, cells in table.columns.items()}
    readable = len(table) - len(table.faults)
    for row, (_, reason) in table.faults.items():
        if not readable:
            raise UserError(f"{table.location(row)}: {reason}; no other row can be read either")
        if kind != ".sdf" and len(table.faults) > readable:
            raise UserError(f"{table.location(row)}: {reason}; most rows have this fault: is the header right?")
        break
    if not (readable or empty):
        raise UserError(f"{path} has no rows")
    return table


def _has_molecule(cells: Sequence[str], smiles: str | None) -> bool:
    """Whether the first line is already a row: the column of molecules is given by number, and holds a molecule there.

    Another cell of the line that equals this number is a label, not a column name.
    """
    if smiles is None or not smiles.isdecimal():
        return False
    return int(smiles) < len(cells) and parses(cells[int(smiles)])


def _read_smi(path: Path) -> Table:
    """Read lines of SMILES, each optionally followed by whitespace and a name, or tab-separated columns."""
    numbered = [
        (number, line.rstrip("\n")) for number, line in enumerate(lines(path, True, LONGEST), 1) if line.strip()
    ]
    tabs = any("\t" in line for _, line in numbered[:1])
    rows: list[Row] = [(number, line.split("\t") if tabs else line.split(maxsplit=1)) for number, line in numbered]
    first = rows[0][1] if rows else []
    if not tabs and len(first) == 2:  # some rows lack a name
        rows = [(number, [*cells, ""][:2]) for number, cells in rows]
    if rows and "smiles" not in first[0].lower():
        names = ["smiles", "name", *map(str, range(2, len(first)))][: len(first)]
        rows.insert(0, (0, names))
    return table_of(path, rows, bool)


READERS: dict[str, Callable[[Path], Table]] = {".smi": _read_smi, ".sdf": read_sdf}
