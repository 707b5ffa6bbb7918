"""Infers the role of each attribute of a user's own graphs: target, feature, or unused, such as ids and layouts."""

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from gt.data.table import Table
from gt.data.targets import SMALL_VOCABULARY, tells_apart
from gt.errors import UserError, nearest, shell_override
from gt.schema import format_list

TARGET_NAMES = ("label", "y", "target")  # default target columns, in any case
LIKELY_TARGETS = (*TARGET_NAMES, "class", "category")  # suggested first in error messages
ID_WORDS = {"id", "ids", "index", "idx", "key", "uid", "uuid", "guid", "name"}  # last words of names of id columns
AXES = ("x", "y", "z")
# what D3 and Gephi write besides the position of a node: velocity, fixed position, colour and size
LAYOUT_COLUMNS = ("vx", "vy", "vz", "fx", "fy", "fz", "r", "g", "b", "alpha", "size")
FEATURE, NUMBER = "feature", "numbers"  # whether a FEATURE is a category is decided later
LAYOUT_ATTRIBUTES = ("graphics", "labelgraphics", "viz")  # attributes of GML and GEXF that describe a drawing
EMPTY = "empty"
POSITION = "a position in a drawing"

Reasons = dict[str, str]  # why a column, by name, is not used


def layout_columns(table: Table) -> list[str]:
    """The columns that describe a drawing: ``x`` and ``y``, if both are measurements, and what accompanies them.

    If ``y`` has few values, each in several rows, it is more likely to be a class than a coordinate.
    """
    lower = {name.lower(): name for name in reversed(table.columns)}
    if not all(axis in lower and _is_measurement(table.columns[lower[axis]]) for axis in AXES[:2]):
        return []
    coloured = {"r", "g", "b"} <= lower.keys()
    extras = [name for name in LAYOUT_COLUMNS if name[0] in "vf" or coloured]
    return [lower[name] for name in (*AXES, *extras) if name in lower]


def _is_measurement(values: np.ndarray) -> bool:
    """Whether a column holds measurements: numbers that are not integral, or too many distinct ones to be classes."""
    if values.dtype.kind not in "iuf":
        return False
    present = values[~pd.isna(values)]
    distinct = len(pd.unique(present))
    return bool(distinct > 2 and ((present != np.floor(present)).any() or 2 * distinct > len(present)))


def unused_columns(table: Table, ids: Collection[str], rows: str, rare: bool = False) -> Reasons:
    """The columns of a table that are not used unless requested, and why.

    Args:
        ids: columns with a reserved meaning.
        rows: what the rows are: ``nodes``, ``edges`` or ``graphs``.
        rare: allow columns that are empty in most rows, as targets may be.
    """
    layout = layout_columns(table) if rows == "nodes" else []
    reasons: Reasons = {}
    for name in table.others(*ids):
        values = table.columns[name]
        present = values[~pd.isna(values)]
        distinct = len(pd.unique(present))
        if not len(present) and len(values):
            reasons[name] = EMPTY
        elif not rare and 2 * len(present) < len(values):
            reasons[name] = f"empty for {len(values) - len(present):,} of {len(values):,} {rows}"
        elif name.partition(".")[0].lower() in LAYOUT_ATTRIBUTES:
            reasons[name] = "part of a drawing"
        elif rows == "graphs" and distinct == 1 < len(values) and values.dtype.kind == "O":
            reasons[name] = "the same for all"
        elif name in layout:
            reasons[name] = POSITION if name.lower() in AXES else "part of a drawing"
        elif values.dtype.kind == "O" and tells_apart(distinct, len(present)):
            reasons[name] = f"{distinct:,} different texts for {len(present):,} {rows}"
        elif len(values) > 2 and values.dtype.kind in "Oiu" and _is_row_id(name, values, table.columns.get("graph")):
            reasons[name] = f"an id of {rows}"
    return reasons


