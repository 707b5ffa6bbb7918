"""Assembles tables of nodes, edges and graphs, as read from CSV folders, GraphML or node-link JSON, into graphs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from gt.data.numbers import Numbers
from gt.data.own.columns import Targets, infer_targets, max_in_degree, random_split
from gt.data.own.joined import join
from gt.data.own.node_tables import learn_categories, widths
from gt.data.own.roles import FEATURE, NUMBER, roles_of, target_columns
from gt.data.packed import Arrays, Graphs
from gt.data.splits import SPLITS, check_fractions, split_of, without_split
from gt.data.table import Table
from gt.errors import UserError, shell_override
from gt.schema import UNLABELLED, Kind, Schema

Target = str | int | Sequence[str | int] | None


@dataclass(frozen=True)
class Choices:
    """The user's options for reading tables, see `gt.data.own.tables.OwnTables`."""

    target: Target = None
    kind: Kind | None = None
    undirected: bool | None = None
    fractions: Sequence[float] = (0.8, 0.1, 0.1)
    split_seed: int = 0
    features: Sequence[str] | None = None
    numbers: Numbers = field(default_factory=Numbers)

    def __post_init__(self) -> None:
        check_fractions(self.fractions)

    def facts(self) -> dict[str, Any]:
        """The JSON-serialisable values that a store depends on."""
        features = None if self.features is None else list(self.features)
        plain = {"target": self.targets, "fractions": list(self.fractions), "features": features}
        return {**vars(self), **plain, "numbers": self.numbers.facts()}

    @property
    def targets(self) -> list[str] | None:
        """The distinct columns named as targets; None if none are."""
        if self.target is None:
            return None
        named = [self.target] if isinstance(self.target, str | int) else self.target
        return list(dict.fromkeys(map(str, named)))


def assemble(nodes: Table, edges: Table, graphs: Table | None, choices: Choices) -> Graphs:
    """Assemble graphs from tables: nodes (graph, node, ...), edges (graph, source, target, ...), graphs (graph, ...).

    Without a ``graph`` column, all nodes form a single graph, which has targets at its nodes and whose ``splits`` hold
    node numbers. Edges may omit ``graph`` if no node id occurs in two graphs. Graphs are in the order of their table,
    or else of the nodes, and nodes in the order of their rows.

    Graphs without a target or split stay in the store but are in none of its splits; the notes count them.

    Raises:
        UserError: gives file and line: as `join`, a graph without nodes, a target that is not finite, an empty split.
    """
    joined = join(nodes, edges, graphs, choices.undirected)
    nodes, edges = joined.nodes, joined.edges
    sizes = np.bincount(joined.owner, minlength=len(joined.keys))
    if graphs is not None and (sizes == 0).any():
        row = int(np.argmin(sizes))
        raise UserError(f"{graphs.location(row)}: graph {joined.keys[row]!r} has no node in {nodes.name}")
    kind = choices.numbers.kind(choices.kind)
    names, by_node = target_columns(nodes, graphs, choices.targets, kind)
    roles = roles_of(nodes, edges, graphs, names, by_node, choices.features)
    if choices.undirected:
        joined = joined.both_ways()

    table = nodes if by_node or graphs is None else graphs
    targets = _targets(table, names, kind)
    choices.numbers.check(targets.kind, targets.y, table.location)
    features = features_of(nodes, joined.edges, roles)
    of_graphs = not by_node or "graph" in nodes.columns
    if by_node and of_graphs:
        graph_targets, sample_table, label = _any_labelled(targets, joined.owner), graphs, f"the graphs of {nodes.name}"
    else:
        graph_targets, sample_table, label = targets, table, table.name
    splits = _split_rows(sample_table, graph_targets, choices, label)
    degree = not features["node_names"]
    if degree:
        features["node_vocab"] = (max_in_degree(joined.ends[1]) + 1,)
    schema = Schema(
        **features,
        level="node" if by_node else "graph",
        kind=targets.kind,
        outputs=targets.outputs,
        names=targets.names if targets.kind == "multiclass" else tuple(names),
        target=tuple(names),
        degree=degree,
        undirected=bool(choices.undirected),
    )
    notes: dict[str, Any] = {"attributes": roles} | ({"degree": True} if degree else {})
    unlabelled = int((~targets.labelled).sum()) if by_node else 0
    notes |= {
        "edges again": joined.duplicates,
        "unlabelled": unlabelled,
        **_excluded(sample_table, graph_targets, of_graphs),
    }
    packed = joined.to_graphs({"y": targets.y}, schema)
    return choices.numbers.learn(replace(packed, splits=splits, notes=notes))


