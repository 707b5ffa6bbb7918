"""Graph-level datasets of the Open Graph Benchmark (Hu et al. 2020), read from OGB's raw CSV files.

OGB's own classes pickle what they read; here the CSV files are read directly, some graphs at a time. What all have in
common is in `OGBGraphs`, molecules are `OGBMolecules`; other kinds of graphs have a file each.
"""

import csv
import gzip
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ogb.utils.features import get_atom_feature_dims, get_bond_feature_dims
from torchmetrics import MetricCollection

from gt.data.numbers import moments
from gt.data.ogb.catalogue import facts
from gt.data.ogb.download import files, locate
from gt.data.ogb.metric import LeaderboardMetric, OGBMetric
from gt.data.ogb.raw import Table, digest, pieces, splits_of
from gt.data.ogb.raw_csv import counts, numbers, refuse, within
from gt.data.packed import Graphs, pointers
from gt.data.source import Source
from gt.errors import UserError
from gt.losses import Criterion
from gt.schema import Kind, Schema

KINDS: dict[str, Kind] = {"binary classification": "binary", "regression": "regression"}


class OGBGraphs(Source):
    """A dataset of OGB, with OGB's split and the metric of its leaderboard.

    Args:
        dataset: its name, such as ``ogbg-molhiv``.
        root: the folder that holds, or will hold, the dataset's own folder (``ogbg_molhiv``).

    Attributes:
        version: raised when `read` makes something else of the same files.
        data_type: OGB's word for the kind of data that a class reads; None for any.
        built: bytes that the store takes, where it is much more than the files.

    Raises:
        UserError: on ``open``, an unknown name, or files that are absent and cannot be downloaded, or are malformed.
    """

    version: int
    data_type: str | None = None
    built: int = 0

    def __init__(self, dataset: str, root: str = "data") -> None:
        self.name, self.root = dataset, Path(root)

    @abstractmethod
    def read(self, tables: Mapping[str, Path]) -> Iterator[Graphs]:
        """The dataset in chunks of consecutive graphs, from its files by name; schema and splits are in the last.

        Raises:
            UserError: a malformed file; names the row.
        """

    @abstractmethod
    def metric(self, graphs: Graphs) -> LeaderboardMetric:
        """The metric of the leaderboard."""

    def files(self) -> dict[str, Path]:
        """The files by name, downloaded where they are absent."""
        facts(self.name, "graph", self.data_type)
        return files(self.name, locate(self.name, self.root, self.built))

    def key(self) -> dict[str, Any]:
        """A copy of the same files elsewhere gives the same key."""
        digests = {part: digest(path) for part, path in self.files().items()}
        return {"source": "ogb", "name": self.name, "version": self.version, "files": digests}

    def build(self) -> Iterator[Graphs]:
        return self.read(self.files())

    def measures(self, graphs: Graphs) -> tuple[MetricCollection, Criterion]:
        """The metric of the leaderboard alone, which also says what is best."""
        metric = self.metric(graphs)
        criterion = Criterion(metric.measure, "max" if metric.higher_is_better else "min")
        return MetricCollection({metric.measure: metric}), criterion


class OGBMolecules(OGBGraphs):
    """Molecules: atoms with 9 categories, bonds with 3, yes/no tasks or numbers, some of them unlabelled (NaN).

    The files store each bond once; here it is an edge in each direction. The splits are by scaffold. Numbers are
    learned in units of their deviation in the training set, by squared error, for the metric is its root.
    """

    version = 2
    data_type = "mol"

    def metric(self, graphs: Graphs) -> LeaderboardMetric:
        facts(self.name, "graph", self.data_type)
        return OGBMetric(self.name)

    def smiles_of(self, graphs: Graphs) -> list[str] | None:
        """By OGB's table of SMILES, where it is there and has a row for each graph."""
        try:
            smiles = pd.read_csv(mapping(self.files()), usecols=["smiles"], dtype=str, keep_default_na=False)["smiles"]
        except (OSError, EOFError, ValueError):  # a table that nothing else needs
            return None
        return smiles.tolist() if len(smiles) == len(graphs) else None

    def read(self, tables: Mapping[str, Path]) -> Iterator[Graphs]:
        about = facts(self.name, "graph", self.data_type)
        kind, tasks = KINDS[about["task type"]], int(about["num tasks"])
        atoms, bonds = tuple(get_atom_feature_dims()), tuple(get_bond_feature_dims())
        sizes = counts(tables["num-node-list"], least=1)
        y = numbers(tables["graph-label"], tasks, np.float64, len(sizes)).astype(np.float32)
        refuse(tables["graph-label"], np.isinf(y), y, "is not finite")
        if kind == "binary":
            refuse(tables["graph-label"], ~np.isnan(y) & (y != 0) & (y != 1), y, "is neither 0 nor 1 nor empty")
        splits = splits_of(tables, len(y))
        if np.isnan(y[splits["train"]]).all():
            raise UserError(f"{tables['graph-label']} labels no graph of {tables['train']}: replace both by OGB's")
        mean, scale = moments(y[splits["train"]]) if kind == "regression" else ((), ())
        target = task_names(mapping(tables), tasks)
        nodes = {"node-feat": Table(len(atoms), check=within(tables["node-feat"], atoms))}
        edges = {"edge-feat": Table(len(bonds), check=within(tables["edge-feat"], bonds))}
        for piece in pieces(tables, sizes, nodes, edges):
            edge_ptr, edge_index = piece.both_ways()
            yield Graphs(
                node_ptr=pointers(piece.sizes),
                edge_ptr=edge_ptr,
                edge_index=edge_index,
                nodes={"x": piece.tables["node-feat"]},
                edges={"edge_attr": np.repeat(piece.tables["edge-feat"], 2, axis=0)},
                graphs={"y": y[piece.graphs]},
                splits=splits,
                schema=Schema(
                    node_vocab=atoms,
                    edge_vocab=bonds,
                    level="graph",
                    kind=kind,
                    outputs=tasks,
                    target=target,
                    mean=mean,
                    scale=scale,
                    squared=kind == "regression",
                    max_nodes=int(piece.sizes.max()),
                ),
            ).sort_edges()


def mapping(tables: Mapping[str, Path]) -> Path:
    """OGB's table of SMILES, beside the files."""
    return tables["graph-label"].parent.parent / "mapping" / "mol.csv.gz"


def task_names(path: Path, tasks: int) -> tuple[str, ...]:
    """What OGB calls the tasks, by the first line of its table of SMILES; nothing where that is absent or of others."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as table:
            names = next(csv.reader(table), [])
    except (OSError, EOFError, ValueError, csv.Error):  # a table that nothing else needs
        return ()
    columns = tuple(name for name in names if name not in ("smiles", "mol_id"))
    return columns if len(columns) == tasks else ()
