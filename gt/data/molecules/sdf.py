"""SDF files as tables of SMILES and properties."""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from gt.data.molecules.parsing import chemistry
from gt.data.reading import lines
from gt.data.table import LONGEST, Table, table_of_records, visible

STRUCTURE = "structure"  # the column of SMILES made from an SDF file
PROPERTY = re.compile(r"^>.*?<(.+?)>.*$")


def read_sdf(path: Path) -> Table:
    """Read each record as the SMILES of its structure and its properties; an unreadable structure is a fault."""
    starts: list[int] = []
    rows: list[dict[str, str | None]] = []
    faults: dict[int, tuple[str, str]] = {}
    for start, record in _records(map(visible, lines(path, True, LONGEST))):
        smiles = _structure(record)
        if smiles is None:
            faults[len(rows)] = (record[0].strip() if record else "", "RDKit cannot read the structure")
        rows.append({} if smiles is None else {STRUCTURE: smiles, **_properties(record)})
        starts.append(start)
    table = table_of_records(path, rows, starts)
    table.faults = faults
    return table


def _records(text: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The line number where each record begins, and its lines."""
    record: list[str] = []
    start, number = 1, 0
    for number, line in enumerate(text, 1):
        if line.startswith("$$$$"):
            yield start, record
            record, start = [], number + 1
        else:
            record.append(line.rstrip("\n"))
    if any(line.strip() for line in record):
        yield start, record


def _structure(record: list[str]) -> str | None:
    """The SMILES of a record, even if RDKit rejects it, so that parsing the SMILES later yields the reason."""
    from rdkit import rdBase

    chem = chemistry()
    block = "\n".join(record)
    with rdBase.BlockLogs():
        mol = chem.MolFromMolBlock(block) or chem.MolFromMolBlock(block, sanitize=False)
        return None if mol is None else str(chem.MolToSmiles(mol))


def _properties(record: list[str]) -> dict[str, str | None]:
    """The named values of a record; only the first line of a multi-line value."""
    return {
        match[1]: value for line, value in pairwise(record) if (match := PROPERTY.match(line)) and match[1] != STRUCTURE
    }
