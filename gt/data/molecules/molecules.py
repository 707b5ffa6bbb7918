"""User-supplied molecules: a CSV, TSV, Parquet or SDF file with a molecule and its targets in each row."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gt.data import splits
from gt.data.folds import GROUP, Folds
from gt.data.molecules.columns import find_column, smiles_column, split_column, target_columns
from gt.data.molecules.files import read_molecules
from gt.data.molecules.known import known_molecules
from gt.data.molecules.parsing import chemistry
from gt.data.molecules.skipped import unusable_rows
from gt.data.molecules.smiles import ATOM_VOCAB, BOND_VOCAB, smiles_graphs
from gt.data.molecules.targets import Targets, read_targets
from gt.data.numbers import Numbers
from gt.data.packed import Arrays, Graphs
from gt.data.parallel import parallel_map
from gt.data.skipped import write_skipped
from gt.data.source import Source, small
from gt.data.table import Table
from gt.errors import UserError
from gt.schema import Kind, Schema, format_list

VERSION = 8  # raise when the same file and options would give a different result
PART = 2000  # molecules per task of a process

Split = Literal["scaffold", "random", "stratified", "group", "column"]


class Molecules(Source):
    """Molecules from a file, as graphs of atoms and bonds with OGB's features; rows without a molecule are skipped.

    Columns that are not named are detected, see `gt.data.molecules.columns`, and printed. Rows without any label or
    with an unusable target are skipped too; rows that lack only some of several targets stay.

    Args:
        path: a table (``.csv``, ``.tsv``, ``.txt``, ``.smi``, ``.jsonl``, ``.parquet``) or ``.sdf``, optionally gzipped
            (``.csv.gz``).
        smiles: the column of molecules, or its 0-based number, also for files without a header; None detects it.
        target: the column or columns to predict, or their numbers; None detects them.
        kind: the kind of the targets; None infers it.
        split: ``scaffold`` (OGB's rule), ``random``, ``stratified`` (equal shares of every class, or of low and high
            numbers), ``group`` (random, but rows with the same word in a column stay together) or ``column`` (given in
            each row); None takes ``column`` if there is a column of splits, else ``scaffold``.
        split_column: the column that says train, valid or test, or names the group.
        fractions: shares of train, valid and test, for any split but ``column``.
        split_seed: seed of ``random``, ``stratified``, ``group`` and folds.
        folds, fold: k-fold cross-validation, see `gt.data.folds.Folds`: random and stratified by class, or with a
            ``split`` by scaffold or group, which keeps the molecules of each in one fold.
        normalise, log: for regression, how targets are scaled for the network, see `gt.data.numbers.Numbers`.
        loss: for regression, squared error, scored by RMSE as in MoleculeNet, or absolute error, scored by MAE.
        root: the folder of the built stores.
        processes: number of processes that parse molecules; None uses all CPUs.

    Raises:
        UserError: on ``open``, if the file cannot be read, columns are missing or ambiguous, or no rows are left.
    """

    def __init__(
        self,
        path: str,
        smiles: str | int | None = None,
        target: str | int | Sequence[str | int] | None = None,
        kind: Kind | None = None,
        split: Split | None = None,
        split_column: str | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        normalise: bool = True,
        log: bool = False,
        loss: Literal["squared", "absolute"] = "squared",
        root: str = "data",
        processes: int | None = None,
    ) -> None:
        self.path = Path(path).expanduser()
        self.name, self.root = f"molecules-{self.path.name.partition('.')[0]}", Path(root)
        self.smiles, self.kind = None if smiles is None else str(smiles), kind
        targets = [target] if isinstance(target, str | int) else target
        self.target = None if targets is None else [str(name) for name in targets]
        self.split, self.split_column = split, split_column
        self.folds, self.split_seed = Folds(folds, fold, split_seed), split_seed
        self.fractions = [float(share) for share in self.folds.fractions(fractions)]
        self.numbers = Numbers(normalise, log, standardise=False)  # atom and bond features are categorical
        self.loss, self.processes = loss, processes
        splits.check_fractions(self.fractions)
        if split_column is not None and split not in (None, "column", "group"):
            raise ValueError(f"split_column goes with split=column or group, not with split={split}")
        if split_column is None and split == "group":
            raise ValueError("split=group needs the column of the groups: split_column=NAME")
        if folds is not None and (split == "column" or (split_column is not None and split != "group")):
            raise ValueError("folds and split=column both determine the splits: use only one of them")

    def check_files(self) -> None:
        self._check_path()
        if small([self.path]):
            chemistry()
            self._columns(read_molecules(self.path, self.smiles))

    def _check_path(self) -> None:
        if not self.path.is_file():
            raise UserError(f"there is no file {self.path}: set data.path to an existing one")

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Everything the store depends on."""
        chemistry()
        from rdkit import __version__ as rdkit  # another release may parse a molecule differently

        self._check_path()
        with open(self.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        options = ("smiles", "target", "kind", "split", "split_column", "fractions", "split_seed", "loss")
        facts = {"source": "molecules", "version": VERSION, "rdkit": rdkit, "file": digest, "name": self.path.name}
        return facts | {name: getattr(self, name) for name in options} | self.numbers.facts()

    def key(self) -> dict[str, Any]:
        return self.facts

    def summary(self, graphs: Graphs) -> str:
        facts, kind = graphs.notes, graphs.schema.kind
        sizes = " / ".join(f"{len(graphs.splits[name]):,}" for name in splits.SPLITS)
        grouping = f", by {self.split_column or self.split}" if GROUP in graphs.graphs else ""
        split = f"{self.folds}{grouping}" if self.folds.folds else f"{facts['split']} split"
        targets = format_list([f"'{name}'" for name in facts["targets"]], 4)
        classes = f" ({format_list(facts['classes'], 4)})" if facts["classes"] else ""
        relaxed = (
            f", {facts['relaxed']} of them with more bonds at a metal than RDKit allows" if facts["relaxed"] else ""
        )
        unused = f"; not used: {format_list(facts['unused'], 4)}" if facts["unused"] else ""
        listing = f", listed in {self.skipped_rows}" if self.skipped_rows.exists() else ""
        return (
            f"{self.path}: molecules from '{facts['smiles']}', {kind} from {targets}{classes}; "
            f"{len(graphs):,} molecules{relaxed}; {split} {sizes}; "
            f"{facts['skipped']:,} of {facts['rows']:,} rows skipped{listing}{unused}"
        )

    def build(self) -> Iterator[Graphs]:
        table = read_molecules(self.path, self.smiles)
        smiles, split, targets = self._columns(table)
        skipped = unusable_rows(table, smiles, None if self.split == "group" else split, targets)
        texts, rows = list(map(str, table.columns[smiles])), skipped.others()
        parts = [rows[start : start + PART] for start in range(0, len(rows), PART)]
        grouped = self.split if self.folds.folds and self.split in ("scaffold", "group") else None
        method = "column" if split and self.split != "group" else self.split or "scaffold"
        method = "random" if self.folds.folds else method  # until one fold is chosen
        read = partial(smiles_graphs, scaffolds="scaffold" in (method, grouped))
        words = table.columns[split] if split else None
        arrays = parallel_map(
            read, [[texts[row] for row in part] for part in parts], self.processes, "reading molecules"
        )
        used_rows: list[np.ndarray] = []
        scaffolds: list[str] = []
        relaxed = 0
        for number, (part, molecules) in enumerate(zip(parts, arrays, strict=True), 1):
            for index, reason in molecules.failed:
                skipped.add(part[index], texts[part[index]], reason)
            rows = part[molecules.indices]
            used_rows.append(rows)
            scaffolds += molecules.scaffolds
            relaxed += molecules.relaxed
            by_graph = {"y": targets.of(rows), "row": rows}
            if grouped:
                by_graph[GROUP] = group_ids(molecules.scaffolds if words is None else words[rows].tolist(), rows)
            chunk = molecules.graphs(by_graph, self._schema(smiles, targets))
            if number == len(parts) and any(map(len, used_rows)):
                all_rows = np.concatenate(used_rows)
                chunk.splits = self._split(method, targets, all_rows, scaffolds, words)
                chunk.schema = self._fitted(chunk.schema, targets.of(all_rows[chunk.splits["train"]]))
                chunk.notes = {
                    "rows": len(table),
                    "skipped": len(skipped),
                    "relaxed": relaxed,
                    "smiles": smiles,
                    "targets": targets.columns,
                    "classes": [f"{n} = {name}" for n, name in enumerate(targets.classes) if name != str(n)],
                    "split": method,
                    "unused": [name for name in table.columns if name not in {smiles, split, *targets.columns}],
                }
                if len(skipped):
                    write_skipped(self.skipped_rows, [skipped])
            yield chunk
        if not any(map(len, used_rows)):
            raise UserError(f"{next(iter(skipped.reasons().values()))}; no other row can be used either")

    def build_known(self, model_schema: Schema) -> Iterator[Graphs]:
        self.records = yield from known_molecules(self.path, self.smiles, model_schema, self.processes, PART)

    def resplit(self, graphs: Graphs) -> Graphs:
        splits = self.folds.choose(graphs, str(self.path))
        if splits is None:
            return graphs
        schema = self._fitted(graphs.schema, graphs.graphs["y"][splits["train"]])
        return replace(graphs, splits=splits, schema=schema)

    def names(self, graphs: Graphs) -> dict[str, np.ndarray]:
        """The 0-based row of each molecule in the file, and its SMILES."""
        return {"row": graphs.graphs["row"], graphs.notes["smiles"]: np.array(self.smiles_of(graphs), dtype=object)}

    def smiles_of(self, graphs: Graphs) -> list[str]:
        name = graphs.notes["smiles"]
        if self.records is not None:
            return list(map(str, self.records.table[name].to_numpy()[self.records.row]))
        return list(map(str, read_molecules(self.path, self.smiles).columns[name][graphs.graphs["row"]]))

    def _columns(self, table: Table) -> tuple[str, str | None, Targets]:
        """The column of molecules, the column of splits or groups if any, and the targets."""
        smiles, split = (
            name if name is None else find_column(table, name, f"data.{option}")
            for option, name in {"smiles": self.smiles, "split_column": self.split_column}.items()
        )
        smiles = smiles or smiles_column(table)
        if split is None and self.split in (None, "column") and self.folds.folds is None:
            split = split_column(table, required=self.split == "column")
        used = {smiles} | ({split} if split else set())
        names = [find_column(table, name, "data.target") for name in self.target or ()] or target_columns(table, used)
        if conflict := used & {*names}:
            raise UserError(f"{table.name}: '{conflict.pop()}' cannot be a target, it holds the molecules or the split")
        table.refuse_repeated([*used, *names])
        for name in names:
            for row in table.spoiled.get(name, ()):
                table.columns[name][row] = None
        targets = read_targets(table, names, self.numbers.kind(self.kind))
        self.numbers.check(targets.kind, targets.y, table.location)
        return smiles, split, targets

    @staticmethod
    def _schema(smiles: str, targets: Targets) -> Schema:
        return Schema(
            node_vocab=ATOM_VOCAB,
            edge_vocab=BOND_VOCAB,
            level="graph",
            kind=targets.kind,
            outputs=targets.outputs,
            names=targets.classes if targets.kind == "multiclass" else tuple(targets.columns),
            target=tuple(targets.columns),
            node_names=(smiles,),
            answers=targets.answers,
        )

    def _split(self, method: str, targets: Targets, rows: np.ndarray, scaffolds: list[str], words: Any) -> Arrays:
        """The indices of the molecules of each split.

        Raises:
            UserError: a split with a positive share is empty.
        """
        if method == "column":
            parts = splits.by_word(words[rows].tolist())
            shares = {"train": 1.0, "valid": 1.0}
        else:
            shares = dict(zip(splits.SPLITS, self.fractions, strict=True))
            if method == "scaffold":
                parts = splits.by_scaffold(scaffolds, self.fractions)
            elif method == "group":
                parts = splits.by_group(group_ids(words[rows].tolist(), rows), self.fractions, self.split_seed)
            elif method == "random":
                parts = splits.at_random(len(rows), self.fractions, self.split_seed)
            else:
                parts = splits.stratified(targets.strata(rows, str(self.path)), self.fractions, self.split_seed)
        empty = [name for name, share in shares.items() if share and not len(parts[name])]
        if empty or not len(parts["train"]) or not len(parts["valid"]):
            raise UserError(
                f"{self.path}: the {method} split of {len(rows)} molecules leaves none for"
                f" {' and '.join(empty) or 'train or valid'}; choose another data.split or data.fractions"
            )
        return parts

    def _fitted(self, schema: Schema, y: np.ndarray) -> Schema:
        """The schema with the scaling fitted to the training targets."""
        if schema.kind == "regression":
            return replace(schema, **self.numbers.units(y), squared=self.loss == "squared")
        return schema


def group_ids(words: Sequence[object], rows: np.ndarray) -> np.ndarray:
    """(len(words),) int64 ids, equal for equal words; a row without a word is a group of its own."""
    pairs = zip(words, rows.tolist(), strict=True)
    keys = [f"\n{row}" if word is None or word != word else str(word) for word, row in pairs]
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, np.int64)
