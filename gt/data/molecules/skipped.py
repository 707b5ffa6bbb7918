"""Unusable rows of a table of molecules."""

import numpy as np
import pandas as pd

from gt.data import splits
from gt.data.molecules.targets import Targets
from gt.data.skipped import SkippedRows
from gt.data.table import Table


def unusable_rows(table: Table, smiles: str, split: str | None, targets: Targets) -> SkippedRows:
    """The rows that are known to be unusable before their molecules are parsed."""
    skipped = SkippedRows(table)
    texts = table.columns[smiles]
    for row in np.flatnonzero(pd.isna(texts)):
        skipped.add(row, "", "no molecule")
    for name in (smiles, *targets.columns, *([split] if split else [])):
        skipped.add_spoiled(name, smiles)
    for index, reason in targets.faults.items():
        skipped.add(index, texts[index], reason)
    for row in np.flatnonzero(np.isnan(targets.y).all(axis=1)):
        skipped.add(row, texts[row], "no label")
    for index, word in enumerate(table.columns[split] if split else ()):
        if splits.split_of(word) is None:
            skipped.add(index, texts[index], f"'{word}' in '{split}' is neither train nor valid nor test")
    return skipped
