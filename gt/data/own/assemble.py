"""Tables of nodes, edges and graphs put together: what CSV folders, GraphML and node-link JSON have in common."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from gt.data.numbers import Numbers
from gt.data.own.found import UNLABELLED, Answer, answer, degrees, random_split
from gt.data.own.node_tables import Table, column, pack
from gt.data.own.roles import FEATURE, roles_of, target_columns
from gt.data.splits import SPLITS, split_of
from gt.data.store import Arrays, Graphs, pointers
from gt.errors import UserError
from gt.schema import Kind, Level, Schema

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


def index(ids: np.ndarray, table: Table, what: str, groups: np.ndarray | None = None) -> pd.Index:
    """The ids of a table as something to look up; with ``groups`` an id may occur once in each.

    Raises:
        UserError: an id occurs twice.
    """
    found = pd.Index(ids) if groups is None else pd.MultiIndex.from_arrays([groups, ids])
    twice = found.duplicated()
    if twice.any():
        row = int(np.argmax(twice))
        first = int(np.argmax((ids == ids[row]) & (True if groups is None else groups == groups[row])))
        raise UserError(f"{table.where(row)}: {what} {ids[row]!r} is there already, see {table.where(first)}")
    return found


def unknown(ids: np.ndarray, codes: np.ndarray, table: Table, said: Callable[[Hashable], str]) -> None:
    """Name the first id that was not found."""
    if (codes < 0).any():
        row = int(np.argmax(codes < 0))
        raise UserError(f"{table.where(row)}: {said(ids[row])}")


def assemble(nodes: Table, edges: Table, graphs: Table | None, choices: Choices) -> Graphs:
    """Graphs of tables of nodes (graph, node, ...), edges (graph, source, target, ...) and graphs (graph, ...).

    Without a ``graph`` column in the nodes there is one graph, whose target is that of its nodes and whose ``splits``
    hold numbers of nodes. Edges may leave their ``graph`` out where no node id occurs in two graphs. Graphs are in the
    order of their table, else of the nodes; nodes in the order of their rows.

    Raises:
        UserError: one line with file and line for what is wrong: a column that is missing, an id that is unknown or
            occurs twice, an edge between graphs, a graph without nodes, a target that is no number, an empty split.
    """
    if not len(nodes):
        raise UserError(f"{nodes.name} has no rows: there are no nodes")
    owner, keys = _owners(nodes, graphs)
    order = np.argsort(owner, kind="stable")
    nodes, owner = nodes.take(order), owner[order]
    sizes = np.bincount(owner, minlength=len(keys))
    if graphs is not None and (sizes == 0).any():
        row = int(np.argmin(sizes))
        raise UserError(f"{graphs.where(row)}: graph {keys[row]!r} has no node in {nodes.name}")
    ends = _ends(nodes, edges, owner, keys)
    _once(edges, ends, choices.undirected)
    kind = choices.numbers.kind(choices.kind)
    names, by_node = target_columns(nodes, graphs, choices.targets, kind)
    roles = roles_of(nodes, edges, graphs, names, by_node, choices.features)
    if choices.undirected:
        turned = np.flatnonzero(ends[0] != ends[1])
        edges = edges.take(np.concatenate([np.arange(len(edges)), turned]))
        ends = np.concatenate([ends, ends[::-1, turned]], axis=1)

    table = nodes if by_node or graphs is None else graphs
    found = _answer(table, names, kind, optional=by_node)
    choices.numbers.check(found.kind, found.y, table.where)
    x = pack(nodes, [name for name, role in roles["nodes"].items() if role == FEATURE])
    attr = pack(edges, [name for name, role in roles["edges"].items() if role == FEATURE])
    if by_node and "graph" in nodes.columns:
        splits = _splits(graphs, _any_labelled(found, owner), choices, f"the graphs of {nodes.name}")
    else:
        splits = _splits(table, found, choices, table.name)
    for packed, columns in ((x, roles["nodes"]), (attr, roles["edges"])):
        columns |= {name: "categories" if name in packed.values else "numbers" for name in packed.names}
    notes: dict[str, Any] = {"node columns": x.values, "edge columns": attr.values, "attributes": roles}
    if not x.names:
        x.features, notes["degree"] = degrees(ends[1], len(nodes)), True
    by_graph = np.argsort(owner[ends[0]], kind="stable")
    starts = pointers(sizes)
    whole = Graphs(
        node_ptr=starts,
        edge_ptr=pointers(np.bincount(owner[ends[0]], minlength=len(keys))),
        edge_index=(ends - starts[owner[ends[0]]])[:, by_graph],
        nodes={"x": x.features.values} | ({"y": found.y} if by_node else {}),
        edges={"edge_attr": attr.features.values[by_graph]} if attr.names else {},
        graphs={} if by_node else {"y": found.y},
        splits=splits,
        notes=notes,
        schema=Schema(
            node_vocab=x.features.vocab,
            node_floats=x.features.floats,
            edge_vocab=attr.features.vocab,
            edge_floats=attr.features.floats,
            level="node" if by_node else "graph",
            kind=found.kind,
            outputs=found.outputs,
            names=found.names,
            target=tuple(names),
            max_nodes=int(sizes.max()),
        ),
    ).sort_edges()
    return choices.numbers.learn(whole)


def _owners(nodes: Table, graphs: Table | None) -> tuple[np.ndarray, pd.Index]:
    """The number of each node's graph, and the ids of graphs by number."""
    if graphs is None and "graph" not in nodes.columns:
        return np.zeros(len(nodes), dtype=np.int64), pd.Index([""])
    ids = column(nodes, "graph")
    if graphs is None:
        codes, found = pd.factorize(ids)
        return codes, pd.Index(found)
    keys, name = index(column(graphs, "graph"), graphs, "graph"), graphs.name
    codes = keys.get_indexer(pd.Index(ids))
    unknown(ids, codes, nodes, lambda graph: f"there is no graph {graph!r} in {name}")
    return codes, keys


