"""The base class of sources whose files are read as tables of nodes, edges and graphs."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gt.data.folds import Folds
from gt.data.numbers import Numbers
from gt.data.own.assemble import Choices, Target, assemble
from gt.data.own.base import Own, file_name
from gt.data.own.joined import names_of
from gt.data.own.known import assemble_known
from gt.data.packed import Graphs
from gt.data.source import small
from gt.data.table import Table
from gt.schema import Kind, Schema, format_list, pluralise

VERSION = 7  # raise when the same files would give another store


class OwnTables(Own):
    """Graphs from tables; without a table of graphs, a single graph with targets at its nodes.

    Args:
        path: path of the files.
        target: the column or columns to predict; None uses all columns of the graphs that have no other meaning, else
            ``label`` (or ``y``, or ``target``) of the nodes, see `gt.data.own.roles.target_columns`.
        kind: kind of the targets; None infers it, see `gt.data.own.columns.infer_targets`.
        undirected: add the reverse of each edge; None follows the files, and is False if they do not say.
        fractions: shares of train, valid and test, if there is no column ``split``.
        split_seed: seed of a random split.
        folds, fold: k-fold cross-validation, see `gt.data.folds.Folds`.
        features: the feature columns of nodes and edges; None infers them.
        normalise, log, standardise: how real-valued targets and features are scaled, see `gt.data.numbers.Numbers`.
        root: the folder that holds the store.

    Attributes:
        prefix: prefix of the store's name.

    Raises:
        UserError: on ``open``, gives the file and what is wrong with it.
    """

    prefix: ClassVar[str]
    identifies = True

    def __init__(
        self,
        path: str,
        target: Target = None,
        kind: Kind | None = None,
        undirected: bool | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        features: Sequence[str] | None = None,
        normalise: bool = True,
        log: bool = False,
        standardise: bool = True,
        root: str = "data",
    ) -> None:
        self.path, self.name, self.root = path, f"{self.prefix}-{file_name(path)}", Path(root)
        self.numbers, self.folds = Numbers(normalise, log, standardise), Folds(folds, fold, split_seed)
        self.choices = Choices(
            target, kind, undirected, self.folds.fractions(fractions), split_seed, features, self.numbers
        )

    def __str__(self) -> str:
        return str(self.path)

    def check_files(self) -> None:
        if small(self.files().values()):
            self.build()

    @abstractmethod
    def files(self) -> dict[str, Path]:
        """The files, by their names in the store's key.

        Raises:
            UserError: there is no readable file, or one is missing.
        """

    @abstractmethod
    def tables(self, model_schema: Schema | None = None) -> tuple[Table, Table, Table | None, Choices]:
        """The tables of nodes, edges and graphs, and the choices, completed by the direction of edges in the files.

        Args:
            model_schema: schema of a trained model: columns that were text in training are read as text, and a single
                graph may be one of many.

        Raises:
            UserError: a file cannot be read.
        """

    def key(self) -> dict[str, Any]:
        digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in self.files().items()}
        return {"source": self.prefix, "version": VERSION, "files": digests, **self.choices.facts()}

    def build(self) -> Graphs:
        return assemble(*self.tables())

    def summary(self, graphs: Graphs) -> str:
        return "\n".join([super().summary(graphs), *self._left_out(graphs)])

    def _left_out(self, graphs: Graphs) -> list[str]:
        """A line each on duplicate edges, and on samples that are in no split because they lack a split or a target."""
        schema, lines = graphs.schema, []
        if count := graphs.notes.get("edges again", 0):
            directions = ", in either direction" if schema.undirected else ""
            lines.append(f"  {pluralise(count, 'duplicate edge')} left out{directions}")
        of_nodes = schema.level == "node" and len(graphs) == 1
        samples = int(graphs.node_ptr[-1]) if of_nodes else len(graphs)
        total = f"of {pluralise(samples, 'node' if of_nodes else 'graph')}"
        if (count := graphs.notes["no split"]) and self.folds.folds is None:
            fate = ": visible to other nodes, but neither trained on nor scored" if of_nodes else " and are left out"
            lines.append(f"  {count:,} {total} have no split{fate}")
        if count := graphs.notes.get("unlabelled", 0):
            nodes, no = pluralise(int(graphs.node_ptr[-1]), "node"), "no" if len(schema.target) == 1 else "none of"
            lines.append(
                f"  {count:,} of {nodes} have {no} {format_list(schema.target, 4)}: visible to other nodes, but "
                "neither trained on nor scored"
            )
        if count := graphs.notes["no target"]:
            no = "no" if len(schema.target) == 1 else "none of"
            lines.append(f"  {count:,} {total} have {no} {format_list(schema.target, 4)} and are left out")
        return lines

    def build_known(self, model_schema: Schema) -> Graphs:
        graphs, self.records = assemble_known(*self.tables(model_schema), model_schema)
        return graphs

    def names(self, graphs: Graphs) -> dict[str, np.ndarray]:
        """The ids of graphs or, for node targets, of nodes, by the column names of the files."""
        nodes, _, graph_table, _ = self.tables()
        return names_of(nodes, graph_table, graphs.schema.level)
