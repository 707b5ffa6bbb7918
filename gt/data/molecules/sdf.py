"""SDF files as tables of SMILES and properties."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pandas as pd

from gt.data.molecules.parsing import chemistry
from gt.data.molecules.table import MISSING, Table, lines_of, visible
from gt.data.reading import opened

STRUCTURE = "structure"  # the column of SMILES that is made from an SDF file
PROPERTY = re.compile(r"^>.*?<(.+?)>.*$")


def read_sdf(path: Path, smiles: str | None) -> Table:
    """Each record as the SMILES of its structure and its properties; a record without a structure is set aside."""
    records: list[dict[str, str | None]] = []
    index: list[int] = []
    lines: list[int] = []
    skipped: list[tuple[int, int, str, str]] = []
    with opened(path) as stream:
        for row, (line, record) in enumerate(_records(map(visible, lines_of(stream, path)))):
            smiles = _structure(record)
            if smiles is None:
                title = record[0].strip() if record else ""
                skipped.append((row, line, title, "RDKit cannot read the structure"))
                continue
            records.append({STRUCTURE: smiles, **_properties(record)})
            index.append(row)
            lines.append(line)
    return Table(pd.DataFrame(records, index=index, dtype=object), lines, skipped, smiles=STRUCTURE)


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
