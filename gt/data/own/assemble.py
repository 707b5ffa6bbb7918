"""Tables of nodes, edges and graphs put together: what CSV folders, GraphML and node-link JSON have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from gt.data.numbers import Numbers
from gt.data.own.columns import Answer, answer, most_neighbours, random_split
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
    """What a user may say of tables: see `gt.data.own.tables.OwnTables`."""

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
        """The columns that are named as targets, each once; None where none is."""
        if self.target is None:
            return None
        named = [self.target] if isinstance(self.target, str | int) else self.target
        return list(dict.fromkeys(map(str, named)))


def assemble(nodes: Table, edges: Table, graphs: Table | None, choices: Choices) -> Graphs:
    """Graphs of tables of nodes (graph, node, ...), edges (graph, source, target, ...) and graphs (graph, ...).

    Without a ``graph`` column in the nodes there is one graph, whose target is that of its nodes and whose ``splits``
    hold numbers of nodes. Edges may leave their ``graph`` out where no node id occurs in two graphs. Graphs are in the
    order of their table, else of the nodes; nodes in the order of their rows.

    Graphs without a target, or of no split, stay in the store and are in none of its splits; notes count them.

    Raises:
        UserError: one line with file and line for what is wrong: as `join`, a graph without nodes, a target that is no
            number, a split of which there is nothing.
    """
    joined = join(nodes, edges, graphs, choices.undirected)
    nodes, edges = joined.nodes, joined.edges
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
    targets = _answer(table, names, kind)
    choices.numbers.check(targets.kind, targets.y, table.where)
    features = features_of(nodes, joined.edges, roles)
    of_graphs = not by_node or "graph" in nodes.columns
    if by_node and of_graphs:
        targeted, among, what = _any_labelled(targets, joined.owner), graphs, f"the graphs of {nodes.name}"
    else:
        targeted, among, what = targets, table, table.name
    splits = _splits(among, targeted, choices, what)
    degree = not features["node_names"]
    if degree:
        features["node_vocab"] = (most_neighbours(joined.ends[1]) + 1,)
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
    notes |= {"edges again": joined.again, "unlabelled": unlabelled, **_outside(among, targeted, of_graphs)}
    packed = joined.graphs_with({"y": targets.y}, schema)
    return choices.numbers.learn(replace(packed, splits=splits, notes=notes))


def features_of(nodes: Table, edges: Table, roles: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What a schema says of the features of nodes and edges; in ``roles`` each is now called what it became."""
    fields: dict[str, Any] = {}
    for kind, table in {"node": nodes, "edge": edges}.items():
        names, categories = _learned(table, roles[f"{kind}s"])
        vocab, floats = widths(categories)
        described = {"names": names, "categories": categories, "vocab": vocab, "floats": floats}
        fields |= {f"{kind}_{what}": value for what, value in described.items()}
    return fields


def _learned(table: Table, roles: dict[str, str]) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """The columns of features and the values of their categories; in ``roles`` each is now called what it became."""
    names = tuple(name for name, role in roles.items() if role in (FEATURE, NUMBER))
    categories = learn_categories(table, names, [name for name in names if roles[name] == NUMBER])
    roles |= {name: "categories" if known else "numbers" for name, known in zip(names, categories, strict=True)}
    return names, categories


def _answer(table: Table, names: Sequence[str], kind: Kind | None) -> Answer:
    """Targets; an empty cell is no label.

    Raises:
        UserError: a target that is not finite, or none at all.
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
    known = only[~empty]
    if only.dtype.kind == "O":
        words = answer(known, table.where, kind)
        y = np.full(len(only), UNLABELLED, dtype=np.int64)
        y[~empty] = words.y
        return replace(words, y=y)
    if empty.any() and kind is None and (known == np.floor(known)).all():
        kind = "multiclass"  # whole numbers with gaps are read as reals
    return answer(only, table.where, kind)


def _any_labelled(targets: Answer, owner: np.ndarray) -> Answer:
    """What a split of graphs goes by where nodes have the targets: whether any has one."""
    labelled = np.bincount(owner, targets.labelled) > 0
    return Answer(np.where(labelled, 0, UNLABELLED), "multiclass", 1)


def _splits(table: Table | None, targets: Answer, choices: Choices, name: str) -> Arrays:
    """Rows with a target by split: as the column ``split`` says, where it says anything, else at random."""
    if table is None or "split" not in table.columns:
        return random_split(targets, choices.fractions, choices.split_seed, name)
    words = table.columns["split"]
    parts = np.array([split_of(word) or "" for word in words])
    strange = (parts == "") & ~without_split(words)
    if strange.any():
        row = int(np.argmax(strange))
        raise UserError(f"{table.where(row)}: split {words[row]!r} is none of train, valid and test")
    if (parts == "").all():
        raise UserError(
            f"{table.name}: column 'split' is empty in all rows: fill it in, or leave it out for a split at random"
        )
    splits = {split: np.flatnonzero((parts == split) & targets.labelled) for split in SPLITS}
    for split in SPLITS[:2]:
        if not len(splits[split]):
            raise UserError(f"{table.name}: column 'split' puts nothing with a target into '{split}'")
    return {split: rows for split, rows in splits.items() if len(rows)}


def _outside(table: Table | None, targets: Answer, of_graphs: bool) -> dict[str, int]:
    """How many samples are in no split because none is said, and how many graphs because they have no target."""
    unsaid = 0 if table is None else int(without_split(table.columns.get("split", np.empty(0))).sum())
    return {"no split": unsaid, "no target": int((~targets.labelled).sum()) if of_graphs else 0}
