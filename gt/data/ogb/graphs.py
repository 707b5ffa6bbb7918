"""Graph-level datasets of the Open Graph Benchmark (Hu et al. 2020), read from OGB's raw CSV files.

OGB's own classes pickle what they read; here the CSV files are read directly, in pieces. `OGBGraphs` is the base
class, `OGBMolecules` reads molecules; other kinds of graphs have a module each.
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
from gt.data.ogb.catalogue import metadata
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
        version: raised when `read` gives a different result for the same files.
        data_type: OGB's name of the kind of data that a class reads; None for any.
        store_bytes: size of the store, if it is much larger than the files.

    Raises:
        UserError: on ``open``, an unknown name, or files that are malformed, or absent and cannot be downloaded.
    """

    version: int
    data_type: str | None = None
    store_bytes: int = 0

    def __init__(self, dataset: str, root: str = "data") -> None:
        self.name, self.root = dataset, Path(root)

    @abstractmethod
    def read(self, tables: Mapping[str, Path]) -> Iterator[Graphs]:
        """Yield the dataset in chunks of consecutive graphs from its files by name; the last has schema and splits.

        Raises:
            UserError: a malformed file; names the row.
        """

    @abstractmethod
    def metric(self, graphs: Graphs) -> LeaderboardMetric:
        """The metric of the leaderboard."""

    def files(self) -> dict[str, Path]:
        """The files by name, downloaded if absent."""
        metadata(self.name, "graph", self.data_type)
        return files(self.name, locate(self.name, self.root, self.store_bytes))

    def key(self) -> dict[str, Any]:
        """Copies of the same files in different folders give the same key."""
        digests = {part: digest(path) for part, path in self.files().items()}
        return {"source": "ogb", "name": self.name, "version": self.version, "files": digests}

    def build(self) -> Iterator[Graphs]:
        return self.read(self.files())

    def measures(self, graphs: Graphs) -> tuple[MetricCollection, Criterion]:
        """Only the metric of the leaderboard, which also selects the best checkpoint."""
        metric = self.metric(graphs)
        criterion = Criterion(metric.measure, "max" if metric.higher_is_better else "min")
        return MetricCollection({metric.measure: metric}), criterion


class OGBMolecules(OGBGraphs):
    """Molecules with 9 categories per atom, 3 per bond, and binary or regression tasks, partly unlabelled (NaN).

    Each bond, stored once in the files, becomes two edges, one in each direction. Splits are by scaffold. Regression
    targets are standardised on the training set and learned by squared error, as the metric is its root.
    """

    version = 2
    data_type = "mol"

    def metric(self, graphs: Graphs) -> LeaderboardMetric:
        metadata(self.name, "graph", self.data_type)
        return OGBMetric(self.name)

    def smiles_of(self, graphs: Graphs) -> list[str] | None:
        """From OGB's table of SMILES, if it exists and has a row for each graph."""
        try:
            smiles = pd.read_csv(mapping(self.files()), usecols=["smiles"], dtype=str, keep_default_na=False)["smiles"]
        except (OSError, EOFError, ValueError):  # the table is optional
            return None
        return smiles.tolist() if len(smiles) == len(graphs) else None

    def read(self, tables: Mapping[str, Path]) -> Iterator[Graphs]:
        info = metadata(self.name, "graph", self.data_type)
        kind, tasks = KINDS[info["task type"]], int(info["num tasks"])
        atoms, bonds = tuple(get_atom_feature_dims()), tuple(get_bond_feature_dims())
        sizes = counts(tables["num-node-list"], minimum=1)
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
    """The path of OGB's table of SMILES."""
    return tables["graph-label"].parent.parent / "mapping" / "mol.csv.gz"


def task_names(path: Path, tasks: int) -> tuple[str, ...]:
    """OGB's names of the tasks, from the header of its table of SMILES; empty if it is absent or does not match."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as table:
            names = next(csv.reader(table), [])
    except (OSError, EOFError, ValueError, csv.Error):  # the table is optional
        return ()
    columns = tuple(name for name in names if name not in ("smiles", "mol_id"))
    return columns if len(columns) == tasks else ()