def features_of(nodes: Table, edges: Table, roles: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The schema fields of node and edge features; replaces each feature's role in ``roles`` by its kind."""
    fields: dict[str, Any] = {}
    for kind, table in {"node": nodes, "edge": edges}.items():
        names, categories = _feature_columns(table, roles[f"{kind}s"])
        vocab, floats = widths(categories)
        features = {"names": names, "categories": categories, "vocab": vocab, "floats": floats}
        fields |= {f"{kind}_{key}": value for key, value in features.items()}
    return fields


def _feature_columns(table: Table, roles: dict[str, str]) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """The feature columns and the values of their categories; replaces each feature's role in ``roles`` by its kind."""
    names = tuple(name for name, role in roles.items() if role in (FEATURE, NUMBER))
    categories = learn_categories(table, names, [name for name in names if roles[name] == NUMBER])
    roles |= {name: "categories" if values else "numbers" for name, values in zip(names, categories, strict=True)}
    return names, categories


def _targets(table: Table, names: Sequence[str], kind: Kind | None) -> Targets:
    """Targets from columns; an empty cell means no label.

    Raises:
        UserError: a target is not finite, or there are none.
    """
    columns = [table.columns[name] for name in names]
    if len(columns) > 1:
        for name, values in zip(names, columns, strict=True):
            if values.dtype.kind == "O":
                raise UserError(
                    f"{table.name}: '{name}' is text, which can only be the sole target: choose it alone, "
                    f"{shell_override('data.target', name)}, or leave it out"
                )
        return infer_targets(np.stack([values.astype(np.float64) for values in columns], axis=1), table.location, kind)
    [column] = columns
    missing = pd.isna(column)
    present = column[~missing]
    if column.dtype.kind == "O":
        classes = infer_targets(present, table.location, kind)
        y = np.full(len(column), UNLABELLED, dtype=np.int64)
        y[~missing] = classes.y
        return replace(classes, y=y)
    if missing.any() and kind is None and (present == np.floor(present)).all():
        kind = "multiclass"  # integers with gaps are read as floats
    return infer_targets(column, table.location, kind)


def _any_labelled(targets: Targets, owner: np.ndarray) -> Targets:
    """Graph-level stand-ins for node targets, used to split graphs: labelled if any node of the graph is."""
    labelled = np.bincount(owner, targets.labelled) > 0
    return Targets(np.where(labelled, 0, UNLABELLED), "multiclass", 1)


def _split_rows(table: Table | None, targets: Targets, choices: Choices, name: str) -> Arrays:
    """The labelled rows of each split: from the column ``split`` if there is one, else at random."""
    if table is None or "split" not in table.columns:
        return random_split(targets, choices.fractions, choices.split_seed, name)
    words = table.columns["split"]
    parts = np.array([split_of(word) or "" for word in words])
    invalid = (parts == "") & ~without_split(words)
    if invalid.any():
        row = int(np.argmax(invalid))
        raise UserError(f"{table.location(row)}: split {words[row]!r} is not train, valid or test")
    if (parts == "").all():
        raise UserError(
            f"{table.name}: column 'split' is empty in all rows: fill it in, or remove it for a random split"
        )
    splits = {split: np.flatnonzero((parts == split) & targets.labelled) for split in SPLITS}
    for split in SPLITS[:2]:
        if not len(splits[split]):
            raise UserError(f"{table.name}: column 'split' assigns no labelled row to '{split}'")
    return {split: rows for split, rows in splits.items() if len(rows)}


def _excluded(table: Table | None, targets: Targets, of_graphs: bool) -> dict[str, int]:
    """How many samples are in no split because their cell is empty, and how many graphs because they have no target."""
    without = 0 if table is None else int(without_split(table.columns.get("split", np.empty(0))).sum())
    return {"no split": without, "no target": int((~targets.labelled).sum()) if of_graphs else 0}
