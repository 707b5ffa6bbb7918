"""Rows of a file as a table of named columns; a row that cannot be read is set aside with a reason."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from gt.data.reading import encoding_of, not_text
from gt.errors import UserError

LONGEST = 2**24  # characters of a line
ESCAPED = re.compile("[\udc80-\udcff]")  # what stands for a byte that is no UTF-8
MISSING = {"", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "<NA>", "#N/A"}


@dataclass
class Table:
    """R rows of a file.

    Attributes:
        frame: the columns. From text files the cells are text, those that are empty or say NA are missing. Its index
            is the number of the row in the file, counted from 0 over all rows, those set aside included.
        lines: the line of the file where each row of ``frame`` begins, from 1; empty where there are no lines.
        skipped: (row, line, text, why) of the rows that could not be read; line 0 where there are no lines.
        spoiled: by column, the places in ``frame`` of cells with a byte that is no UTF-8 text, and which byte.
        smiles: the column that was made from structures (SDF); None where SMILES are a column of the file.
        repeated: columns that share their name with others, by the names that tell them apart here.
    """

    frame: pd.DataFrame
    lines: list[int] = field(default_factory=list)
    skipped: list[tuple[int, int, str, str]] = field(default_factory=list)
    spoiled: dict[str, dict[int, int]] = field(default_factory=dict)
    smiles: str | None = None
    repeated: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return len(self.frame) + len(self.skipped)


def lines_of(stream: io.BufferedReader, path: Path) -> Iterator[str]:
    """The lines of a text, with their ends: UTF-8, or what a byte order mark says.

    A byte that is no UTF-8 spoils its own cell only: here it is one of `ESCAPED`, see `visible`.

    Raises:
        UserError: a line without an end, or no such text at all.
    """
    encoding = encoding_of(stream.peek(4)[:4])
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    text = io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline="")
    number = 0
    try:
        while line := text.readline(LONGEST):
            number += 1
            if len(line) == LONGEST:
                raise UserError(f"{path}, line {number}: longer than {LONGEST:,} characters; is this a table?")
            if number == 1 and "\0" in line:
                raise not_text(path, 1, 0)
            yield line
    except UnicodeDecodeError as error:
        raise not_text(path, number + 1, error.object[error.start], encoding) from None


def visible(text: str) -> str:
    """The same text, each byte that is no text written as ``\\xe9``."""
    return text if text.isascii() else ESCAPED.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)


def unique(names: Sequence[str]) -> list[str]:
    """Names of columns: an empty one is called by its place, one that repeats gets a number."""
    named = [name or f"column {place}" for place, name in enumerate(names, 1)]
    seen: Counter[str] = Counter()
    unique = []
    for name in named:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique
