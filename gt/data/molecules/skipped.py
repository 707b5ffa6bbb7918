"""Rows of a table of molecules that are of no use."""

import numpy as np
import pandas as pd

from gt.data import splits
from gt.data.molecules.targets import Targets
from gt.data.skipped import SkippedRows
from gt.data.table import Table


def unusable_rows(table: Table, smiles: str, split: str | None, targets: Targets) -> SkippedRows:
    """The rows that can be told to be of no use before their molecules are read."""
    skipped = SkippedRows(table)
    texts = table.columns[smiles]
    for row in np.flatnonzero(pd.isna(texts)):
        skipped.add(row, "", "no molecule")
    for name in (smiles, *targets.columns, *([split] if split else [])):
        skipped.add_spoiled(name, smiles)
    for wrong, why in targets.wrong.items():
        skipped.add(wrong, texts[wrong], why)
    for row in np.flatnonzero(np.isnan(targets.y).all(axis=1)):
        skipped.add(row, texts[row], "no label")
    for place, word in enumerate(table.columns[split] if split else ()):
        if splits.split_of(word) is None:
            skipped.add(place, texts[place], f"'{word}' in '{split}' is neither train nor valid nor test")
    return skipped
