"""What each attribute of somebody's own graphs is for: a target, a feature, or none, as ids and drawings are."""

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from gt.data.table import Table
from gt.data.targets import FEW, tells_apart
from gt.errors import UserError, nearest, shell_override
from gt.schema import several

TARGETS = ("label", "y", "target")  # a column that is the target where none is named, whatever the case of its letters
LIKELY = (*TARGETS, "class", "category")  # how columns that somebody may mean by it are called
IDS = {"id", "ids", "index", "idx", "key", "uid", "uuid", "guid", "name"}  # how names of columns of ids end
AXES = ("x", "y", "z")
# what D3 and Gephi write beside the place of a node: how it moves, where it is held, its colour and its size
DRAWN = ("vx", "vy", "vz", "fx", "fy", "fz", "r", "g", "b", "alpha", "size")
FEATURE, NUMBER = "feature", "numbers"  # of the first, it is still to be seen whether they are categories
DRAWINGS = ("graphics", "labelgraphics", "viz")  # attributes of GML and GEXF that hold how a node is drawn
EMPTY = "empty"
PLACE = "a place in a drawing"

Why = dict[str, str]  # for the name of a column, why it is not used


def drawing(table: Table) -> list[str]:
    """The columns that say how nodes are drawn: ``x`` and ``y``, where both are real numbers, and what is beside them.

    Of ``y`` with few values, each in several rows, a class is more likely than a place.
    """
    lower = {name.lower(): name for name in reversed(table.columns)}
    if not all(axis in lower and _spread(table.columns[lower[axis]]) for axis in AXES[:2]):
        return []
    coloured = {"r", "g", "b"} <= lower.keys()
    beside = [name for name in DRAWN if name[0] in "vf" or coloured]
    return [lower[name] for name in (*AXES, *beside) if name in lower]


def _spread(values: np.ndarray) -> bool:
    """Whether a column holds measures: numbers that are not whole, or too many different ones to be classes."""
    if values.dtype.kind not in "iuf":
        return False
    known = values[~pd.isna(values)]
    distinct = len(pd.unique(known))
    return bool(distinct > 2 and ((known != np.floor(known)).any() or 2 * distinct > len(known)))


def of_no_use(table: Table, ids: Collection[str], rows: str, rare: bool = False) -> Why:
    """The columns of a table that are no features unless somebody asks for them, and why.

    Args:
        ids: columns with a meaning of their own.
        rows: what a row stands for, ``nodes`` or the like.
        rare: a column that most rows lack may be of use, as one of targets is.
    """
    drawn = drawing(table) if rows == "nodes" else []
    why: Why = {}
    for name in table.others(*ids):
        values = table.columns[name]
        known = values[~pd.isna(values)]
        distinct = len(pd.unique(known))
        if not len(known) and len(values):
            why[name] = EMPTY
        elif not rare and 2 * len(known) < len(values):
            why[name] = f"empty for {len(values) - len(known):,} of {len(values):,} {rows}"
        elif name.partition(".")[0].lower() in DRAWINGS:
            why[name] = "of a drawing"
        elif rows == "graphs" and distinct == 1 < len(values) and values.dtype.kind == "O":
            why[name] = "the same for all"
        elif name in drawn:
            why[name] = PLACE if name.lower() in AXES else "of a drawing"
        elif values.dtype.kind == "O" and tells_apart(distinct, len(known)):
            why[name] = f"{distinct:,} different texts for {len(known):,} {rows}"
        elif len(values) > 2 and values.dtype.kind in "Oiu" and _numbers_rows(name, values, table.columns.get("graph")):
            why[name] = f"an id of {rows}"
    return why


