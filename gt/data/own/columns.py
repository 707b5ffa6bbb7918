"""What the columns of somebody's own graphs are: categories or numbers, classes or values, and who learns from whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gt.data.packed import Arrays, Graphs
from gt.data.splits import SPLITS, stratified
from gt.data.table import Where
from gt.data.targets import FEW, tells_apart
from gt.errors import UserError
from gt.schema import UNLABELLED, Kind, Schema, many, several

MOST_NEIGHBOURS = 511  # as a category in place of features, degrees from here on are one


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


def widths_of(values: np.ndarray | None) -> tuple[tuple[int, ...], int]:
    """What columns (rows,) or (rows, columns) are to a model: sizes of categories (vocab), or a width (floats).

    Integers are categories, a table row more than the largest; reals are numbers.
    """
    if values is None or not values[:1].size:
        return (), 0
    values = values[:, None] if values.ndim == 1 else values
    if values.dtype.kind in "iu":
        return tuple((values.max(0, initial=0).astype(np.int64) + 1).ravel().tolist()), 0
    return (), values.shape[1]


def features(values: np.ndarray | None, where: Where, what: str, vocab: tuple[int, ...], floats: int) -> np.ndarray:
    """Columns (rows,) or (rows, columns) as a model with such widths takes them: integer categories or float32 numbers.

    Raises:
        UserError: another number of columns, a category that is beyond, a number that is not finite.
    """
    width = len(vocab) or floats
    values = values[:, None] if values is not None and values.ndim == 1 else values
    if values is None or values.ndim != 2 or values.shape[1] != width:
        shape = "missing" if values is None else " x ".join(map(str, values.shape))
        raise UserError(f"{where(0)}: {what} is {shape}, where a row of {width:,} columns for each is needed")
    if floats:
        refuse(~np.isfinite(values), values, where, f"in {what} is not a finite number")
        return single(values, where, f"in {what}")
    why = f"in {what} is no category: these are numbered from 0, and the model knows those of its training"
    refuse((values != np.floor(values)) | (values < 0) | (values >= np.array(vocab)), values, where, why)
    return values if values.dtype.kind in "iu" else values.astype(np.int64)


def single(values: np.ndarray, where: Where, what: str) -> np.ndarray:
    """Numbers in float32.

    Raises:
        UserError: one is too large for it.
    """
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    refuse(np.isinf(numbers), values, where, f"{what} is too large for a float32: scale the numbers")
    return numbers


def as_number(value: float) -> str:
    """What to do in a file for whole numbers, of which this is one, to be read as numbers rather than categories."""
    return f"write it as {float(value)} (a double in GraphML and GEXF)"


def most_neighbours(target: np.ndarray) -> int:
    """The largest in-degree as a category in place of features, `MOST_NEIGHBOURS` at most; ``target`` (E,) reads."""
    return int(np.bincount(target).max(initial=0).clip(max=MOST_NEIGHBOURS))


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
    if not len(values):
        raise UserError(f"{where(0)}: no target at all, nothing to learn")
    if values.dtype.kind in "OUST":
        if columns > 1 or kind not in (None, "multiclass"):
            raise UserError(f"{where(0)}: {values[0, 0]!r} is text, which can only be a class of a single target")
        names, y = np.unique(values[:, 0].astype(str), return_inverse=True)
        _shared(len(names), len(y), where, kind)
        return Answer(y.astype(np.int64), "multiclass", len(names), tuple(names.tolist()))
    whole = values.dtype.kind in "iub"
    refuse(np.isinf(values), values, where, "as a target is not finite")
    plain = values.astype(np.float64)
    known = ~np.isnan(plain)
    if whole and columns == 1 and kind in (None, "multiclass"):
        known &= plain != UNLABELLED
    if not known.any():
        raise UserError(f"{where(0)}: no target at all, nothing to learn")
    yes_no = ~known | (plain == 0) | (plain == 1)
    chosen = kind
    if kind is None:
        kind = "multiclass" if whole and columns == 1 else "binary" if yes_no.all() else "regression"
    if kind == "multiclass":
        return _classes(plain, known, where, chosen)
    if kind == "binary":
        refuse(~yes_no, values, where, "is neither 0 nor 1: set data.kind=regression or multiclass")
    return Answer(single(np.where(known, plain, np.nan), where, "as a target"), kind, columns)


def _classes(plain: np.ndarray, known: np.ndarray, where: Where, kind: Kind | None) -> Answer:
    if plain.shape[1] > 1:
        raise UserError(f"{where(0)}: {plain.shape[1]} targets cannot be classes: set data.kind=binary or regression")
    refuse(known & (plain != np.floor(plain)), plain, where, "is no whole number, as a class is")
    refuse(known & (np.abs(plain) >= 2**53), plain, where, "is too large to be a class")
    y = np.where(known, plain, UNLABELLED)[:, 0].astype(np.int64)
    known = known[:, 0]
    classes = np.unique(y[known])
    _shared(len(classes), int(known.sum()), where, kind)
    if classes[0] >= 0 and classes[-1] < len(y):
        return Answer(y, "multiclass", int(classes[-1]) + 1)
    y[known] = np.searchsorted(classes, y[known])
    return Answer(y, "multiclass", len(classes), tuple(map(str, classes.tolist())))


def _shared(distinct: int, labelled: int, where: Where, kind: Kind | None) -> None:
    """Classes are shared by rows.

    Raises:
        UserError: every row has one of its own, or most have and nobody says that they are classes.
    """
    if tells_apart(distinct, labelled, kind is not None):
        raise UserError(
            f"{where(0)}: {distinct:,} different values in {labelled:,} targets are no classes: choose another target, "
            "or data.kind=regression where they are numbers"
        )


def random_split(answer: Answer, fractions: Sequence[float], seed: int, what: str) -> Arrays:
    """Row numbers of the labelled rows by split, drawn at random, each class shared out alike.

    Args:
        fractions: the shares of train, valid and test; a test share of 0 leaves it out.

    Raises:
        UserError: a split would be empty.
    """
    rows = np.flatnonzero(answer.labelled)
    classes = answer.y[rows] if answer.kind == "multiclass" else np.zeros(len(rows))
    splits = {name: rows[part] for name, part in stratified(classes, fractions, seed).items() if len(part)}
    if "train" not in splits or "valid" not in splits:
        raise UserError(f"{what}: {len(rows)} with a target are too few for splits of {list(fractions)}")
    return splits


def describe(name: str, graphs: Graphs) -> str:
    """What was found: a line of counts, one for the attributes of nodes, of edges, and of graphs, and one for whole
    numbers of nodes, and of edges, that may be no categories."""
    schema = graphs.schema

    def columns(vocab: tuple[int, ...], floats: int, names: Sequence[str]) -> str:
        if vocab:
            known = names if len(names) == len(vocab) else [""] * len(vocab)
            shown = [f"{size:,}{f' ({name})' if name else ''}" for size, name in zip(vocab[:9], known, strict=False)]
            return f"categories of {', '.join(shown)}{' ...' if len(vocab) > 9 else ''}"
        return many(floats, "real number") if floats else "nothing"

    notes: dict[str, Any] = graphs.notes
    counts = (
        f"{name}: {many(len(graphs), 'graph')}, {many(int(graphs.node_ptr[-1]), 'node')}, "
        f"{many(int(graphs.edge_ptr[-1]), 'edge')}{_links(graphs)}; "
        f"a node has {columns(schema.node_vocab, schema.node_floats, schema.node_names)}"
        f"{' (its in-degree: there are no features)' if notes.get('degree') else ''}, "
        f"an edge {columns(schema.edge_vocab, schema.edge_floats, schema.edge_names)}; "
        + ", ".join(f"{split} {len(graphs.splits[split]):,}" for split in SPLITS if split in graphs.splits)
    )
    return "\n".join([counts, *_attributes(notes.get("attributes", {})), *_measures(schema)])


def _links(graphs: Graphs) -> str:
    if not graphs.links:
        return ""
    return f", {many(len(graphs.links['y']), 'pair')} of nodes, {int((graphs.links['y'] == 1).sum()):,} of them linked"


def _attributes(roles: Mapping[str, Mapping[str, str]]) -> list[str]:
    """For each table a line: what became of its columns, those alike together."""
    lines = []
    for table, columns in roles.items():
        alike: dict[str, list[str]] = {}
        for name, role in columns.items():
            alike.setdefault(role, []).append(name)
        parts = [f"{role}: {several(names, 6)}" for role, names in sorted(alike.items(), key=lambda i: "not" in i[0])]
        if parts:
            lines.append(f"  {table:<7}{'; '.join(parts)}")
    return lines


def _measures(schema: Schema) -> list[str]:
    """A line for each table with whole numbers of many values: an age and a part of speech look alike in a file."""
    read = {"nodes": (schema.node_names, schema.node_categories), "edges": (schema.edge_names, schema.edge_categories)}
    lines = []
    for rows, (names, categories) in read.items():
        whole = {
            name: values
            for name, values in zip(names, categories, strict=False)
            if len(values) > FEW and isinstance(values[0], int)
        }
        if whole:
            lines.append(
                f"  {several(list(whole), 6)} of {rows}: each whole number is its own category, and a new one cannot "
                f"be read; if it measures something, {as_number(int(next(iter(whole.values()))[-1]))}"
            )
    return lines
