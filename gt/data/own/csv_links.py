"""Links of one graph of one's own: a table of who is linked to whom, and perhaps one of what each node is."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gt.data.large.links import LinkSource
from gt.data.large.negatives import AnyPair
from gt.data.numbers import Numbers
from gt.data.own.assemble import features_of
from gt.data.own.base import file_name
from gt.data.own.columns import describe
from gt.data.own.csv_graphs import direction, files, read_part, text_columns
from gt.data.own.joined import join
from gt.data.own.known import shown_known
from gt.data.own.node_tables import encode
from gt.data.own.roles import roles_of
from gt.data.packed import Arrays, Graphs
from gt.data.source import small
from gt.data.splits import SPLITS, at_random, check_fractions, split_of, without_split
from gt.data.table import Table
from gt.errors import UserError
from gt.schema import Schema, many

VERSION = 1  # raise when the same files would give another store


class CSVLinks(LinkSource):
    """Who is linked to whom: some links are shown, others asked for, each beside a pair that is none.

    ``edges.csv`` has a row a link: ``source``, ``target``, features, and perhaps ``split`` (train, valid or test); an
    edge list will do. ``nodes.csv`` has a row a node: ``node`` and features; without it nodes are those that are
    linked. Without features a node is told by an embedding of its own. A link has no direction: those that are listed
    again, either way round, and those of a node to itself are left out.

    Args:
        path: the folder.
        features: the columns that are features; None takes what is likely to be.
        fractions: shares of train, valid and test, where no column ``split`` says.
        split_seed: what they, and the pairs that are no links, are drawn from.
        standardise: see `gt.data.numbers.Numbers`.
        root: the folder of stores.

    Raises:
        ValueError: fractions that do not add up to 1, or leave no links to learn or to find.
    """

    grows = True

    def __init__(
        self,
        path: str,
        features: Sequence[str] | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        standardise: bool = True,
        root: str = "data",
    ) -> None:
        check_fractions(fractions)
        if not min(fractions):
            raise ValueError(f"fractions must leave some links for each of train, valid and test, not {fractions}")
        self.path, self.name, self.root = path, f"links-{file_name(path)}", Path(root)
        self.features = None if features is None else list(features)
        self.fractions, self.split_seed = [float(share) for share in fractions], split_seed
        self.numbers = Numbers(standardise=standardise)

    def __str__(self) -> str:
        return str(self.path)

    def files(self) -> dict[str, Path]:
        """The files of ``edges`` and, where there are any, of ``nodes``."""
        return {part: path for part, path in files(Path(self.path), ("edges",)).items() if part != "graphs"}

    def check_files(self) -> None:
        if small(self.files().values()):
            self.build()

    def key(self) -> dict[str, Any]:
        digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in self.files().items()}
        options = {"features": self.features, "fractions": self.fractions, "seed": self.split_seed}
        return {"source": "links", "version": VERSION, "files": digests, **options, **self.numbers.facts()}

    def tables(self, known: Schema | None = None) -> tuple[Table, Table, int]:
        """The nodes, the links, each once, and how many rows were left out.

        Args:
            known: of a trained model: what was text in training is text.
        """
        read = {part: read_part(part, path, text_columns(known, part)) for part, path in self.files().items()}
        edges = read["edges"]
        direction(edges)  # whatever it is
        ends = np.stack([edges.columns[end].astype(str) for end in ("source", "target")])
        places, names = pd.factorize(ends.ravel())
        ids = Table(edges.name, {"node": names.astype(object)}, lambda row: edges.name)
        nodes = read.get("nodes", ids)
        if "graph" in nodes.columns:
            raise UserError(f"{nodes.name}: links are those of one graph: leave the column 'graph' out")
        low, high = np.sort(places.reshape(2, -1), axis=0)
        first = np.unique(low * np.int64(len(names)) + high, return_index=True)[1]
        kept = np.sort(first[low[first] != high[first]])
        return nodes, edges.take(kept), len(edges) - len(kept)

    def ids(self) -> pd.Index:
        return pd.Index(self.tables()[0].columns["node"].astype(str))

    def build(self) -> Graphs:
        nodes, edges, left_out = self.tables()
        split = edges.columns.pop("split", None)
        joined = join(nodes, edges, None, undirected=True)
        parts = self._split(edges, split)
        roles = roles_of(joined.nodes, edges, None, (), True, self.features)
        features = features_of(joined.nodes, edges, roles)
        alone = not features["node_names"]  # each has an embedding of its own
        if alone:
            features["node_vocab"] = (len(joined.nodes),)
        target = ("whether there is one",)
        schema = Schema(**features, level="link", kind="binary", target=target, undirected=True)
        shown = replace(joined, edges=edges.take(parts["train"]), ends=joined.ends[:, parts["train"]]).both_ways()
        graphs = shown.graphs_with({}, replace(schema, degree=alone))
        if alone:  # rather than one of its degree
            graphs = replace(graphs, nodes={"x": np.arange(len(joined.nodes))[:, None]})
            graphs = replace(graphs, schema=replace(graphs.schema, degree=False))
        links = joined.ends.T
        splits: Arrays = {name: links[rows] for name, rows in parts.items()} | self._negatives(links, parts, graphs)
        if schema.edge_names:
            late = edges.take(parts["valid"])
            splits["valid_edge_attr"] = encode(late, schema.edge_names, schema.edge_categories)
        notes = {"attributes": roles, "left out": left_out}
        return self.numbers.learn(replace(graphs, splits=splits, notes=notes))

    def build_known(self, known: Schema) -> Graphs:
        nodes, edges, _ = self.tables(known)
        return shown_known(nodes, edges, known)

    def _split(self, edges: Table, words: np.ndarray | None) -> Arrays:
        if words is None:
            parts = at_random(len(edges), self.fractions, self.split_seed)
        else:
            meant = np.array([split_of(word) or "" for word in words])
            if (meant == "").any():
                row = int(np.argmax(meant == ""))
                said = "'split' is empty" if without_split(words)[row] else f"split {words[row]!r}"
                raise UserError(f"{edges.where(row)}: {said}, where a link is for train, valid or test")
            parts = {name: np.flatnonzero(meant == name) for name in SPLITS}
        if empty := [name for name in SPLITS if not len(parts[name])]:
            raise UserError(f"{edges.name}: of {many(len(edges), 'link')} none is for {' and '.join(empty)}")
        return parts

    def _negatives(self, links: np.ndarray, parts: Arrays, graphs: Graphs) -> Arrays:
        """As many pairs that are no links, of any split, as there are links to find."""
        absent, draw = AnyPair(links, int(graphs.node_ptr[-1])), np.random.default_rng([self.split_seed, 1])
        return {f"{name}_negatives": absent.draw(links[parts[name]].T, draw).T for name in SPLITS[1:]}

    def summary(self, graphs: Graphs) -> str:
        out = graphs.notes["left out"]
        why = f"  {many(out, 'row')} left out, which list a link again or lead to the same node" if out else ""
        return "\n".join(filter(None, [describe(self.name, graphs), why]))
