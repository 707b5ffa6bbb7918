"""SMILES to arrays: atoms and bonds with the features of the Open Graph Benchmark (Hu et al. 2020).

RDKit parses the molecules. Only plain integers are read from its objects; lookup tables then map those of all atoms at
once to OGB's features, with the same result as OGB's own functions in half the time.
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

# importing ogb starts a thread that queries PyPI for a newer release, without a timeout, unless `outdated` is missing
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
        indices: (G,) int64, the index of each molecule among the given SMILES.
        failed: (index, reason) of each of the given SMILES that is not a molecule.
        relaxed: number of molecules kept although RDKit rejects them, see `gt.data.molecules.parsing.read`.
        scaffolds: the Murcko scaffold of each molecule; empty unless requested.
    """

    node_counts: np.ndarray
    edge_counts: np.ndarray
    edge_index: np.ndarray
    x: np.ndarray
    edge_attr: np.ndarray
    indices: np.ndarray
    failed: tuple[tuple[int, str], ...] = ()
    relaxed: int = 0
    scaffolds: tuple[str, ...] = ()

    def graphs(self, by_graph: Arrays, schema: Schema) -> Graphs:
        """Pack the molecules into `Graphs` without splits.

        Args:
            by_graph: arrays with an entry per molecule, such as ``y``.
            schema: complete except for ``max_nodes``.
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


def _index_table(values: dict[int, Any], names: Sequence[str], default: int) -> np.ndarray:
    """Map each value of an RDKit enumeration to the index of its name in OGB's list, or to ``default``."""
    table = np.full(max(values) + 1, default, np.uint8)
    for number, value in values.items():
        if str(value) in names:
            table[number] = names.index(str(value))
    return table


@cache
def _tables() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Lookup tables from RDKit's numbers (charges plus 128) to OGB's, for each atom feature and each bond feature."""
    chem, ogb = chemistry(), allowable_features
    atomic = np.array([ogb["possible_atomic_num_list"].index(n) if 1 <= n <= 118 else 118 for n in range(256)])
    charge = np.array([n - 123 if -5 <= n - 128 <= 5 else 11 for n in range(257)])

    def capped(name: str) -> np.ndarray:
        last = len(ogb[name]) - 1
        return np.minimum(np.arange(256), last)

    def indices(values: dict[int, Any], name: str) -> np.ndarray:
        return _index_table(values, ogb[name], len(ogb[name]) - 1)

    atoms = [
        atomic,
        indices(chem.ChiralType.values, "possible_chirality_list"),
        capped("possible_degree_list"),
        charge,
        capped("possible_numH_list"),
        capped("possible_number_radical_e_list"),
        indices(chem.HybridizationType.values, "possible_hybridization_list"),
        np.arange(2),
        np.arange(2),
    ]
    bonds = [
        indices(chem.BondType.values, "possible_bond_type_list"),
        # OGB raises for values outside its list; here they become STEREOANY
        indices(chem.BondStereo.values, "possible_bond_stereo_list"),
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
    """The endpoints and the raw features of each bond."""
    return [
        (b.GetBeginAtomIdx(), b.GetEndAtomIdx(), b.GetBondType(), b.GetStereo(), b.GetIsConjugated())
        for b in map(mol.GetBondWithIdx, range(mol.GetNumBonds()))
    ]


def _numbers(rows: list[tuple[int, ...]], width: int) -> np.ndarray:
    """(len(rows), width) int64."""
    return np.fromiter(chain.from_iterable(rows), np.int64, len(rows) * width).reshape(-1, width)


def _features(raw: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    """(rows, features) uint8: each column looked up in its table; out-of-range numbers take the nearest entry."""
    columns = [table[column.clip(0, len(table) - 1)] for column, table in zip(raw.T, tables, strict=True)]
    return np.stack(columns, axis=1).astype(np.uint8)


def smiles_graphs(smiles: Sequence[str], scaffolds: bool = False) -> MoleculeArrays:
    """Parse many SMILES; those that are not molecules are listed in ``failed`` and left out of all other arrays.

    Runs in one process: callers split a million molecules into parts of a few thousand to bound the memory.

    Args:
        scaffolds: also compute the Murcko scaffold of each molecule.

    Raises:
        UserError: RDKit is not installed.
    """
    chemistry()
    indices: list[int] = []
    failed: list[int] = []
    scaffold_list: list[str] = []
    atoms: list[tuple[int, ...]] = []
    bonds: list[tuple[int, ...]] = []
    node_counts: list[int] = []
    bond_counts: list[int] = []
    relaxed = 0
    from rdkit import rdBase

    with rdBase.BlockLogs():
        for index, text in enumerate(smiles):
            molecule = read(text)
            if molecule is None:
                failed.append(index)
                continue
            mol, is_relaxed = molecule
            relaxed += is_relaxed
            indices.append(index)
            atoms += _atoms(mol)
            bonds += _bonds(mol)
            node_counts.append(mol.GetNumAtoms())
            bond_counts.append(mol.GetNumBonds())
            if scaffolds:
                scaffold_list.append(scaffold(mol))

    atom_tables, bond_tables = _tables()
    counts = np.array(bond_counts, np.int64)
    directed = _numbers(bonds, 5).repeat(2, axis=0)
    directed[1::2, :2] = directed[1::2, 1::-1]
    order = np.lexsort((directed[:, 0], directed[:, 1], np.arange(len(counts)).repeat(2 * counts)))
    directed = directed[order]
    return MoleculeArrays(
        node_counts=np.array(node_counts, np.int64),
        edge_counts=2 * counts,
        edge_index=directed[:, :2].T,
        x=_features(_numbers(atoms, 9), atom_tables),
        edge_attr=_features(directed[:, 2:], bond_tables),
        indices=np.array(indices, np.int64),
        failed=tuple((index, reason(smiles[index])) for index in failed),
        relaxed=relaxed,
        scaffolds=tuple(scaffold_list),
    )
