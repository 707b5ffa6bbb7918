"""Parsing of SMILES by RDKit, with a reason for each text that is not a molecule."""

import contextlib
import io
import re
from functools import cache
from types import ModuleType
from typing import Any

from gt.errors import UserError

# elements whose valence follows from their charge; all others also form coordination bonds
FIXED_VALENCE = {0, 1, 2, 6, 7, 8, 9, 10, 15, 16, 17, 18, 34, 35, 36, 53, 54}

INCHI = "InChI="  # prefix of every InChI
SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")  # between several SMILES in one cell
INVALID = re.compile(r"[^\t\x20-\x7e]")  # characters not allowed in SMILES, though RDKit strips them at either end


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
    """An RDKit molecule, and whether RDKit's valence check was relaxed for it; None if the text is not a molecule.

    RDKit 2024.09 and later rejects a metal or metalloid with more bonds than its valence table lists, such as six at
    aluminium, although coordination allows them and earlier releases, including OGB's, accepted them. Such a molecule
    is kept; one with too many bonds at carbon, nitrogen or another element of `FIXED_VALENCE` is not.
    """
    if INVALID.search(text) or not_one_smiles(text):
        return None
    mol, relaxed = chemistry().MolFromSmiles(text), False
    if mol is None:
        mol, relaxed = _coordinated(text), True
    return (mol, relaxed) if mol is not None and mol.GetNumAtoms() else None


def reason(text: str) -> str:
    """Why `read` returns None: RDKit's log message, in one line."""
    if invalid := INVALID.search(text):
        return f"{invalid[0]!a} is not allowed in SMILES"
    if cause := not_one_smiles(text):
        return cause
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
    message = caught.getvalue().partition("\n")[0].partition("] ")[2]
    return message.replace("SMILES Parse Error: ", "") or "RDKit cannot read it"


def not_one_smiles(text: str) -> str | None:
    """Why a text is not the SMILES of one molecule: an InChI, a reaction or several molecules; None otherwise.

    Dot-separated parts of one SMILES, such as the ions of a salt, are one molecule. RDKit reads what follows a space as
    a name, and it may be one.
    """
    if text.startswith(INCHI):
        return "InChI instead of SMILES: convert it with RDKit's Chem.MolToSmiles(Chem.MolFromInchi(...))"
    if ">" in text and text.replace("->", "").count(">") == 2:
        return "a reaction, not a single molecule"
    if SEPARATOR.search(text):
        parts = SEPARATOR.split(text)
        if all(part and parses(part) for part in parts):
            return f"{len(parts)} molecules in one cell: only one per row is supported"
    return None


def _coordinated(text: str) -> Any:
    """A molecule whose only fault is excess valence at metals or metalloids; None if it has other faults."""
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
    outcome = chem.SanitizeMol(mol, flags.SANITIZE_ALL ^ flags.SANITIZE_PROPERTIES, catchErrors=True)
    if outcome != flags.SANITIZE_NONE:
        return None
    mol = chem.RemoveHs(mol, sanitize=False)
    chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol


def scaffold(mol: Any) -> str:
    """The Murcko scaffold (Bemis & Murcko 1996) as SMILES without chirality; empty for a molecule without rings."""
    from rdkit.Chem.rdmolops import MurckoDecompose

    # like RDKit's MurckoScaffoldSmiles, which rejects molecules that `read` keeps
    core = MurckoDecompose(mol)
    core.ClearComputedProps()
    core.UpdatePropertyCache(strict=False)
    return str(chemistry().MolToSmiles(core, isomericSmiles=False))


def parses(text: str) -> bool:
    """Whether a text parses as a molecule."""
    chem = chemistry()
    from rdkit import rdBase

    with rdBase.BlockLogs():
        mol = chem.MolFromSmiles(text, sanitize=False)
        return mol is not None and mol.GetNumAtoms() > 0 and not INVALID.search(text)
