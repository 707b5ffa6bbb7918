"""SMILES to arrays: atoms and bonds with the features of the Open Graph Benchmark (Hu et al. 2020).

RDKit reads the molecules. Its objects are asked for plain numbers only; what OGB makes of those is looked up for all
atoms at once, in half the time of OGB's own functions and equal to them.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from gt.data.molecules.parsing import chemistry, read, reason, scaffold
from gt.data.packed import Arrays, Graphs, pointers
from gt.schema import Schema

# importing ogb starts a thread that asks PyPI for a newer release, without a time-out; lacking `outdated` it does not
sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb.utils.features import allowable_features, get_atom_feature_dims, get_bond_feature_dims  # noqa: E402

ATOM_VOCAB, BOND_VOCAB = tuple(get_atom_feature_dims()), tuple(get_bond_feature_dims())


@dataclass(frozen=True)
class MoleculeArrays:
    """G molecules with N atoms and, each bond in both directions, E edges.

    Attributes:
        node_counts, edge_counts: (G,) int64.
        edge_index: (2, E) int64, atoms numbered from 0 within each molecule, sorted by (molecule, target, source).
        x: (N, 9) uint8 and edge_attr: (E, 3) uint8, OGB's atom and bond features.
        kept: (G,) int64, which of the given SMILES each molecule is.
        failed: (place among the given SMILES, why) of those that are no molecule.
        relaxed: how many were kept though RDKit refuses them, see `gt.data.molecules.parsing.read`.
        scaffolds: the Murcko scaffold of each molecule; empty unless asked for.
    """

    node_counts: np.ndarray
    edge_counts: np.ndarray
    edge_index: np.ndarray
    x: np.ndarray
    edge_attr: np.ndarray
    kept: np.ndarray
    failed: tuple[tuple[int, str], ...] = ()
    relaxed: int = 0
    scaffolds: tuple[str, ...] = ()

    def graphs(self, by_graph: Arrays, schema: Schema) -> Graphs:
        """A store of them, without splits.

        Args:
            by_graph: what is known of each molecule, ``y`` and the like.
            schema: complete but for the largest molecule.
        """
        return Graphs(
            node_ptr=pointers(self.node_counts),
            edge_ptr=pointers(self.edge_counts),
            edge_index=self.edge_index,
            nodes={"x": self.x},
            edges={"edge_attr": self.edge_attr},
            graphs=by_graph,
            schema=replace(schema, max_nodes=int(self.node_counts.max(initial=0))),
        )


def _places(values: dict[int, Any], known: Sequence[str], other: int) -> np.ndarray:
    """For each number of one of RDKit's enumerations, where OGB's list has its name; ``other`` where it has not."""
    table = np.full(max(values) + 1, other, np.uint8)
    for number, value in values.items():
        if str(value) in known:
            table[number] = known.index(str(value))
    return table


@cache
def _tables() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each atom and each bond feature, what OGB makes of RDKit's number (of a charge plus 128)."""
    chem, known = chemistry(), allowable_features
    atomic = np.array([known["possible_atomic_num_list"].index(n) if 1 <= n <= 118 else 118 for n in range(256)])
    charge = np.array([n - 123 if -5 <= n - 128 <= 5 else 11 for n in range(257)])

    def counts(name: str) -> np.ndarray:
        last = len(known[name]) - 1
        return np.minimum(np.arange(256), last)

    def named(values: dict[int, Any], name: str) -> np.ndarray:
        return _places(values, known[name], len(known[name]) - 1)

    atoms = [
        atomic,
        named(chem.ChiralType.values, "possible_chirality_list"),
        counts("possible_degree_list"),
        charge,
        counts("possible_numH_list"),
        counts("possible_number_radical_e_list"),
        named(chem.HybridizationType.values, "possible_hybridization_list"),
        np.arange(2),
        np.arange(2),
    ]
    bonds = [
        named(chem.BondType.values, "possible_bond_type_list"),
        named(chem.BondStereo.values, "possible_bond_stereo_list"),  # OGB fails at others; here they are STEREOANY
        np.arange(2),
    ]
    return atoms, bonds


def _atoms(mol: Any) -> list[tuple[int, ...]]:
    return [
        (
            a.GetAtomicNum(),
            a.GetChiralTag(),
            a.GetTotalDegree(),
            a.GetFormalCharge() + 128,
            a.GetTotalNumHs(),
            a.GetNumRadicalElectrons(),
            a.GetHybridization(),
            a.GetIsAromatic(),
            a.IsInRing(),
        )
        for a in map(mol.GetAtomWithIdx, range(mol.GetNumAtoms()))
    ]


def _bonds(mol: Any) -> list[tuple[int, ...]]:
    """Both ends of each bond and what it is."""
    return [
        (b.GetBeginAtomIdx(), b.GetEndAtomIdx(), b.GetBondType(), b.GetStereo(), b.GetIsConjugated())
        for b in map(mol.GetBondWithIdx, range(mol.GetNumBonds()))
    ]


def _numbers(rows: list[tuple[int, ...]], width: int) -> np.ndarray:
    """(len(rows), width) int64."""
    return np.fromiter(chain.from_iterable(rows), np.int64, len(rows) * width).reshape(-1, width)


def _features(raw: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    """(rows, features) uint8: each column looked up in its table, numbers beyond an end as the entry there."""
    columns = [table[column.clip(0, len(table) - 1)] for column, table in zip(raw.T, tables, strict=True)]
    return np.stack(columns, axis=1).astype(np.uint8)


def smiles_graphs(smiles: Sequence[str], scaffolds: bool = False) -> MoleculeArrays:
    """Read many SMILES; one that is no molecule is listed in ``failed``, and is no row of anything else.

    The work of one process: a million molecules are split into parts of some thousands, so that memory stays small.

    Args:
        scaffolds: find the Murcko scaffold of each molecule too.

    Raises:
        UserError: RDKit is not installed.
    """
    chemistry()
    kept: list[int] = []
    failed: list[int] = []
    cores: list[str] = []
    atoms: list[tuple[int, ...]] = []
    bonds: list[tuple[int, ...]] = []
    node_counts: list[int] = []
    bond_counts: list[int] = []
    relaxed = 0
    from rdkit import rdBase

    with rdBase.BlockLogs():
        for place, text in enumerate(smiles):
            molecule = read(text)
            if molecule is None:
                failed.append(place)
                continue
            mol, refused = molecule
            relaxed += refused
            kept.append(place)
            atoms += _atoms(mol)
            bonds += _bonds(mol)
            node_counts.append(mol.GetNumAtoms())
            bond_counts.append(mol.GetNumBonds())
            if scaffolds:
                cores.append(scaffold(mol))

    of_atoms, of_bonds = _tables()
    counts = np.array(bond_counts, np.int64)
    both = _numbers(bonds, 5).repeat(2, axis=0)
    both[1::2, :2] = both[1::2, 1::-1]
    order = np.lexsort((both[:, 0], both[:, 1], np.arange(len(counts)).repeat(2 * counts)))
    both = both[order]
    return MoleculeArrays(
        node_counts=np.array(node_counts, np.int64),
        edge_counts=2 * counts,
        edge_index=both[:, :2].T,
        x=_features(_numbers(atoms, 9), of_atoms),
        edge_attr=_features(both[:, 2:], of_bonds),
        kept=np.array(kept, np.int64),
        failed=tuple((place, reason(smiles[place])) for place in failed),
        relaxed=relaxed,
        scaffolds=tuple(cores),
    )
