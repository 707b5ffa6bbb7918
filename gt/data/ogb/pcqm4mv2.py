"""PCQM4Mv2 of OGB's large-scale challenge (Hu et al. 2021): the HOMO-LUMO gap of a molecule, from its SMILES."""

import csv
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gt.data.molecules.parsing import chemistry
from gt.data.molecules.smiles import ATOM_VOCAB, BOND_VOCAB, MoleculeArrays, smiles_graphs
from gt.data.numbers import moments
from gt.data.ogb.graphs import OGBGraphs
from gt.data.ogb.metric import LeaderboardMetric, PCQM4Mv2Metric
from gt.data.ogb.pt import arrays
from gt.data.ogb.raw_csv import refuse
from gt.data.packed import Arrays, Graphs
from gt.data.parallel import mapped
from gt.data.reading import opened
from gt.errors import UserError
from gt.schema import Schema

PART = 10_000  # molecules that a process reads at a time
SPLITS = ("train", "valid", "test-dev", "test-challenge")
OFFICIAL = {"test-dev": 147_037, "test-challenge": 147_432}  # molecules whose gaps OGB keeps to itself
UNKNOWN = "*"  # SMILES of an atom of no known kind


class PCQM4Mv2(OGBGraphs):
    """3,746,620 molecules and their gaps in eV, scored by the mean absolute error on ``valid``.

    The gaps of ``test-dev`` and ``test-challenge`` are not public (NaN): for these a submission file is made of
    predictions. A row is a graph, so that a molecule that cannot be read is there too, as a single atom of no known
    kind, and is left out of training.

    Args:
        root: the folder that holds, or will hold, ``pcqm4m-v2``.
        processes: how many read molecules; None takes all CPUs.
    """

    version = 1
    built = 3 * 2**30

    def __init__(self, root: str = "data", processes: int | None = None) -> None:
        super().__init__("pcqm4m-v2", root)
        self.processes = processes

    def metric(self, graphs: Graphs) -> LeaderboardMetric:
        return PCQM4Mv2Metric()

    def key(self) -> dict[str, Any]:
        chemistry()
        from rdkit import __version__ as rdkit  # another release may read a molecule otherwise

        return super().key() | {"rdkit": rdkit}

    def read(self, raw: Mapping[str, Path]) -> Iterator[Graphs]:
        smiles, y = _table(raw["data"])
        splits = _splits(raw["split"], y)
        mean, scale = moments(y[splits["train"]])
        schema = Schema(
            node_vocab=ATOM_VOCAB,
            edge_vocab=BOND_VOCAB,
            level="graph",
            kind="regression",
            names=("homolumogap",),
            target=("homolumogap",),
            mean=mean,
            scale=scale,
        )
        starts = range(0, len(smiles), PART)
        parts = [smiles[start : start + PART] for start in starts]
        failed: list[int] = []
        for start, part in zip(starts, mapped(_graphs, parts, self.processes, "reading molecules"), strict=True):
            molecules, rows = part
            failed += [start + row for row in rows]
            last = start == starts[-1]
            if last and failed:
                splits["train"] = np.setdiff1d(splits["train"], failed)
            chunk = molecules.graphs({"y": y[start : start + PART]}, schema)
            chunk.splits = splits
            chunk.notes = {"molecules that cannot be read": len(failed), "of these the first rows": failed[:20]}
            yield chunk

    def submission(self, split: str, prediction: np.ndarray, folder: Path) -> Path | None:
        """Write the predictions of a split whose targets are hidden as the file that the challenge takes.

        Args:
            prediction: (molecules, 1) eV, in the order of the split.

        Returns:
            the file; None for a split that is not handed in.
        """
        if split not in OFFICIAL:
            return None
        name = f"y_pred_pcqm4m-v2_{split}.npz"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{name}.part-") as part:
            if len(prediction) == OFFICIAL[split]:
                PCQM4Mv2Metric().evaluator.save_test_submission({"y_pred": prediction[:, 0]}, part, split)
            else:  # of a copy that is not the whole, for which OGB's function fails
                np.savez_compressed(Path(part) / name, y_pred=prediction[:, 0].astype(np.float32))
            (Path(part) / name).replace(folder / name)
        return folder / name


