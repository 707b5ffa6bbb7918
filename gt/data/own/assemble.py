"""Tables of nodes, edges and graphs put together: what CSV folders, GraphML and node-link JSON have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from gt.data.numbers import Numbers
from gt.data.own.columns import Answer, answer, degrees, random_split
from gt.data.own.joined import join
from gt.data.own.node_tables import Packed, Table, pack
from gt.data.own.roles import FEATURE, NUMBER, roles_of, target_columns
from gt.data.splits import SPLITS, check_fractions, split_of
from gt.data.store import Arrays, Graphs
from gt.errors import UserError, shell_override
from gt.schema import UNLABELLED, Kind, Schema

Target = str | int | Sequence[str | int] | None


@dataclass(frozen=True)
class Choices:
    """What a user may say of tables: see `gt.data.own.csv_graphs.CSVGraphs`."""

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
        """JSON-able: what a store depends on."""
        features = None if self.features is None else list(self.features)
        plain = {"target": self.targets, "fractions": list(self.fractions), "features": features}
        return {**vars(self), **plain, "numbers": self.numbers.facts()}

    @property
    def targets(self) -> list[str] | None:
        """The columns that are named as targets; None where none is."""
        if self.target is None:
            return None
        return [str(self.target)] if isinstance(self.target, str | int) else [str(name) for name in self.target]


def assemble(nodes: Table, edges: Table, graphs: Table | None, choices: Choices) -> Graphs:
    """Graphs of tables of nodes (graph, node, ...), edges (graph, source, target, ...) and graphs (graph, ...).

    Without a ``graph`` column in the nodes there is one graph, whose target is that of its nodes and whose ``splits``
    hold numbers of nodes. Edges may leave their ``graph`` out where no node id occurs in two graphs. Graphs are in the
    order of their table, else of the nodes; nodes in the order of their rows.

    Raises:
        UserError: one line with file and line for what is wrong: as `join`, a graph without nodes, a target that is no
            number, an empty split.
    """
    joined = join(nodes, edges, graphs, choices.undirected)
    nodes = joined.nodes
    sizes = np.bincount(joined.owner, minlength=len(joined.keys))
    if graphs is not None and (sizes == 0).any():
        row = int(np.argmin(sizes))
        raise UserError(f"{graphs.where(row)}: graph {joined.keys[row]!r} has no node in {nodes.name}")
    kind = choices.numbers.kind(choices.kind)
    names, by_node = target_columns(nodes, graphs, choices.targets, kind)
    roles = roles_of(nodes, edges, graphs, names, by_node, choices.features)
    if choices.undirected:
        joined = joined.both_ways()

    table = nodes if by_node or graphs is None else graphs
    found = _answer(table, names, kind, optional=by_node)
    choices.numbers.check(found.kind, found.y, table.where)
    x, attr = _features(nodes, roles["nodes"]), _features(joined.edges, roles["edges"])
    if by_node and "graph" in nodes.columns:
        splits = _splits(graphs, _any_labelled(found, joined.owner), choices, f"the graphs of {nodes.name}")
    else:
        splits = _splits(table, found, choices, table.name)
    for one, columns in ((x, roles["nodes"]), (attr, roles["edges"])):
        columns |= {name: "categories" if name in one.values else "numbers" for name in one.names}
    notes: dict[str, Any] = {"node columns": x.values, "edge columns": attr.values, "attributes": roles}
    if not x.names:
        x.features, notes["degree"] = degrees(joined.ends[1], len(nodes)), True
    schema = Schema(
        node_vocab=x.features.vocab,
        node_floats=x.features.floats,
        edge_vocab=attr.features.vocab,
        edge_floats=attr.features.floats,
        level="node" if by_node else "graph",
        kind=found.kind,
        outputs=found.outputs,
        names=found.names,
        target=tuple(names),
        node_names=tuple(x.names),
        node_categories=x.categories,
        edge_names=tuple(attr.names),
        edge_categories=attr.categories,
        degree=not x.names,
        undirected=bool(choices.undirected),
    )
    packed = joined.graphs_with(x.features.values, attr.features.values if attr.names else None, {"y": found.y}, schema)
    return choices.numbers.learn(replace(packed, splits=splits, notes=notes))


def _features(table: Table, roles: Mapping[str, str]) -> Packed:
    names = [name for name, role in roles.items() if role in (FEATURE, NUMBER)]
    return pack(table, names, numbers=[name for name in names if roles[name] == NUMBER])


def _answer(table: Table, names: Sequence[str], kind: Kind | None, optional: bool) -> Answer:
    """Targets; an empty cell is no label where there are other targets, or other nodes, that have one.

    Raises:
        UserError: a target that is empty and must not be, or is not finite.
    """
    columns = [table.columns[name] for name in names]
    if len(columns) > 1:
        for name, values in zip(names, columns, strict=True):
            if values.dtype.kind == "O":
                raise UserError(
                    f"{table.name}: '{name}' is text, which can be a target on its own only: choose it alone, "
                    f"{shell_override('data.target', name)}, or others"
                )
        return answer(np.stack([values.astype(np.float64) for values in columns], axis=1), table.where, kind)
    [only] = columns
    empty = pd.isna(only)
    if empty.any() and not optional:
        raise UserError(f"{table.where(int(np.argmax(empty)))}: '{names[0]}' is empty, and it is the target")
    known = only[~empty]
    if only.dtype.kind == "O":
        found = answer(known, table.where, kind)
        y = np.full(len(only), UNLABELLED, dtype=np.int64)
        y[~empty] = found.y
        return replace(found, y=y)
    if empty.any() and kind is None and (known == np.floor(known)).all():
        kind = "multiclass"  # whole numbers with gaps are read as reals
    return answer(only, table.where, kind)


def _any_labelled(found: Answer, owner: np.ndarray) -> Answer:
    """What a split of graphs goes by where nodes have the targets: whether any has one."""
    labelled = np.bincount(owner, found.labelled) > 0
    return Answer(np.where(labelled, 0, UNLABELLED), "multiclass", 1)


def _splits(table: Table | None, found: Answer, choices: Choices, name: str) -> Arrays:
    """Rows with a target by split: as the column ``split`` says, else at random."""
    if table is None or "split" not in table.columns:
        return random_split(found, choices.fractions, choices.split_seed, name)
    words = table.columns["split"]
    parts = np.array([split_of(word) or "" for word in words])
    if (parts == "").any():
        row = int(np.argmax(parts == ""))
        raise UserError(f"{table.where(row)}: split {words[row]!r} is none of train, valid and test")
    splits = {split: np.flatnonzero((parts == split) & found.labelled) for split in SPLITS}
    for split in SPLITS[:2]:
        if not len(splits[split]):
            raise UserError(f"{table.name}: column 'split' puts nothing with a target into '{split}'")
    return {split: rows for split, rows in splits.items() if len(rows)}
