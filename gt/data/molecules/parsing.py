"""The text of a molecule, SMILES, read by RDKit; why one that cannot be read is none."""

import contextlib
import io
import re
from functools import cache
from types import ModuleType
from typing import Any

from gt.errors import UserError

# atoms whose number of bonds follows from their charge; all others also bind by coordination
FIXED_VALENCE = {0, 1, 2, 6, 7, 8, 9, 10, 15, 16, 17, 18, 34, 35, 36, 53, 54}

INCHI = "InChI="  # how each begins
MARK = re.compile(r"\s*[,;]\s*|\s+")  # parts SMILES where a cell holds several
STRANGE = re.compile(r"[^\t\x20-\x7e]")  # what no SMILES has, though RDKit drops it at either end


@cache
def chemistry() -> ModuleType:
    """RDKit's ``Chem``.

    Raises:
        UserError: RDKit is not installed.
    """
    try:
        from rdkit import Chem
    except ImportError:
        raise UserError('molecules are read by RDKit, which is not installed: pip install -e ".[molecules]"') from None
    return Chem


def read(text: str) -> tuple[Any, bool] | None:
    """An RDKit molecule, and whether it is kept though RDKit refuses it; None where it is no molecule.

    RDKit of 2024.09 and later refuses more bonds at a metal or metalloid than its table has, such as six at aluminium,
    which coordination allows and earlier releases, among them OGB's, accepted. Such a molecule is kept; one with too
    many bonds at carbon, nitrogen or another atom of `FIXED_VALENCE` is not.
    """
    if STRANGE.search(text) or not_one_smiles(text):
        return None
    mol, refused = chemistry().MolFromSmiles(text), False
    if mol is None:
        mol, refused = _coordinated(text), True
    return (mol, refused) if mol is not None and mol.GetNumAtoms() else None


def reason(text: str) -> str:
    """Why `read` gives nothing: what RDKit logs of it, in one line."""
    if strange := STRANGE.search(text):
        return f"{strange[0]!a} is no character of SMILES"
    if why := not_one_smiles(text):
        return why
    chem = chemistry()
    from rdkit import rdBase

    caught = io.StringIO()
    rdBase.LogToPythonStderr()
    try:
        with contextlib.redirect_stderr(caught):
            mol = chem.MolFromSmiles(text)
    finally:
        rdBase.LogToCppStreams()
    if mol is not None:
        return "no atoms"
    said = caught.getvalue().partition("\n")[0].partition("] ")[2]
    return said.replace("SMILES Parse Error: ", "") or "RDKit cannot read it"


def not_one_smiles(text: str) -> str | None:
    """What a text is in place of the SMILES of one molecule: InChI, a reaction, or several; None where it is neither.

    Parts of one SMILES that a dot joins, such as the ions of a salt, are one molecule. RDKit reads what comes after a
    blank as a name, which it may be.
    """
    if text.startswith(INCHI):
        return "InChI, and SMILES are read: make them by RDKit's Chem.MolToSmiles(Chem.MolFromInchi(...))"
    if ">" in text and text.replace("->", "").count(">") == 2:
        return "a reaction, of which no single molecule can be read"
    if MARK.search(text):
        parts = MARK.split(text)
        if all(part and parses(part) for part in parts):
            return f"{len(parts)} molecules in one cell: one in each row can be read"
    return None


def _coordinated(text: str) -> Any:
    """A molecule whose only fault are bonds beyond the valence of metals or metalloids; None where it has others."""
    chem = chemistry()
    mol = chem.MolFromSmiles(text, sanitize=False)
    if mol is None:
        return None
    for fault in chem.DetectChemistryProblems(mol):
        if fault.GetType() != "AtomValenceException":
            return None
        if mol.GetAtomWithIdx(fault.GetAtomIdx()).GetAtomicNum() in FIXED_VALENCE:
            return None
    mol.UpdatePropertyCache(strict=False)
    flags = chem.SanitizeFlags
    done = chem.SanitizeMol(mol, flags.SANITIZE_ALL ^ flags.SANITIZE_PROPERTIES, catchErrors=True)
    if done != flags.SANITIZE_NONE:
        return None
    mol = chem.RemoveHs(mol, sanitize=False)
    chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol


def scaffold(mol: Any) -> str:
    """The Murcko scaffold (Bemis & Murcko 1996) as SMILES without chirality; empty where there is no ring."""
    from rdkit.Chem.rdmolops import MurckoDecompose

    # RDKit's own MurckoScaffoldSmiles is this, but refuses a molecule that `read` keeps
    core = MurckoDecompose(mol)
    core.ClearComputedProps()
    core.UpdatePropertyCache(strict=False)
    return str(chemistry().MolToSmiles(core, isomericSmiles=False))


def parses(text: str) -> bool:
    """Whether a text reads as a molecule."""
    chem = chemistry()
    from rdkit import rdBase

    with rdBase.BlockLogs():
        mol = chem.MolFromSmiles(text, sanitize=False)
        return mol is not None and mol.GetNumAtoms() > 0 and not STRANGE.search(text)