def _graphs(smiles: Sequence[str]) -> tuple[MoleculeArrays, list[int]]:
    """Every molecule, in order, those that cannot be read as an atom of no known kind; and which these are."""
    molecules = smiles_graphs(smiles)
    missing = {row for row, _ in molecules.failed}
    if missing:
        molecules = smiles_graphs([UNKNOWN if row in missing else text for row, text in enumerate(smiles)])
    return molecules, sorted(missing)


def _table(path: Path) -> tuple[list[str], np.ndarray]:
    """The SMILES of every row, and (rows, 1) gaps in eV, NaN where there is none."""
    kinds = {"idx": np.int64, "smiles": str, "homolumogap": np.float64}
    try:
        with opened(path) as stream:
            table = pd.read_csv(stream, dtype=kinds, keep_default_na=False, na_values={"homolumogap": [""]})
    except (ValueError, OverflowError):
        raise UserError(f"{path}{_fault(path, kinds)}; replace the file by OGB's") from None
    if list(table) != list(kinds):
        columns = ", ".join(map(str, table))
        raise UserError(f"{path} has the columns {columns} and not {', '.join(kinds)}: replace the file by OGB's")
    if not len(table):
        raise UserError(f"{path} holds no molecules: replace the file by OGB's")
    wrong = np.flatnonzero(table["idx"].to_numpy() != np.arange(len(table)))
    if len(wrong):
        raise UserError(f"{path}, row {wrong[0] + 1}: idx is not {wrong[0]}; replace the file by OGB's")
    y = table[["homolumogap"]].to_numpy(np.float32)
    refuse(path, np.isinf(y), y, "is not finite")
    return table["smiles"].tolist(), y


def _fault(path: Path, kinds: Mapping[str, type]) -> str:
    """What is wrong with the first wrong row, after the name of the file."""
    with opened(path) as stream:
        lines = csv.reader(io.TextIOWrapper(stream, encoding="utf-8", errors="replace"))
        for row, cells in enumerate(islice(lines, 1, None), 1):
            if len(cells) != len(kinds):
                return f", row {row}: {len(cells)} columns where there should be {len(kinds)}"
            for (name, kind), cell in zip(kinds.items(), cells, strict=True):
                try:
                    kind(cell or "nan")
                except (ValueError, OverflowError):
                    return f", row {row}: {cell!r} is no {name}"
    return " is no table of molecules and gaps"


def _splits(path: Path, y: np.ndarray) -> Arrays:
    """The graph numbers of each split."""
    ids_of = arrays(path)
    if set(ids_of) != set(SPLITS):
        raise UserError(f"{path} holds {', '.join(ids_of)} and not {', '.join(SPLITS)}: replace the file by OGB's")
    numbered = all(ids.ndim == 1 and ids.dtype.kind == "i" for ids in ids_of.values())
    every = np.concatenate([ids_of[split] for split in SPLITS]) if numbered else np.array([-1])
    if len(every) and not 0 <= every.min() <= every.max() < len(y):
        raise UserError(f"{path} has numbers that are no row of data.csv.gz, which has {len(y)}: replace both by OGB's")
    if len(np.unique(every)) != len(every):
        raise UserError(f"{path} has a molecule in its splits more than once: replace the file by OGB's")
    for split in ("train", "valid"):
        if not len(ids_of[split]):
            raise UserError(f"{path} has no molecules in {split}: replace the file by OGB's")
        lacking = ids_of[split][np.isnan(y[ids_of[split], 0])]
        if len(lacking):
            raise UserError(f"{path}: molecule {lacking[0]} is in {split} and has no gap in data.csv.gz; replace both")
    return {split: ids_of[split] for split in SPLITS}