def _numbers_rows(name: str, values: np.ndarray, graph: np.ndarray | None) -> bool:
    """Whether a column tells rows (of each graph) apart and is called like ids, or counts rows from 0 or 1."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    if words and words[-1] in IDS:
        keys = pd.Index(values) if graph is None else pd.MultiIndex.from_arrays([graph, values])
        return bool(keys.is_unique)
    counted = values.dtype.kind in "iu" and values[0] in (0, 1) and bool((np.diff(values) == 1).all())
    return counted and name.lower() not in TARGETS


def no_class(name: str, values: np.ndarray, rows: str) -> str | None:
    """Why a column (rows,) cannot be learned as classes: every row, or nearly so, would have one of its own."""
    known = values[~pd.isna(values)]
    distinct = len(pd.unique(known))
    if values.dtype.kind == "f" or not (tells_apart(distinct, len(known)) or distinct == len(known) > 2):
        return None
    return f"'{name}' has {distinct:,} different values for {len(known):,} {rows} and is no class"


def target_columns(
    nodes: Table, graphs: Table | None, wanted: Sequence[str] | None, kind: str | None
) -> tuple[list[str], bool]:
    """The columns to predict, and whether they are those of nodes.

    Args:
        wanted: those that are named; None takes all of the graphs' own that could be, else the first of `TARGETS` at
            the nodes that could.
        kind: what targets are said to be.

    Raises:
        UserError: there is none; names the columns that could be.
    """
    of_graphs = [] if graphs is None else graphs.others("graph", "split")
    if wanted is not None:
        of_nodes = nodes.others("graph", "node", "split")
        for known, by_node in ((of_graphs, False), (of_nodes, True)):
            if wanted and set(wanted) <= set(known):
                return list(wanted), by_node
        stray = next((name for name in wanted if name not in {*of_graphs, *of_nodes}), str(wanted))
        raise UserError(f"data.target: no column '{stray}' to predict: {nearest(stray, {*of_graphs, *of_nodes})}")
    about: list[str] = []  # why attributes of graphs are no targets
    if graphs is not None:
        unused = of_no_use(graphs, ("graph", "split"), "graphs", rare=True)
        if usable := [name for name in of_graphs if name not in unused]:
            return usable, False
        for name, why in unused.items():
            about.append(f"'{name}' of graphs is no target: {why}")
    where = nodes.name if graphs is None else f"{graphs.name} and {nodes.name}"
    unused = of_no_use(nodes, ("graph", "node", "split"), "nodes", rare=True)
    return [_target_of_nodes(nodes, unused, f"{where}: {''.join(f'{why}; ' for why in about)}", kind)], True


def _target_of_nodes(nodes: Table, unused: Mapping[str, str], where: str, kind: str | None) -> str:
    """The column that is called like a target and could be one.

    Raises:
        UserError: there is none; names the columns that could be.
    """
    called = [name for known in TARGETS for name in nodes.columns if name.lower() == known]
    why = {name: _unfit(name, nodes, unused, kind) for name in called}
    for name, reason in why.items():
        if reason is None:
            return name
    fit = [name for name in nodes.others("graph", "node", "split") if _unfit(name, nodes, unused, kind) is None]
    likely = sorted(fit, key=lambda name: (name.lower() not in LIKELY, _values(nodes.columns[name]) > FEW))
    said = "; ".join(reason for reason in why.values() if reason) or "no attribute is called label, y or target"
    numbers = [name for name in called if nodes.columns[name].dtype.kind in "iuf" and unused.get(name) != EMPTY]
    if likely:
        hint = f"choose one of {several(likely, 8)}: {shell_override('data.target', likely[0])}"
    elif numbers:
        regression = f"{shell_override('data.target', numbers[0])} data.kind=regression"
        hint = f"no other attribute could be one; if it is a number to predict after all: {regression}"
    else:
        hint = "no other attribute could be one: give each node its class, or a number, as 'label'"
    raise UserError(f"{where}{said}; {hint}")


def _values(column: np.ndarray) -> int:
    """How many different ones there are."""
    return len(pd.unique(column[~pd.isna(column)]))


def _unfit(name: str, nodes: Table, unused: Mapping[str, str], kind: str | None) -> str | None:
    if name in unused:
        return f"'{name}' is no target: {unused[name]}"
    return None if kind == "regression" else no_class(name, nodes.columns[name], "nodes")


def _of_feature(values: np.ndarray) -> str:
    """Whole numbers of which most stand in one row only measure something, as real ones do."""
    return NUMBER if values.dtype.kind in "iu" and tells_apart(len(pd.unique(values)), len(values)) else FEATURE


def roles_of(
    nodes: Table,
    edges: Table,
    graphs: Table | None,
    targets: Sequence[str],
    by_node: bool,
    features: Sequence[str] | None,
) -> dict[str, dict[str, str]]:
    """What each column of the tables is: ``target``, ``split``, `FEATURE` or `NUMBER`, or not used and why.

    Raises:
        UserError: a feature that is asked for is in no table.
    """
    ids: dict[str, tuple[str, ...]] = {"nodes": ("graph", "node", "split"), "edges": ("graph", "source", "target")}
    known = {*nodes.others(*ids["nodes"]), *edges.others(*ids["edges"])}
    for name in features or ():
        if name not in known:
            raise UserError(f"data.features: no column '{name}' of nodes or edges: {nearest(name, known)}")
    roles: dict[str, dict[str, str]] = {}
    for rows, table in {"nodes": nodes, "edges": edges}.items():
        unused = of_no_use(table, ids[rows], rows)
        if by_node and rows == "nodes" and any(unused.get(name) == PLACE for name in targets):
            unused = {name: why for name, why in unused.items() if why != PLACE}  # it is no drawing then
        if features is not None:
            unused = {name: "not in data.features" for name in table.others(*ids[rows]) if name not in features}
        columns = table.others(*ids[rows])
        roles[rows] = {
            name: f"not used, {unused[name]}" if name in unused else _of_feature(table.columns[name])
            for name in columns
        }
    if graphs is not None:
        unused = of_no_use(graphs, ("graph", "split"), "graphs", rare=True)
        columns = graphs.others("graph", "split")
        roles["graphs"] = {name: f"not used, {unused[name]}" if name in unused else "not used" for name in columns}
        if "split" in graphs.columns:
            roles["graphs"]["split"] = "split"
    rows = "nodes" if by_node else "graphs"
    others = {name: role for name, role in roles[rows].items() if name not in targets}
    roles[rows] = dict.fromkeys(targets, "target") | others  # targets as they were asked for, not as the file has them
    if "split" in nodes.columns:
        followed = "graph" not in nodes.columns
        roles["nodes"]["split"] = "split" if followed else "not used, graphs say who is in which"
    return roles
