"""Morgan fingerprints of molecules (Rogers & Hahn 2010), by RDKit."""

from collections.abc import Sequence

import numpy as np

from gt.data.molecules.parsing import chemistry, read
from gt.data.parallel import mapped

BITS = 1024
RADIUS = 2  # bonds around an atom; 2 are the diameter of 4 of "ECFP4"
PART = 1000  # molecules that a process reads at a time


def fingerprints(smiles: Sequence[str]) -> np.ndarray:
    """(molecules, `BITS`) uint8: how often each environment of an atom occurs, up to 255; zeros for what is none.

    Raises:
        UserError: RDKit is not installed.
    """
    chemistry()
    parts = [smiles[start : start + PART] for start in range(0, len(smiles), PART)]
    return np.concatenate([np.empty((0, BITS), np.uint8), *mapped(_counts, parts, what="fingerprints")])


def _counts(smiles: Sequence[str]) -> np.ndarray:
    from rdkit import rdBase
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    generator = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    out = np.zeros((len(smiles), BITS), np.uint8)
    with rdBase.BlockLogs():  # what is wrong with a molecule is said where it becomes a graph
        for row, text in enumerate(smiles):
            if molecule := read(text):
                out[row] = generator.GetCountFingerprintAsNumPy(molecule[0]).clip(max=255)
    return out
