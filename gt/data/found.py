"""What the columns of somebody's own graphs are: categories or numbers, classes or values, and who learns from whom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gt.data.store import Arrays, Graphs
from gt.errors import UserError
from gt.schema import Kind, Level

Where = Callable[[int], str]  # says where row r of a table stands, such as "nodes.csv, line 7"
UNLABELLED = -100  # a class that is not known
MOST_NEIGHBOURS = 511  # as a category in place of features, degrees from here on are one
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Features:
    """Columns that a model embeds: ``values`` (rows, columns); ``vocab`` for categories, ``floats`` for numbers."""

    values: np.ndarray
    vocab: tuple[int, ...] = ()
    floats: int = 0


@dataclass(frozen=True)
class Answer:
    """Targets: ``y`` (rows,) of classes, or (rows, outputs) of float32 where NaN stands for no label."""

    y: np.ndarray
    kind: Kind
    outputs: int
    names: tuple[str, ...] = ()

    @property
    def labelled(self) -> np.ndarray:
        """(rows,) whether there is any label."""
        return self.y != UNLABELLED if self.kind == "multiclass" else ~np.isnan(self.y).all(1)


def refuse(wrong: np.ndarray, values: np.ndarray, where: Where, why: str) -> None:
    """Name the first wrong one of the values (rows,) or (rows, columns).

    Raises:
        UserError: any is wrong.
    """
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0])
        raise UserError(f"{where(int(place[0]))}: {values[place]} {why}")


def features(values: np.ndarray, where: Where, what: str) -> Features:
    """Integers (rows,) or (rows, columns) are categories, a table row more than the largest; reals are numbers.

    Raises:
        UserError: more than two dimensions, a negative category, a number that is not finite.
    """
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise UserError(f"{where(0)}: {what} has {values.ndim} dimensions where rows and columns are needed")
    if values.dtype.kind in "iu":
        refuse(values < 0, values, where, f"in {what} is negative: categories are numbered from 0")
        return Features(values, vocab=tuple((values.max(0, initial=0) + 1).tolist()))
    refuse(~np.isfinite(values), values, where, f"in {what} is not a finite number")
    return Features(values.astype(np.float32), floats=values.shape[1])


def degrees(target: np.ndarray, nodes: int) -> Features:
    """The in-degree of each of the nodes as a category, for graphs without features; ``target`` (E,) reads an edge."""
    degree = np.minimum(np.bincount(target, minlength=nodes), MOST_NEIGHBOURS)
    return Features(degree[:, None], vocab=(int(degree.max()) + 1,))


def answer(values: np.ndarray, where: Where, kind: Kind | None = None) -> Answer:
    """Targets of a kind that is found: integers or text in one column are classes, 0 and 1 in several columns or as
    reals are yes/no tasks, other numbers are values.

    Args:
        values: (rows,) or (rows, columns) of integers, reals (NaN where unlabelled) or text; a class of -100 is
            unlabelled. Classes keep their numbers where these are 0 or more and below the number of rows, and are
            numbered in ascending order where not.
        where: names a row in errors.
        kind: what they are said to be.

    Raises:
        UserError: they are not of the kind that is named, or not finite, or none is labelled.
    """
    values = values[:, None] if values.ndim == 1 else values.reshape(len(values), -1)
    columns = values.shape[1]
    if values.dtype.kind in "OUST":
        if columns > 1 or kind not in (None, "multiclass"):
            raise UserError(f"{where(0)}: {values[0, 0]!r} is text, which can only be a class of a single target")
        names, y = np.unique(values[:, 0].astype(str), return_inverse=True)
        return Answer(y.astype(np.int64), "multiclass", len(names), tuple(names.tolist()))
    whole = values.dtype.kind in "iub"
    refuse(np.isinf(values), values, where, "as a target is not finite")
    plain = values.astype(np.float64)
    known = ~np.isnan(plain)
    if whole and columns == 1:
        known &= plain != UNLABELLED
    if not known.any():
        raise UserError(f"{where(0)}: no target at all, nothing to learn")
    yes_no = ~known | (plain == 0) | (plain == 1)
    if kind is None:
        kind = "multiclass" if whole and columns == 1 else "binary" if yes_no.all() else "regression"
    if kind == "multiclass":
        return _classes(plain, known, where)
    if kind == "binary":
        refuse(~yes_no, values, where, "is neither 0 nor 1: set data.kind=regression or multiclass")
    return Answer(np.where(known, plain, np.nan).astype(np.float32), kind, columns)


def _classes(plain: np.ndarray, known: np.ndarray, where: Where) -> Answer:
    if plain.shape[1] > 1:
        raise UserError(f"{where(0)}: {plain.shape[1]} targets cannot be classes: set data.kind=binary or regression")
    refuse(known & (plain != np.floor(plain)), plain, where, "is no whole number, as a class is")
    y = np.where(known, plain, UNLABELLED)[:, 0].astype(np.int64)
    known = known[:, 0]
    found = np.unique(y[known])
    if found[0] >= 0 and found[-1] < len(y):
        return Answer(y, "multiclass", int(found[-1]) + 1)
    y[known] = np.searchsorted(found, y[known])
    return Answer(y, "multiclass", len(found), tuple(map(str, found.tolist())))


def random_split(answer: Answer, fractions: Sequence[float], seed: int, what: str) -> Arrays:
    """Row numbers of the labelled rows by split, drawn at random, each class shared out alike.

    Args:
        fractions: the shares of train, valid and test; a test share of 0 leaves it out.

    Raises:
        UserError: the fractions do not add up, or a split would be empty.
    """
    if len(fractions) != 3 or abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0:
        raise UserError(f"data.fractions={list(fractions)} are not three shares that add up to 1")
    draw = np.random.default_rng(seed)
    rows = draw.permutation(np.flatnonzero(answer.labelled))
    if answer.kind == "multiclass":  # spread each class evenly over the whole order: any cut then shares it out
        by_class = np.argsort(answer.y[rows], kind="stable")
        counts = np.bincount(answer.y[rows], minlength=answer.outputs)
        rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        place = (rank + draw.random(len(rows))) / np.repeat(counts, counts)
        rows = rows[by_class][np.argsort(place, kind="stable")]
    held_out = [max(1, round(share * len(rows))) if share else 0 for share in fractions[1:]]
    first = len(rows) - sum(held_out)
    if first < 1 or not held_out[0]:
        raise UserError(f"{what}: {len(rows)} with a target are too few for splits of {list(fractions)}")
    cuts = np.split(rows, [first, first + held_out[0]])
    return {split: np.sort(part) for split, part in zip(SPLITS, cuts, strict=True) if len(part)}


def describe(name: str, graphs: Graphs) -> str:
    """One line: what was found."""
    schema = graphs.schema

    def columns(vocab: tuple[int, ...], floats: int) -> str:
        if vocab:
            return f"categories of {', '.join(f'{size:,}' for size in vocab[:9])}{' ...' if len(vocab) > 9 else ''}"
        return f"{floats} real numbers" if floats else "nothing"

    level: Level = schema.level
    what = {
        "multiclass": f"one of {schema.outputs} classes",
        "binary": f"{schema.outputs} yes/no answers",
        "regression": f"{schema.outputs} real numbers",
    }[schema.kind]
    notes: dict[str, Any] = graphs.notes
    return (
        f"{name}: {len(graphs):,} graphs, {int(graphs.node_ptr[-1]):,} nodes, {int(graphs.edge_ptr[-1]):,} edges; "
        f"a node has {columns(schema.node_vocab, schema.node_floats)}"
        f"{' (its in-degree: there are no features)' if notes.get('degree') else ''}, "
        f"an edge {columns(schema.edge_vocab, schema.edge_floats)}; to predict for each {level}: {what}; "
        + ", ".join(f"{split} {len(graphs.splits[split]):,}" for split in SPLITS if split in graphs.splits)
    )