def names_of(nodes: Table, graphs: Table | None, level: Level) -> dict[str, np.ndarray]:
    """What the tables call each graph, or each node and its graph, in the order in which `assemble` puts them."""
    owner, keys = _owners(nodes, graphs)
    if level == "graph":
        return {"graph": keys.to_numpy()}
    order = np.argsort(owner, kind="stable")
    of_node = {"node": column(nodes, "node")[order]}
    return {"graph": keys.to_numpy()[owner[order]], **of_node} if "graph" in nodes.columns else of_node


def _ends(nodes: Table, edges: Table, owner: np.ndarray, keys: pd.Index) -> np.ndarray:
    """(2, E) the rows of the nodes that each edge joins, source and target."""
    node_ids = column(nodes, "node")
    many = "graph" in nodes.columns
    known = index(node_ids, nodes, "node", owner if many else None)
    named = many and "graph" in edges.columns
    graph = np.empty(0, dtype=np.int64)
    if named:
        graph = keys.get_indexer(pd.Index(edges.columns["graph"]))
        unknown(edges.columns["graph"], graph, edges, lambda name: f"there is no graph {name!r}")
    elif many:
        again = pd.Index(node_ids).duplicated()
        if again.any():
            row = int(np.argmax(again))
            raise UserError(f"{edges.name} has no column 'graph', and node {node_ids[row]!r} is in two graphs")
        known = pd.Index(node_ids)
    found = []
    for end in ("source", "target"):
        ids = column(edges, end)
        rows = known.get_indexer(pd.MultiIndex.from_arrays([graph, ids]) if named else pd.Index(ids))
        unknown(ids, rows, edges, lambda name: _stray(name, node_ids, nodes, named))
        found.append(rows)
    across = owner[found[0]] != owner[found[1]]
    if across.any():
        row = int(np.argmax(across))
        a, b = (keys[owner[rows[row]]] for rows in found)
        raise UserError(f"{edges.where(row)}: an edge from graph {a!r} to graph {b!r}: edges cannot cross graphs")
    return np.stack(found)


def _stray(name: Hashable, node_ids: np.ndarray, nodes: Table, named: bool) -> str:
    if named and (node_ids == name).any():
        return f"node {name!r} is in another graph, see {nodes.where(int(np.argmax(node_ids == name)))}"
    return f"there is no node {name!r} in {nodes.name}"


def _once(edges: Table, ends: np.ndarray, undirected: bool | None) -> None:
    """No edge is listed twice; undirected, in neither direction."""
    pair = np.sort(ends, axis=0) if undirected else ends
    twice = pd.MultiIndex.from_arrays(list(pair)).duplicated()
    if twice.any():
        row = int(np.argmax(twice))
        first = int(np.argmax((pair == pair[:, row : row + 1]).all(0)))
        shown = " -> ".join(repr(edges.columns[end][row]) for end in ("source", "target"))
        hint = ": undirected, each is listed once" if undirected else ""
        raise UserError(f"{edges.where(row)}: edge {shown} is there already, see {edges.where(first)}{hint}")


def _answer(table: Table, names: Sequence[str], kind: Kind | None, optional: bool) -> Answer:
    """Targets; an empty cell is no label where there are other targets, or other nodes, that have one.

    Raises:
        UserError: a target that is empty and must not be, or is not finite.
    """
    columns = [table.columns[name] for name in names]
    if len(columns) > 1:
        for name, values in zip(names, columns, strict=True):
            if values.dtype.kind == "O":
                raise UserError(f"{table.name}: '{name}' is text, which can be a target on its own only: data.target=")
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
