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
from gt.data.parallel import parallel_map
from gt.data.reading import open_bytes
from gt.errors import UserError
from gt.schema import Schema

PART = 10_000  # molecules per task of a process
SPLITS = ("train", "valid", "test-dev", "test-challenge")
OFFICIAL = {"test-dev": 147_037, "test-challenge": 147_432}  # molecules whose gaps OGB does not publish
UNKNOWN = "*"  # SMILES of an unspecified atom


class PCQM4Mv2(OGBGraphs):
    """3,746,620 molecules and their gaps in eV, scored by the mean absolute error on ``valid``.

    The gaps of ``test-dev`` and ``test-challenge`` are not public (NaN); predictions for them are written to a
    submission file. Every row is a graph: a molecule that cannot be parsed becomes one unspecified atom, and is left
    out of training.

    Args:
        root: the folder that holds, or will hold, ``pcqm4m-v2``.
        processes: number of processes that parse molecules; None uses all CPUs.
    """

    version = 1
    store_bytes = 3 * 2**30

    def __init__(self, root: str = "data", processes: int | None = None) -> None:
        super().__init__("pcqm4m-v2", root)
        self.processes = processes

    def metric(self, graphs: Graphs) -> LeaderboardMetric:
        return PCQM4Mv2Metric()

    def key(self) -> dict[str, Any]:
        chemistry()
        from rdkit import __version__ as rdkit  # another release may parse a molecule differently

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
        for start, part in zip(starts, parallel_map(_graphs, parts, self.processes, "reading molecules"), strict=True):
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
        """Write the submission file of the challenge for a split with hidden targets.

        Args:
            prediction: (molecules, 1) eV, in the order of the split.

        Returns:
            the file; None for a split that is not submitted.
        """
        if split not in OFFICIAL:
            return None
        name = f"y_pred_pcqm4m-v2_{split}.npz"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{name}.part-") as part:
            if len(prediction) == OFFICIAL[split]:
                PCQM4Mv2Metric().evaluator.save_test_submission({"y_pred": prediction[:, 0]}, part, split)
            else:  # an incomplete copy of the dataset, for which OGB's function fails
                np.savez_compressed(Path(part) / name, y_pred=prediction[:, 0].astype(np.float32))
            (Path(part) / name).replace(folder / name)
        return folder / name


def _graphs(smiles: Sequence[str]) -> tuple[MoleculeArrays, list[int]]:
    """Parse all molecules in order, with an unspecified atom for each that fails; also return the failed rows."""
    molecules = smiles_graphs(smiles)
    failed = {row for row, _ in molecules.failed}
    if failed:
        molecules = smiles_graphs([UNKNOWN if row in failed else text for row, text in enumerate(smiles)])
    return molecules, sorted(failed)


def _table(path: Path) -> tuple[list[str], np.ndarray]:
    """The SMILES of every row, and (rows, 1) gaps in eV, NaN where missing."""
    dtypes = {"idx": np.int64, "smiles": str, "homolumogap": np.float64}
    try:
        with open_bytes(path) as stream:
            table = pd.read_csv(stream, dtype=dtypes, keep_default_na=False, na_values={"homolumogap": [""]})
    except (ValueError, OverflowError):
        raise UserError(f"{path}{_fault(path, dtypes)}; replace the file by OGB's") from None
    if list(table) != list(dtypes):
        columns = ", ".join(map(str, table))
        raise UserError(f"{path} has the columns {columns} instead of {', '.join(dtypes)}: replace the file by OGB's")
    if not len(table):
        raise UserError(f"{path} holds no molecules: replace the file by OGB's")
    misplaced = np.flatnonzero(table["idx"].to_numpy() != np.arange(len(table)))
    if len(misplaced):
        raise UserError(f"{path}, row {misplaced[0] + 1}: idx is not {misplaced[0]}; replace the file by OGB's")
    y = table[["homolumogap"]].to_numpy(np.float32)
    refuse(path, np.isinf(y), y, "is not finite")
    return table["smiles"].tolist(), y


def _fault(path: Path, dtypes: Mapping[str, type]) -> str:
    """The rest of the error message, after the file name, for the first malformed row."""
    with open_bytes(path) as stream:
        lines = csv.reader(io.TextIOWrapper(stream, encoding="utf-8", errors="replace"))
        for row, cells in enumerate(islice(lines, 1, None), 1):
            if len(cells) != len(dtypes):
                return f", row {row}: {len(cells)} columns, expected {len(dtypes)}"
            for (name, dtype), cell in zip(dtypes.items(), cells, strict=True):
                try:
                    dtype(cell or "nan")
                except (ValueError, OverflowError):
                    return f", row {row}: {cell!r} is not a valid {name}"
    return " is not a table of molecules and gaps"


def _splits(path: Path, y: np.ndarray) -> Arrays:
    """The graph indices of each split."""
    ids_of = arrays(path)
    if set(ids_of) != set(SPLITS):
        raise UserError(f"{path} holds {', '.join(ids_of)} instead of {', '.join(SPLITS)}: replace the file by OGB's")
    valid_type = all(ids.ndim == 1 and ids.dtype.kind == "i" for ids in ids_of.values())
    all_ids = np.concatenate([ids_of[split] for split in SPLITS]) if valid_type else np.array([-1])
    if len(all_ids) and not 0 <= all_ids.min() <= all_ids.max() < len(y):
        raise UserError(
            f"{path} has indices out of range for data.csv.gz, which has {len(y)} rows: replace both by OGB's"
        )
    if len(np.unique(all_ids)) != len(all_ids):
        raise UserError(f"{path} has a molecule in its splits more than once: replace the file by OGB's")
    for split in ("train", "valid"):
        if not len(ids_of[split]):
            raise UserError(f"{path} has no molecules in {split}: replace the file by OGB's")
        missing = ids_of[split][np.isnan(y[ids_of[split], 0])]
        if len(missing):
            raise UserError(f"{path}: molecule {missing[0]} is in {split}, but has no gap in data.csv.gz; replace both")
    return {split: ids_of[split] for split in SPLITS}
