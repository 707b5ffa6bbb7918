"""Files of molecules as tables: those of `gt.data.table`, SMILES files (``.smi``) and SDF; gzipped or not."""

from collections.abc import Callable, Sequence
from pathlib import Path

from gt.data.molecules.parsing import parses
from gt.data.molecules.sdf import read_sdf
from gt.data.reading import ending, lines
from gt.data.table import LONGEST, TABLES, Row, Table, plain, read_table, table_of
from gt.errors import UserError

MISSING = {"", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "<NA>", "#N/A"}


def read_molecules(path: Path, smiles: str | None = None, empty: bool = False) -> Table:
    """Every row of a file; in a text, cells that are empty or say NA are None.

    Args:
        smiles: the column of molecules, where it is known. Where that is a number, from 0, and the first line of a
            text has a molecule there, there is no header: columns are called by their numbers then.
        empty: a file may have no rows.

    Raises:
        UserError: no such file, an ending that is not known, a file that is damaged, or no row that can be read.
    """
    kind = ending(path)
    if kind not in (*TABLES, *READERS):
        known = ", ".join((*TABLES, *READERS))
        raise UserError(f"{path}: cannot tell what it is from '{kind}'; there are {known}, each also .gz")
    if not path.is_file():
        raise UserError(f"there is no file {path}: set data.path to an existing one")
    if kind in READERS:
        table = READERS[kind](path)
    else:
        table = read_table(path, header=lambda cells: not _has_molecule(cells, smiles), lenient=True)
    if table.lines is not None:
        table.columns = {name: plain(cells, MISSING, table.commas) for name, cells in table.columns.items()}
    readable = len(table) - len(table.faults)
    for row, (_, why) in table.faults.items():
        if not readable:
            raise UserError(f"{table.where(row)}: {why}; no other row can be read either")
        if kind != ".sdf" and len(table.faults) > readable:
            raise UserError(f"{table.where(row)}: {why}; most rows are so: is the header right?")
        break
    if not (readable or empty):
        raise UserError(f"{path} has no rows")
    return table


def _has_molecule(cells: Sequence[str], smiles: str | None) -> bool:
    """Whether the first line is a row already: the column of molecules is known by a number, and one stands there.

    A cell that is this number beside it is a label, not the name of a column.
    """
    if smiles is None or not smiles.isdecimal():
        return False
    return int(smiles) < len(cells) and parses(cells[int(smiles)])


def _read_smi(path: Path) -> Table:
    """SMILES and perhaps a name in each line, parted by a blank; where there are tabs, these part any columns."""
    written = [(number, line.rstrip("\n")) for number, line in enumerate(lines(path, True, LONGEST), 1) if line.strip()]
    tabs = any("\t" in line for _, line in written[:1])
    rows: list[Row] = [(number, line.split("\t") if tabs else line.split(maxsplit=1)) for number, line in written]
    first = rows[0][1] if rows else []
    if not tabs and len(first) == 2:  # some have no name
        rows = [(number, [*cells, ""][:2]) for number, cells in rows]
    if rows and "smiles" not in first[0].lower():
        names = ["smiles", "name", *map(str, range(2, len(first)))][: len(first)]
        rows.insert(0, (0, names))
    return table_of(path, rows, bool)


READERS: dict[str, Callable[[Path], Table]] = {".smi": _read_smi, ".sdf": read_sdf}
