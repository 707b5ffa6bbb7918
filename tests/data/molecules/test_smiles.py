"""Graphs from SMILES: features against OGB, scaffolds against RDKit, and reasons for failures."""

import sys

import numpy as np
import pytest

from gt.data.molecules import smiles
from gt.data.molecules.parsing import parses, scaffold
from gt.data.molecules.smiles import smiles_graphs
from gt.data.packed import pointers
from gt.errors import UserError

pytest.importorskip("rdkit")
from ogb.utils import smiles2graph
from rdkit import Chem
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

ASSORTED = [
    "C",  # one atom, no bond
    "[Na+].[Cl-]",  # two atoms, no bond
    "[H][H]",
    "*c1ccccc1",  # an atom without element
    "Cl[C@H](/C=C/C)Br",  # OGB's own example: a chiral centre and a stereo double bond
    "F/C=C\\F",
    "[O-][N+](=O)c1ccc(cc1)S(=O)(=O)N",
    "[CH3].[CH2]",  # radicals
    "[13CH4]",
    "C[S@](=O)CC",
    "F[P@SP1](Cl)(Br)I",  # a chirality that OGB classes as misc
    "[Cu+2]<-O",  # a dative bond
    "[C-8].[N+7].[C+10]",  # charges outside OGB's list
    "c1ccc2[nH]ccc2c1",
    "C#CC(C)=C=C",
    "[Og]",
    "O1C=C[C@H]([C@H]1O2)c3c2cc(OC)c4c3OC(=O)C5=C4CCC(=O)5",
]
# too many bonds at aluminium, boron and germanium; from the HIV dataset
COORDINATED = [
    "O=C1O[Al]23(OC1=O)(OC(=O)C(=O)O2)OC(=O)C(=O)O3",
    "Cc1ccc([B-2]2(c3ccc(C)cc3)=NCCO2)cc1",
    "[Na+].c1ccc([SH+][GeH2+]2[SH+]c3ccccc3[SH+]2)c([SH+][GeH2+]2[SH+]c3ccccc3[SH+]2)c1",
]
INVALID = ["xyz", "C1CC", "", "CN(C)(C)(C)C", "c1cccc1", "[Al](N(C)(C)(C)C)(C)(C)(C)(C)(C)C", "1.5"]


def test_graphs_equal_ogb() -> None:
    found = smiles_graphs(ASSORTED)
    assert not found.failed
    assert found.relaxed == 0
    np.testing.assert_array_equal(found.indices, range(len(ASSORTED)))
    nodes, edges = pointers(found.node_counts), pointers(found.edge_counts)
    for number, text in enumerate(ASSORTED):
        expected = smiles2graph(text)
        np.testing.assert_array_equal(found.x[nodes[number] : nodes[number + 1]], expected["node_feat"])
        own_edges = slice(edges[number], edges[number + 1])
        order = np.lexsort(expected["edge_index"])
        np.testing.assert_array_equal(found.edge_index[:, own_edges], expected["edge_index"][:, order])
        np.testing.assert_array_equal(found.edge_attr[own_edges], expected["edge_feat"][order])


def test_invalid_smiles_do_not_affect_others(capfd: pytest.CaptureFixture[str]) -> None:
    mixed = [text for pair in zip(INVALID, ASSORTED, strict=False) for text in pair]
    found, expected = smiles_graphs(mixed, scaffolds=True), smiles_graphs(ASSORTED[: len(INVALID)], scaffolds=True)
    assert [place for place, _ in found.failed] == list(range(0, 2 * len(INVALID), 2))
    np.testing.assert_array_equal(found.indices, range(1, 2 * len(INVALID), 2))
    for name in ("node_counts", "edge_counts", "edge_index", "x", "edge_attr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.scaffolds == expected.scaffolds
    assert capfd.readouterr() == ("", "")


def test_reasons_for_invalid_smiles() -> None:
    reasons = dict(smiles_graphs(INVALID).failed)
    assert reasons[0] == "syntax error while parsing: xyz"
    assert reasons[1] == "unclosed ring for input: 'C1CC'"
    assert reasons[2] == "no atoms"
    assert reasons[3] == "Explicit valence for atom # 1 N, 5, is greater than permitted"
    assert reasons[4].startswith("Can't kekulize mol")


def test_coordination_compounds_are_kept() -> None:
    assert all(Chem.MolFromSmiles(text) is None for text in COORDINATED)
    found = smiles_graphs([*COORDINATED, "CC"], scaffolds=True)
    assert not found.failed
    assert found.relaxed == len(COORDINATED)
    np.testing.assert_array_equal(found.node_counts, [19, 19, 27, 2])
    # aluminium: degree 6, no charge, no hydrogens, in a ring
    assert found.x[3].tolist() == [12, 0, 6, 5, 0, 0, 3, 0, 1]
    assert all(found.scaffolds[:3])
    assert len(set(found.scaffolds)) == 4


def test_scaffold_equals_rdkit() -> None:
    for text in [*ASSORTED, "CC(=O)Oc1ccccc1C(=O)O", "C[C@@H]1CC[C@H](C1)c1ccncc1"]:
        mol = Chem.MolFromSmiles(text)
        assert scaffold(mol) == MurckoScaffoldSmiles(mol=mol, includeChirality=False)


def test_empty_list_of_smiles() -> None:
    found = smiles_graphs([], scaffolds=True)
    assert (found.x.shape, found.edge_attr.shape, found.edge_index.shape) == ((0, 9), (0, 3), (2, 0))
    assert not len(found.indices)
    assert not found.scaffolds


def test_bond_stereo_unknown_to_ogb() -> None:
    text = "Cc1cccc(I)c1N1C(=O)CC1 |wU:8.9|"  # a hindered bond
    assert "STEREOATROP" in "".join(str(bond.GetStereo()) for bond in Chem.MolFromSmiles(text).GetBonds())
    assert 5 in smiles_graphs([text]).edge_attr[:, 1]


def test_parses_accepts_valid_syntax() -> None:
    assert [parses(text) for text in ("CCO", "CN(C)(C)(C)C", "ethanol", "7", "")] == [True, True, False, False, False]


def test_missing_rdkit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    smiles.chemistry.cache_clear()
    with pytest.raises(UserError, match=r'pip install -e "\.\[molecules\]"'):
        smiles_graphs(["C"])
    smiles.chemistry.cache_clear()
