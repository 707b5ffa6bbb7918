"""Morgan fingerprints of molecules (Rogers & Hahn 2010), by RDKit."""

from collections.abc import Sequence

import numpy as np

from gt.data.molecules.parsing import chemistry, read
from gt.data.parallel import parallel_map

BITS = 1024
RADIUS = 2  # bonds around an atom, the diameter of 4 in "ECFP4"
CHUNK = 1000  # molecules per task of a process


def fingerprints(smiles: Sequence[str]) -> np.ndarray:
    """(molecules, `BITS`) uint8, counts of atom environments, capped at 255; zeros for invalid molecules.

    Raises:
        UserError: RDKit is not installed.
    """
    chemistry()
    parts = [smiles[start : start + CHUNK] for start in range(0, len(smiles), CHUNK)]
    return np.concatenate([np.empty((0, BITS), np.uint8), *parallel_map(_counts, parts, what="fingerprints")])


def _counts(smiles: Sequence[str]) -> np.ndarray:
    from rdkit import rdBase
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    generator = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    out = np.zeros((len(smiles), BITS), np.uint8)
    with rdBase.BlockLogs():  # invalid molecules are reported where they become graphs
        for row, text in enumerate(smiles):
            if molecule := read(text):
                out[row] = generator.GetCountFingerprintAsNumPy(molecule[0]).clip(max=255)
    return out