def _is_row_id(name: str, values: np.ndarray, graph: np.ndarray | None) -> bool:
    """Whether a column is unique (within each graph) and named like ids, or counts rows from 0 or 1."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    if words and words[-1] in ID_WORDS:
        keys = pd.Index(values) if graph is None else pd.MultiIndex.from_arrays([graph, values])
        return bool(keys.is_unique)
    is_counter = values.dtype.kind in "iu" and values[0] in (0, 1) and bool((np.diff(values) == 1).all())
    return is_counter and name.lower() not in TARGET_NAMES


def unsuitable_as_classes(name: str, values: np.ndarray, rows: str) -> str | None:
    """Why a column (rows,) cannot be used as classes: most values, or all, occur in a single row; else None."""
    present = values[~pd.isna(values)]
    distinct = len(pd.unique(present))
    if values.dtype.kind == "f" or not (tells_apart(distinct, len(present)) or distinct == len(present) > 2):
        return None
    return f"'{name}' has {distinct:,} different values for {len(present):,} {rows}, too many for classes"


def target_columns(
    nodes: Table, graphs: Table | None, requested: Sequence[str] | None, kind: str | None
) -> tuple[list[str], bool]:
    """The columns to predict, and whether they are node attributes.

    Args:
        requested: the columns named by the user; None uses all suitable graph attributes, else the first suitable node
            attribute of `TARGET_NAMES`.
        kind: the kind of targets that the user has set, if any.

    Raises:
        UserError: there is no such column; suggests suitable ones.
    """
    of_graphs = [] if graphs is None else graphs.others("graph", "split")
    if requested is not None:
        of_nodes = nodes.others("graph", "node", "split")
        for columns, by_node in ((of_graphs, False), (of_nodes, True)):
            if requested and set(requested) <= set(columns):
                return list(requested), by_node
        missing = next((name for name in requested if name not in {*of_graphs, *of_nodes}), str(requested))
        raise UserError(f"data.target: no column '{missing}' to predict: {nearest(missing, {*of_graphs, *of_nodes})}")
    problems: list[str] = []  # why graph attributes are not targets
    if graphs is not None:
        unused = unused_columns(graphs, ("graph", "split"), "graphs", rare=True)
        if usable := [name for name in of_graphs if name not in unused]:
            return usable, False
        for name, reason in unused.items():
            problems.append(f"'{name}' of graphs is not a target: {reason}")
    location = nodes.name if graphs is None else f"{graphs.name} and {nodes.name}"
    unused = unused_columns(nodes, ("graph", "node", "split"), "nodes", rare=True)
    return [_node_target(nodes, unused, f"{location}: {''.join(f'{text}; ' for text in problems)}", kind)], True


def _node_target(nodes: Table, unused: Mapping[str, str], location: str, kind: str | None) -> str:
    """The column whose name marks it as a target and whose values allow it.

    Raises:
        UserError: there is none; suggests suitable columns.
    """
    candidates = [name for target in TARGET_NAMES for name in nodes.columns if name.lower() == target]
    reasons = {name: _unsuitable(name, nodes, unused, kind) for name in candidates}
    for name, reason in reasons.items():
        if reason is None:
            return name
    suitable = [
        name for name in nodes.others("graph", "node", "split") if _unsuitable(name, nodes, unused, kind) is None
    ]
    likely = sorted(
        suitable,
        key=lambda name: (name.lower() not in LIKELY_TARGETS, _count_distinct(nodes.columns[name]) > SMALL_VOCABULARY),
    )
    problems = "; ".join(reason for reason in reasons.values() if reason) or "no attribute is called label, y or target"
    numeric = [name for name in candidates if nodes.columns[name].dtype.kind in "iuf" and unused.get(name) != EMPTY]
    if likely:
        hint = f"choose one of {format_list(likely, 8)}: {shell_override('data.target', likely[0])}"
    elif numeric:
        regression = f"{shell_override('data.target', numeric[0])} data.kind=regression"
        hint = f"no other attribute is suitable; if it is a number to predict: {regression}"
    else:
        hint = "no other attribute is suitable: give each node its class, or a number, as 'label'"
    raise UserError(f"{location}{problems}; {hint}")


def _count_distinct(column: np.ndarray) -> int:
    """The number of distinct values, empty cells aside."""
    return len(pd.unique(column[~pd.isna(column)]))


def _unsuitable(name: str, nodes: Table, unused: Mapping[str, str], kind: str | None) -> str | None:
    if name in unused:
        return f"'{name}' is not a target: {unused[name]}"
    return None if kind == "regression" else unsuitable_as_classes(name, nodes.columns[name], "nodes")


def _feature_role(values: np.ndarray) -> str:
    """The role of a feature column: integers most of which occur in a single row measure something, as floats do."""
    return NUMBER if values.dtype.kind in "iu" and tells_apart(len(pd.unique(values)), len(values)) else FEATURE


def roles_of(
    nodes: Table,
    edges: Table,
    graphs: Table | None,
    targets: Sequence[str],
    by_node: bool,
    features: Sequence[str] | None,
) -> dict[str, dict[str, str]]:
    """The role of each column of the tables: ``target``, ``split``, `FEATURE` or `NUMBER`, or why it is not used.

    Raises:
        UserError: a requested feature is in no table.
    """
    ids: dict[str, tuple[str, ...]] = {"nodes": ("graph", "node", "split"), "edges": ("graph", "source", "target")}
    attributes = {*nodes.others(*ids["nodes"]), *edges.others(*ids["edges"])}
    for name in features or ():
        if name not in attributes:
            raise UserError(f"data.features: no column '{name}' of nodes or edges: {nearest(name, attributes)}")
    roles: dict[str, dict[str, str]] = {}
    for rows, table in {"nodes": nodes, "edges": edges}.items():
        unused = unused_columns(table, ids[rows], rows)
        if by_node and rows == "nodes" and any(unused.get(name) == POSITION for name in targets):
            unused = {name: reason for name, reason in unused.items() if reason != POSITION}  # then it is not a drawing
        if features is not None:
            unused = {name: "not in data.features" for name in table.others(*ids[rows]) if name not in features}
        columns = table.others(*ids[rows])
        roles[rows] = {
            name: f"not used, {unused[name]}" if name in unused else _feature_role(table.columns[name])
            for name in columns
        }
    if graphs is not None:
        unused = unused_columns(graphs, ("graph", "split"), "graphs", rare=True)
        columns = graphs.others("graph", "split")
        roles["graphs"] = {name: f"not used, {unused[name]}" if name in unused else "not used" for name in columns}
        if "split" in graphs.columns:
            roles["graphs"]["split"] = "split"
    rows = "nodes" if by_node else "graphs"
    remaining = {name: role for name, role in roles[rows].items() if name not in targets}
    roles[rows] = dict.fromkeys(targets, "target") | remaining  # targets in the order requested, not that of the file
    if "split" in nodes.columns:
        by_nodes = "graph" not in nodes.columns
        roles["nodes"]["split"] = "split" if by_nodes else "not used, the split is that of graphs"
    return roles
