"""Text classification, with each text as a path graph of its tokens, see `gt.data.text.paths`."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gt.data.folds import Folds
from gt.data.packed import Graphs
from gt.data.skipped import SkippedRows, write_skipped
from gt.data.source import Source, small
from gt.data.targets import tells_apart
from gt.data.text.files import by_split, digest, file_summary, find, store_name
from gt.data.text.known import COLUMN_PREFIX, known_texts
from gt.data.text.labelled import Columns, find_columns, kind_of, read_rows
from gt.data.text.paths import packed
from gt.data.text.tokenizer import KINDS, BytePairs, Tokenizer, loads
from gt.errors import UserError
from gt.ranges import at_least
from gt.schema import Schema, format_list

HIDDEN = "-1"  # the label of test splits that benchmarks publish without labels
VERSION = 5  # raise when the same files would give different samples
Kind = Literal["words", "bytes", "bpe"]
Rows = tuple[list[str], list[str]]  # texts and their labels


def by_fractions(labels: np.ndarray, shares: Sequence[float], seed: int) -> list[np.ndarray]:
    """Stratified random split: row indices of a part for each share, then those of the rest."""
    rng = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        ends = np.round(np.cumsum(shares) * len(rows)).astype(int)
        for part, chosen in zip(parts, np.split(rows, ends), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) for part in parts]


class TextClassification(Source):
    """Labelled texts from CSV, TSV, JSONL or Parquet files, optionally gzipped.

    Args:
        path: the training file, or a folder whose files name their splits (``train.tsv``, ``dev.tsv``, ``test.tsv``).
        text, label: names of columns, or numbers (as text) if there is no header; null detects them.
        valid_path, test_path: files of these splits. Without a validation file, missing splits are drawn from the
            training file, stratified by class.
        valid, test: the shares of these draws.
        split_seed: seed of these draws.
        folds, fold: k-fold cross-validation of the rows of one file, see `gt.data.folds.Folds`.
        tokens: ``words`` (lower case), ``bytes``, or ``bpe``; learned only on the training texts.
        vocabulary: maximum number of tokens; rarer words become one unknown token.
        tokenizer: a ``tokenizer.json`` to use instead.
        longest: maximum tokens of a text; the rest is cut off.
        root: the folder of the built stores.
    """

    def __init__(
        self,
        path: str,
        text: str | int | None = None,
        label: str | int | None = None,
        valid_path: str | None = None,
        test_path: str | None = None,
        valid: float = 0.1,
        test: float = 0.1,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        tokens: Kind = "words",
        vocabulary: int = 8192,
        tokenizer: str | None = None,
        longest: int = 512,
        root: str = "data",
    ) -> None:
        self.name, self.made_of, self.root = "text_classification", store_name(path), Path(root)
        if tokens not in ("words", "bytes", "bpe"):
            raise ValueError(f"tokens must be words, bytes or bpe, not {tokens}")
        at_least(1, longest, "longest")
        at_least(2, vocabulary, "vocabulary")
        if not (valid > 0 and test >= 0 and valid + test < 1):
            raise ValueError(f"shares of {valid} for validation and {test} for test leave no training data")
        self.path, self.valid_path, self.test_path = path, valid_path, test_path
        self.text, self.label = (None if column is None else str(column) for column in (text, label))
        self.shares, self.split_seed = {"valid": valid, "test": test}, split_seed
        self.folds = Folds(folds, fold, split_seed)
        if fold and folds is None:
            raise UserError(f"data.fold={fold} needs data.folds, the number of folds")
        self.tokens, self.vocabulary, self.longest = tokens, vocabulary, longest
        self.tokenizer_file = None if tokenizer is None else Path(tokenizer)

    def check_files(self) -> None:
        if small(list(chain.from_iterable(self.files().values()))):
            self._split(self._rows()[0])

    def files(self) -> dict[str, list[Path]]:
        """The files of each split, at least ``train``."""
        root, paths = find(self.path)
        if len(paths) == 1 and paths[0] == Path(self.path):
            by_name = {"train": paths}
        else:
            by_name, _ = by_split(root, [path for path in paths if kind_of(path)])
            if "train" not in by_name:
                raise UserError(
                    f"no CSV, TSV, JSONL or Parquet file of {self.path} is named as the training file: "
                    "set data.path to the training file"
                )
        explicit = {"valid": self.valid_path, "test": self.test_path}
        return by_name | {split: find(path)[1] for split, path in explicit.items() if path is not None}

    def key(self) -> dict[str, Any]:
        files = self.files()
        return {
            "dataset": "text_classification",
            "version": VERSION,
            "files": digest(files),
            "endings": sorted({kind_of(path) for paths in files.values() for path in paths}),
            "columns": [self.text, self.label],
            "shares": [share for split, share in self.shares.items() if split not in files],
            "split_seed": self.split_seed,
            "tokens": self.tokens if self.tokenizer_file is None else BytePairs.read(self.tokenizer_file).dumps(),
            "vocabulary": self.vocabulary,
            "longest": self.longest,
            **self.folds.facts(),  # as the tokenizer depends on the training texts
        }

    def summary(self, graphs: Graphs) -> str:
        columns = self._columns()
        sizes = ", ".join(f"{split} {len(ids):,}" for split, ids in graphs.splits.items())
        count = graphs.notes["rows skipped"]
        skipped = f"; {count:,} of {len(graphs) + count:,} rows skipped, listed in {self.skipped_rows}" if count else ""
        unused = f"; not used: {format_list(columns.others, 4)}" if columns.others else ""
        files = f"\n  {listing}" if (listing := file_summary(self.path, self.files())) else ""
        unlabelled = "test" in self.files() and "test" not in graphs.splits
        hidden = f"; test left out, as its labels are all {HIDDEN}" if unlabelled else ""
        guess = (
            "line 1 is read as a header (set data.text=0 data.label=1 if it is data)"
            if columns.header
            else "no header found: line 1 is read as data (set data.text=NAME if it names the columns)"
        )
        return (
            f"{self.path}: texts from '{columns.text}', labels from '{columns.label}' "
            f"({format_list(graphs.schema.names, 4)}); {sizes}{hidden}{skipped}{unused}{files}"
            + (f"\n  {guess}" if columns.uncertain else "")
        )

    def _columns(self) -> Columns:
        """The columns of texts and labels, from the first training file."""
        return find_columns(self.files()["train"][0], self.text, self.label)

    def _rows(self) -> tuple[dict[str, Rows], list[SkippedRows]]:
        """The texts and labels of each split that has files, and the skipped rows of each file."""
        rows: dict[str, Rows] = {}
        left_out: list[SkippedRows] = []
        columns = self._columns()
        for split, paths in sorted(self.files().items(), key=lambda item: item[0] != "train"):
            texts, labels = rows.setdefault(split, ([], []))
            for path in paths:
                file_texts, file_labels, skipped = read_rows(path, columns)
                texts += file_texts
                labels += file_labels
                left_out.append(skipped)
        labels, distinct = rows["train"][1], len(set(rows["train"][1]))
        if {*rows.get("test", ((), ()))[1]} == {HIDDEN} and HIDDEN not in labels:
            del rows["test"]
        if distinct == len(labels) > 2 or tells_apart(distinct, len(labels)):
            raise UserError(
                f"{self.path}: '{columns.label}' has {distinct:,} different values for {len(labels):,} texts, too many "
                "for classes: set data.label to another column"
            )
        return rows, left_out

    def _split(self, rows: dict[str, Rows]) -> dict[str, Rows]:
        """The rows, with splits that have no file drawn from the training rows."""
        if self.folds.folds is not None:
            return self._fold(rows)
        shares = {split: share for split, share in self.shares.items() if split not in self.files() and share}
        if "valid" in rows:  # datasets with their own splits are used as they are
            shares = {}
        if not shares:
            return rows
        texts, labels = rows["train"]
        parts = by_fractions(np.unique(labels, return_inverse=True)[1], list(shares.values()), self.split_seed)
        drawn = {
            split: ([texts[i] for i in part], [labels[i] for i in part])
            for split, part in zip([*shares, "train"], parts, strict=True)
        }
        empty = [split for split, (subset, _) in drawn.items() if not subset]
        if empty:
            names = " and ".join(empty)
            raise UserError(f"{self.path} has {len(texts)} rows: too few to split, {names} would be empty")
        return rows | drawn

    def _fold(self, rows: dict[str, Rows]) -> dict[str, Rows]:
        """The rows of the only file, split by the folds."""
        if len(self.files()) > 1:
            raise UserError(f"data.folds splits the rows of a single file, but {self.path} has files for its splits")
        texts, labels = rows["train"]
        parts = self.folds.deal(np.unique(labels, return_inverse=True)[1], self.path)
        return {split: ([texts[i] for i in part], [labels[i] for i in part]) for split, part in parts.items()}

    def _tokenizer(self, texts: Sequence[str]) -> Tokenizer:
        if self.tokenizer_file is not None:
            return BytePairs.read(self.tokenizer_file)
        return KINDS[self.tokens].learn(texts, self.vocabulary)

    def _by_split(self, rows: dict[str, Rows]) -> dict[str, Rows]:
        """The texts and labels of each split, in the order of the store."""
        parts = self._split(rows)
        return {split: parts[split] for split in ("train", "valid", "test") if split in parts}

    def names(self, graphs: Graphs) -> dict[str, np.ndarray]:
        """The text of each graph."""
        return {"text": np.array(self.texts_of(graphs), dtype=object)}

    def texts_of(self, graphs: Graphs) -> list[str]:
        return [text for texts, _ in self._by_split(self._rows()[0]).values() for text in texts]

    def build_known(self, model_schema: Schema) -> Graphs:
        texts, y, self.records = known_texts(find(self.path)[1], self.text, model_schema)
        return packed(texts, y, loads(model_schema.tokenizer), model_schema, model_schema.longest or self.longest)

    def build(self) -> Graphs:
        rows, left_out = self._rows()
        parts = self._by_split(rows)
        # all folds have the same classes
        sources = parts.values() if self.folds.folds is not None else [parts["train"]]
        names = _ordered([label for _, labels in sources for label in labels])
        if len(names) < 2:
            raise UserError(f"every training text of {self.path} has the label '{names[0]}': there is nothing to learn")
        number = {name: index for index, name in enumerate(names)}
        for split, (_, labels) in parts.items():
            unseen = sorted(set(labels) - set(number))
            if unseen:
                raise UserError(
                    f"the {split} split of {self.path} has a label '{unseen[0]}' that training lacks: add training "
                    "texts with it, or remove its rows"
                )
        tokenizer, columns = self._tokenizer(parts["train"][0]), self._columns()
        ends = np.cumsum([0] + [len(texts) for texts, _ in parts.values()])
        graphs = packed(
            [text for texts, _ in parts.values() for text in texts],
            np.array([number[label] for _, labels in parts.values() for label in labels]),
            tokenizer,
            Schema(
                node_vocab=(tokenizer.size,),
                edge_vocab=(2,),
                outputs=len(names),
                names=tuple(names),
                target=(columns.label if columns.header else f"{COLUMN_PREFIX}{columns.label}",),
                tokenizer=tokenizer.dumps(),
                longest=self.longest,
                node_names=(columns.text if columns.header else f"{COLUMN_PREFIX}{columns.text}",),
            ),
            self.longest,
        )
        graphs.notes["rows skipped"] = sum(map(len, left_out))
        if graphs.notes["rows skipped"]:
            write_skipped(self.skipped_rows, left_out)
        return replace(graphs, splits={split: np.arange(ends[i], ends[i + 1]) for i, split in enumerate(parts)})


def _ordered(labels: Sequence[str]) -> list[str]:
    """The distinct labels, in numerical order if all are integers, else alphabetically."""
    names = sorted(set(labels))
    return sorted(names, key=int) if all(re.fullmatch(r"-?\d{1,18}", name) for name in names) else names
