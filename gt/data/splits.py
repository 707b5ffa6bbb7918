"""Ways to split samples into train, valid and test; each gives the sample numbers of every split, sorted."""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pandas as pd

from gt.data.packed import Arrays

SPLITS = ("train", "valid", "test")
WORDS = {
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
    """The split that a cell of a table means; None where it means none."""
    return WORDS.get(str(word).strip().lower())


def without_split(words: np.ndarray) -> np.ndarray:
    """(rows,) which cells of a column of splits (rows,) are empty: these rows are in none."""
    return pd.isna(words) | np.array([not str(word).strip() for word in words], bool)


def check_fractions(fractions: Sequence[float]) -> None:
    """Whether these are shares of train, valid and test.

    Raises:
        ValueError: they are not three, or do not add up to 1.
    """
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6):
        raise ValueError(f"fractions must be three shares that add up to 1, not {list(fractions)}")


def by_scaffold(scaffolds: Sequence[str], fractions: Sequence[float]) -> Arrays:
    """No scaffold in two splits, the rule of the Open Graph Benchmark's molecules (Hu et al. 2020).

    Groups of equal scaffold, sorted by size and then by their first sample, both descending, fill train, then valid;
    a group that would fill a split beyond its share goes to the next, and what is left goes to test.
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
    """Every sample by lot."""
    return stratified(np.zeros(count), fractions, seed)


def stratified(classes: np.ndarray, fractions: Sequence[float], seed: int) -> Arrays:
    """By lot within each class (samples,), so that all splits have equal shares of every class."""
    count = len(classes)
    cuts = [round(share * count) for share in accumulate(fractions[:2])]
    sizes = np.diff([0, *cuts, count])
    # a split of n samples takes one at each n-th of the way: of any stretch it gets its share, to within one or two
    split = np.repeat(np.arange(3), sizes)
    way = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes if size])
    turns = split[way.argsort(kind="stable")]
    order = np.lexsort((np.random.default_rng(seed).random(count), classes))
    return {name: np.sort(order[turns == number]) for number, name in enumerate(SPLITS)}


def by_group(groups: np.ndarray, fractions: Sequence[float], seed: int) -> Arrays:
    """By lot, but no group (samples,) in two splits: shares are met as far as groups allow.

    A split that is to have a share has one group at least, where there are as many.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    split = np.empty(len(sizes), np.int64)
    split[order] = np.searchsorted(np.cumsum(fractions[:2]) * len(groups), middle)
    for number, share in enumerate(fractions):
        counts = np.bincount(split, minlength=3)
        if share and not counts[number] and counts.max() > 1:
            most = np.flatnonzero(split == counts.argmax())
            split[most[sizes[most].argmin()]] = number
    return {name: np.flatnonzero(split[group] == number) for number, name in enumerate(SPLITS)}


def k_fold(classes: np.ndarray, folds: int, fold: int, seed: int) -> Arrays:
    """One fold for the test, the one before it for validation, the others for training (Dwivedi et al. 2020).

    Samples are dealt out by lot within each class (samples,), so that of any class, and of all, no fold has two more
    than another. Over all folds each sample is tested once and validated once.
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(classes)), classes))
    part = np.empty(len(classes), np.int64)
    part[order] = np.arange(len(classes)) % folds
    return _fold(part, folds, fold)


def group_k_fold(groups: np.ndarray, folds: int, fold: int, seed: int) -> Arrays:
    """As `k_fold`, but no group (samples,) in two folds: the largest first, each goes to the fold that has least."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.lexsort((np.random.default_rng(seed).random(len(sizes)), -sizes))
    part, held = np.empty(len(sizes), np.int64), [(0, number) for number in range(folds)]
    for place in order.tolist():
        least, number = held[0]
        part[place] = number
        heapq.heapreplace(held, (least + int(sizes[place]), number))
    return _fold(part[group], folds, fold)


def _fold(part: np.ndarray, folds: int, fold: int) -> Arrays:
    """The splits of one fold, where samples (samples,) are of these folds."""
    chosen = {"valid": (fold - 1) % folds, "test": fold}
    train = ~np.isin(part, list(chosen.values()))
    return {"train": np.flatnonzero(train)} | {split: np.flatnonzero(part == n) for split, n in chosen.items()}


def by_word(words: Sequence[object]) -> Arrays:
    """As the cells of a column say, each a word that `split_of` knows."""
    meant = np.array([split_of(word) for word in words])
    return {name: np.flatnonzero(meant == name) for name in SPLITS}
