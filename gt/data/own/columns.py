"""Infers what the columns of a user's own graphs are: categories or numbers, classes or values; and splits the rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gt.data.packed import Arrays, Graphs
from gt.data.splits import SPLITS, stratified
from gt.data.table import Locator
from gt.data.targets import SMALL_VOCABULARY, tells_apart
from gt.errors import UserError
from gt.schema import UNLABELLED, Kind, Schema, format_list, pluralise

MAX_DEGREE = 511  # degrees from here on share a category, when the degree replaces missing features


@dataclass(frozen=True)
class Targets:
    """Targets: ``y`` holds classes (rows,), or float32 numbers (rows, outputs) where NaN means no label."""

    y: np.ndarray
    kind: Kind
    outputs: int
    names: tuple[str, ...] = ()

    @property
    def labelled(self) -> np.ndarray:
        """(rows,) whether a row has any label."""
        return self.y != UNLABELLED if self.kind == "multiclass" else ~np.isnan(self.y).all(1)


def refuse(invalid: np.ndarray, values: np.ndarray, where: Locator, reason: str) -> None:
    """Raise an error that names the first invalid value of (rows,) or (rows, columns), if there is one.

    Raises:
        UserError: a value is invalid.
    """
    if invalid.any():
        index = tuple(np.argwhere(invalid)[0])
        raise UserError(f"{where(int(index[0]))}: {values[index]} {reason}")


def widths_of(values: np.ndarray | None) -> tuple[tuple[int, ...], int]:
    """The model's view of columns (rows,) or (rows, columns): vocabulary sizes of categories, or a number of floats.

    Integers are categories, with a vocabulary of the largest value plus one; floats are numbers.
    """
    if values is None or not values[:1].size:
        return (), 0
    values = values[:, None] if values.ndim == 1 else values
    if values.dtype.kind in "iu":
        return tuple((values.max(0, initial=0).astype(np.int64) + 1).ravel().tolist()), 0
    return (), values.shape[1]


def features(values: np.ndarray | None, where: Locator, name: str, vocab: tuple[int, ...], floats: int) -> np.ndarray:
    """Convert columns (rows,) or (rows, columns) for a model with the given widths: to integers or to float32.

    Raises:
        UserError: a wrong number of columns, a category outside the vocabulary, a number that is not finite.
    """
    width = len(vocab) or floats
    values = values[:, None] if values is not None and values.ndim == 1 else values
    if values is None or values.ndim != 2 or values.shape[1] != width:
        shape = "missing" if values is None else " x ".join(map(str, values.shape))
        raise UserError(f"{where(0)}: {name} is {shape}, but should have a row of {width:,} columns for each")
    if floats:
        refuse(~np.isfinite(values), values, where, f"in {name} is not a finite number")
        return to_float32(values, where, f"in {name}")
    reason = f"in {name} is not a category of the training data; categories are numbered from 0"
    refuse((values != np.floor(values)) | (values < 0) | (values >= np.array(vocab)), values, where, reason)
    return values if values.dtype.kind in "iu" else values.astype(np.int64)


def to_float32(values: np.ndarray, where: Locator, name: str) -> np.ndarray:
    """Convert numbers to float32.

    Raises:
        UserError: a number overflows.
    """
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    refuse(np.isinf(numbers), values, where, f"{name} is too large for a float32: scale the numbers")
    return numbers


def as_number_hint(value: float) -> str:
    """Advice on how to write whole numbers, such as this one, to have them read as numbers rather than categories."""
    return f"write it as {float(value)} (a double in GraphML and GEXF)"


def max_in_degree(target: np.ndarray) -> int:
    """The largest in-degree, at most `MAX_DEGREE`, of the targets (E,) of edges."""
    return int(np.bincount(target).max(initial=0).clip(max=MAX_DEGREE))


def infer_targets(values: np.ndarray, where: Locator, kind: Kind | None = None) -> Targets:
    """Infer the kind of targets: integers or text in one column are classes; 0 and 1, in several columns or as floats,
    are yes/no tasks; other numbers are values.

    Args:
        values: (rows,) or (rows, columns) of integers, floats (NaN if unlabelled) or text; a class of -100 means
            unlabelled. Classes keep their numbers if these are at least 0 and below the number of rows, otherwise they
            are renumbered in ascending order.
        where: returns the location of a row, for errors.
        kind: the kind that the user has set, if any.

    Raises:
        UserError: targets are not of the kind set, not finite, or all unlabelled.
    """
    values = values[:, None] if values.ndim == 1 else values.reshape(len(values), -1)
    columns = values.shape[1]
    if not len(values):
        raise UserError(f"{where(0)}: no targets at all, nothing to learn")
    if values.dtype.kind in "OUST":
        if columns > 1 or kind not in (None, "multiclass"):
            raise UserError(f"{where(0)}: {values[0, 0]!r} is text, which can only be a class of a single target")
        names, y = np.unique(values[:, 0].astype(str), return_inverse=True)
        _check_shared(len(names), len(y), where, kind)
        return Targets(y.astype(np.int64), "multiclass", len(names), tuple(names.tolist()))
    integral = values.dtype.kind in "iub"
    refuse(np.isinf(values), values, where, "as a target is not finite")
    numbers = values.astype(np.float64)
    labelled = ~np.isnan(numbers)
    if integral and columns == 1 and kind in (None, "multiclass"):
        labelled &= numbers != UNLABELLED
    if not labelled.any():
        raise UserError(f"{where(0)}: no targets at all, nothing to learn")
    yes_no = ~labelled | (numbers == 0) | (numbers == 1)
    user_kind = kind
    if kind is None:
        kind = "multiclass" if integral and columns == 1 else "binary" if yes_no.all() else "regression"
    if kind == "multiclass":
        return _classes(numbers, labelled, where, user_kind)
    if kind == "binary":
        refuse(~yes_no, values, where, "is neither 0 nor 1: set data.kind=regression or multiclass")
    return Targets(to_float32(np.where(labelled, numbers, np.nan), where, "as a target"), kind, columns)


def _classes(numbers: np.ndarray, labelled: np.ndarray, where: Locator, kind: Kind | None) -> Targets:
    if numbers.shape[1] > 1:
        raise UserError(f"{where(0)}: {numbers.shape[1]} targets cannot be classes: set data.kind=binary or regression")
    refuse(labelled & (numbers != np.floor(numbers)), numbers, where, "is not a whole number, so it cannot be a class")
    refuse(labelled & (np.abs(numbers) >= 2**53), numbers, where, "is too large to be a class")
    y = np.where(labelled, numbers, UNLABELLED)[:, 0].astype(np.int64)
    labelled = labelled[:, 0]
    classes = np.unique(y[labelled])
    _check_shared(len(classes), int(labelled.sum()), where, kind)
    if classes[0] >= 0 and classes[-1] < len(y):
        return Targets(y, "multiclass", int(classes[-1]) + 1)
    y[labelled] = np.searchsorted(classes, y[labelled])
    return Targets(y, "multiclass", len(classes), tuple(map(str, classes.tolist())))


def _check_shared(distinct: int, labelled: int, where: Locator, kind: Kind | None) -> None:
    """Check that rows share classes.

    Raises:
        UserError: every row has a class of its own, or most have one and the user has not set that they are classes.
    """
    if tells_apart(distinct, labelled, kind is not None):
        raise UserError(
            f"{where(0)}: {distinct:,} different values in {labelled:,} targets are too many for classes: choose "
            "another target, or data.kind=regression if they are numbers"
        )


def random_split(targets: Targets, fractions: Sequence[float], seed: int, name: str) -> Arrays:
    """A random split of the labelled rows, stratified by class: row numbers by split.

    Args:
        fractions: the shares of train, valid and test; a test share of 0 omits that split.

    Raises:
        UserError: the training or validation split would be empty.
    """
    rows = np.flatnonzero(targets.labelled)
    classes = targets.y[rows] if targets.kind == "multiclass" else np.zeros(len(rows))
    splits = {name: rows[part] for name, part in stratified(classes, fractions, seed).items() if len(part)}
    if "train" not in splits or "valid" not in splits:
        raise UserError(f"{name}: too few labelled samples ({len(rows)}) for splits of {list(fractions)}")
    return splits


def describe(name: str, graphs: Graphs) -> str:
    """A summary: a line of counts, a line each for the attributes of nodes, edges and graphs, and a line each for
    integers of nodes and edges that may not be categories."""
    schema = graphs.schema

    def columns(vocab: tuple[int, ...], floats: int, names: Sequence[str]) -> str:
        if vocab:
            names = names if len(names) == len(vocab) else [""] * len(vocab)
            shown = [f"{size:,}{f' ({name})' if name else ''}" for size, name in zip(vocab[:9], names, strict=False)]
            return f"categories of {', '.join(shown)}{' ...' if len(vocab) > 9 else ''}"
        return pluralise(floats, "real number") if floats else "nothing"

    notes: dict[str, Any] = graphs.notes
    counts = (
        f"{name}: {pluralise(len(graphs), 'graph')}, {pluralise(int(graphs.node_ptr[-1]), 'node')}, "
        f"{pluralise(int(graphs.edge_ptr[-1]), 'edge')}{_links(graphs)}; "
        f"a node has {columns(schema.node_vocab, schema.node_floats, schema.node_names)}"
        f"{' (its in-degree: there are no features)' if notes.get('degree') else ''}, "
        f"an edge {columns(schema.edge_vocab, schema.edge_floats, schema.edge_names)}; "
        + ", ".join(f"{split} {len(graphs.splits[split]):,}" for split in SPLITS if split in graphs.splits)
    )
    return "\n".join([counts, *_attributes(notes.get("attributes", {})), *_measure_hints(schema)])


def _links(graphs: Graphs) -> str:
    if not graphs.links:
        return ""
    y = graphs.links["y"]
    return f", {pluralise(len(y), 'pair')} of nodes, {int((y == 1).sum()):,} of them linked"


def _attributes(roles: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line per table with the role of each column, grouped by role."""
    lines = []
    for table, columns in roles.items():
        by_role: dict[str, list[str]] = {}
        for name, role in columns.items():
            by_role.setdefault(role, []).append(name)
        parts = [
            f"{role}: {format_list(names, 6)}" for role, names in sorted(by_role.items(), key=lambda i: "not" in i[0])
        ]
        if parts:
            lines.append(f"  {table:<7}{'; '.join(parts)}")
    return lines


def _measure_hints(schema: Schema) -> list[str]:
    """A line per table with integers of many values: a file does not tell an age from a part-of-speech tag."""
    columns = {
        "nodes": (schema.node_names, schema.node_categories),
        "edges": (schema.edge_names, schema.edge_categories),
    }
    lines = []
    for rows, (names, categories) in columns.items():
        integers = {
            name: values
            for name, values in zip(names, categories, strict=False)
            if len(values) > SMALL_VOCABULARY and isinstance(values[0], int)
        }
        if integers:
            lines.append(
                f"  {format_list(list(integers), 6)} of {rows}: each whole number is its own category, and a new one "
                f"cannot be read; if it measures something, {as_number_hint(int(next(iter(integers.values()))[-1]))}"
            )
    return lines
