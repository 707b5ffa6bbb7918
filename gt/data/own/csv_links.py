"""Link prediction in a single graph of the user's own, from a table of links and, optionally, a table of nodes."""

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
from gt.data.own.known import links_known
from gt.data.own.node_tables import encode
from gt.data.own.roles import roles_of
from gt.data.packed import Arrays, Graphs
from gt.data.source import small
from gt.data.splits import SPLITS, at_random, check_fractions, split_of, without_split
from gt.data.table import Table
from gt.errors import UserError
from gt.schema import Schema, pluralise

VERSION = 1  # raise when the same files would give another store


class CSVLinks(LinkSource):
    """Links of a single graph: some are given as edges, others are to be predicted, each with a negative pair.

    ``edges.csv`` has a row per link: ``source``, ``target``, features, and optionally ``split`` (train, valid or test);
    it may be an edge list. ``nodes.csv`` has a row per node: ``node`` and features; without it the nodes are the ends
    of links. Nodes without features get a learned embedding each. Links are undirected; duplicates, in either
    direction, and self-loops are left out.

    Args:
        path: the folder.
        features: the feature columns; None infers them.
        fractions: shares of train, valid and test, if there is no column ``split``.
        split_seed: seed of the split and of the negative pairs.
        standardise: see `gt.data.numbers.Numbers`.
        root: the folder of stores.

    Raises:
        ValueError: fractions do not add up to 1, or leave a split without links.
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
        """The files of ``edges`` and, if there is one, of ``nodes``."""
        return {part: path for part, path in files(Path(self.path), ("edges",)).items() if part != "graphs"}

    def check_files(self) -> None:
        if small(self.files().values()):
            self.build()

    def key(self) -> dict[str, Any]:
        digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in self.files().items()}
        options = {"features": self.features, "fractions": self.fractions, "seed": self.split_seed}
        return {"source": "links", "version": VERSION, "files": digests, **options, **self.numbers.facts()}

    def tables(self, model_schema: Schema | None = None) -> tuple[Table, Table, int]:
        """The nodes, the distinct links, and the number of rows left out.

        Args:
            model_schema: schema of a trained model: columns that were text in training are read as text.
        """
        read = {part: read_part(part, path, text_columns(model_schema, part)) for part, path in self.files().items()}
        edges = read["edges"]
        direction(edges)  # removes the column; links are undirected
        ends = np.stack([edges.columns[end].astype(str) for end in ("source", "target")])
        codes, names = pd.factorize(ends.ravel())
        ids = Table(edges.name, {"node": names.astype(object)}, lambda row: edges.name)
        nodes = read.get("nodes", ids)
        if "graph" in nodes.columns:
            raise UserError(f"{nodes.name}: links must all be in one graph: remove the column 'graph'")
        low, high = np.sort(codes.reshape(2, -1), axis=0)
        first = np.unique(low * np.int64(len(names)) + high, return_index=True)[1]
        keep = np.sort(first[low[first] != high[first]])
        return nodes, edges.take(keep), len(edges) - len(keep)

    def ids(self) -> pd.Index:
        return pd.Index(self.tables()[0].columns["node"].astype(str))

    def build(self) -> Graphs:
        nodes, edges, left_out = self.tables()
        split = edges.columns.pop("split", None)
        joined = join(nodes, edges, None, undirected=True)
        parts = self._split(edges, split)
        roles = roles_of(joined.nodes, edges, None, (), True, self.features)
        features = features_of(joined.nodes, edges, roles)
        featureless = not features["node_names"]  # each node gets a learned embedding
        if featureless:
            features["node_vocab"] = (len(joined.nodes),)
        target = ("whether there is one",)
        schema = Schema(**features, level="link", kind="binary", target=target, undirected=True)
        visible = replace(joined, edges=edges.take(parts["train"]), ends=joined.ends[:, parts["train"]]).both_ways()
        graphs = visible.to_graphs({}, replace(schema, degree=featureless))
        if featureless:  # the node's index replaces its degree
            graphs = replace(graphs, nodes={"x": np.arange(len(joined.nodes))[:, None]})
            graphs = replace(graphs, schema=replace(graphs.schema, degree=False))
        links = joined.ends.T
        splits: Arrays = {name: links[rows] for name, rows in parts.items()} | self._negatives(links, parts, graphs)
        if schema.edge_names:
            edges = edges.take(parts["valid"])
            splits["valid_edge_attr"] = encode(edges, schema.edge_names, schema.edge_categories)
        notes = {"attributes": roles, "left out": left_out}
        return self.numbers.learn(replace(graphs, splits=splits, notes=notes))

    def build_known(self, model_schema: Schema) -> Graphs:
        nodes, edges, _ = self.tables(model_schema)
        return links_known(nodes, edges, model_schema)

    def _split(self, edges: Table, words: np.ndarray | None) -> Arrays:
        if words is None:
            parts = at_random(len(edges), self.fractions, self.split_seed)
        else:
            assigned = np.array([split_of(word) or "" for word in words])
            if (assigned == "").any():
                row = int(np.argmax(assigned == ""))
                problem = "'split' is empty" if without_split(words)[row] else f"split {words[row]!r}"
                raise UserError(f"{edges.location(row)}: {problem}: a link needs train, valid or test")
            parts = {name: np.flatnonzero(assigned == name) for name in SPLITS}
        if empty := [name for name in SPLITS if not len(parts[name])]:
            raise UserError(f"{edges.name}: none of the {pluralise(len(edges), 'link')} is for {' and '.join(empty)}")
        return parts

    def _negatives(self, links: np.ndarray, parts: Arrays, graphs: Graphs) -> Arrays:
        """As many negative pairs, which are links of no split, as there are links to predict."""
        sampler, draw = AnyPair(links, int(graphs.node_ptr[-1])), np.random.default_rng([self.split_seed, 1])
        return {f"{name}_negatives": sampler.draw(links[parts[name]].T, draw).T for name in SPLITS[1:]}

    def summary(self, graphs: Graphs) -> str:
        count = graphs.notes["left out"]
        note = f"  {pluralise(count, 'row')} left out: duplicate links or self-loops" if count else ""
        return "\n".join(filter(None, [describe(self.name, graphs), note]))
