"""Ways to split samples into train, valid and test; each returns the sorted sample numbers of every split."""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pandas as pd

from gt.data.packed import Arrays

SPLITS = ("train", "valid", "test")
SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}


def split_of(word: object) -> str | None:
    """The split that a table cell names; None if it names none."""
    return SPLIT_ALIASES.get(str(word).strip().lower())


def without_split(words: np.ndarray) -> np.ndarray:
    """(rows,) which cells of a split column (rows,) are empty: these rows are in no split."""
    return pd.isna(words) | np.array([not str(word).strip() for word in words], bool)


def check_fractions(fractions: Sequence[float]) -> None:
    """Check the fractions of train, valid and test.

    Raises:
        ValueError: they are not three, or do not add up to 1.
    """
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6):
        raise ValueError(f"fractions must be three shares that add up to 1, not {list(fractions)}")


def by_scaffold(scaffolds: Sequence[str], fractions: Sequence[float]) -> Arrays:
    """Scaffold split as for the molecules of the Open Graph Benchmark (Hu et al. 2020): no scaffold is in two splits.

    Groups of equal scaffold, sorted by size and then by their first sample, both descending, fill train, then valid; a
    group that would exceed the share of a split goes to the next, and the rest to test.
    """
    groups = defaultdict(list)
    for sample, scaffold in enumerate(scaffolds):
        groups[scaffold].append(sample)
    splits: dict[str, list[int]] = {name: [] for name in SPLITS}
    first, second = (share * len(scaffolds) for share in (fractions[0], fractions[0] + fractions[1]))
    for group in sorted(groups.values(), key=lambda group: (len(group), group[0]), reverse=True):
        if len(splits["train"]) + len(group) <= first:
            name = "train"
        elif len(splits["train"]) + len(splits["valid"]) + len(group) <= second:
            name = "valid"
        else:
            name = "test"
        splits[name] += group
    return {name: np.array(sorted(samples), np.int64) for name, samples in splits.items()}


def at_random(count: int, fractions: Sequence[float], seed: int) -> Arrays:
    """Random split."""
    return stratified(np.zeros(count), fractions, seed)


def stratified(classes: np.ndarray, fractions: Sequence[float], seed: int) -> Arrays:
    """Random split stratified by class (samples,): all splits have equal shares of every class."""
    count = len(classes)
    cuts = [round(share * count) for share in accumulate(fractions[:2])]
    sizes = np.diff([0, *cuts, count])
    # a split of n samples takes them at evenly spaced positions: of any range it gets its share, to within one or two
    split = np.repeat(np.arange(3), sizes)
    position = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes if size])
    turns = split[position.argsort(kind="stable")]
    order = np.lexsort((np.random.default_rng(seed).random(count), classes))
    return {name: np.sort(order[turns == number]) for number, name in enumerate(SPLITS)}


def by_group(groups: np.ndarray, fractions: Sequence[float], seed: int) -> Arrays:
    """Random split by group (samples,): no group is in two splits, and shares are met as far as groups allow.

    A split with a non-zero share gets at least one group, if there are enough.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    split = np.empty(len(sizes), np.int64)
    split[order] = np.searchsorted(np.cumsum(fractions[:2]) * len(groups), middle)
    for number, share in enumerate(fractions):
        counts = np.bincount(split, minlength=3)
        if share and not counts[number] and counts.max() > 1:
            donors = np.flatnonzero(split == counts.argmax())
            split[donors[sizes[donors].argmin()]] = number
    return {name: np.flatnonzero(split[group] == number) for number, name in enumerate(SPLITS)}


def k_fold(classes: np.ndarray, folds: int, fold: int, seed: int) -> Arrays:
    """One fold for test, the one before it for validation, the others for training (Dwivedi et al. 2020).

    Folds are random and stratified by class (samples,): their counts, of each class and in total, differ by at most
    one. Over all folds each sample is in test once and in validation once.
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(classes)), classes))
    part = np.empty(len(classes), np.int64)
    part[order] = np.arange(len(classes)) % folds
    return _fold(part, folds, fold)


def group_k_fold(groups: np.ndarray, folds: int, fold: int, seed: int) -> Arrays:
    """As `k_fold`, but no group (samples,) is in two folds: largest first, each group goes to the smallest fold."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.lexsort((np.random.default_rng(seed).random(len(sizes)), -sizes))
    part, fold_sizes = np.empty(len(sizes), np.int64), [(0, number) for number in range(folds)]
    for index in order.tolist():
        size, number = fold_sizes[0]
        part[index] = number
        heapq.heapreplace(fold_sizes, (size + int(sizes[index]), number))
    return _fold(part[group], folds, fold)


def _fold(part: np.ndarray, folds: int, fold: int) -> Arrays:
    """The splits of one fold, given the fold of each sample (samples,)."""
    held_out = {"valid": (fold - 1) % folds, "test": fold}
    train = ~np.isin(part, list(held_out.values()))
    return {"train": np.flatnonzero(train)} | {split: np.flatnonzero(part == n) for split, n in held_out.items()}


def by_word(words: Sequence[object]) -> Arrays:
    """Split by the cells of a column, see `split_of`."""
    names = np.array([split_of(word) for word in words])
    return {name: np.flatnonzero(names == name) for name in SPLITS}
