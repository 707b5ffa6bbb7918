"""Datasets of many graphs, kept in a store."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gt.data.arrays import Rows
from gt.data.batch_sampler import Batches
from gt.data.batching import GraphDataset, tensor
from gt.data.datamodule import ALL, DataModule, Loader
from gt.data.encodings import attach
from gt.data.static import Shape, bound, shapes_of
from gt.data.store import Graphs, fingerprint, is_complete, open_or_build
from gt.data.store_folders import store_folder, temporary_store
from gt.encodings import Encoding
from gt.errors import UserError
from gt.schema import Schema

SAMPLED_EPOCHS = 4  # of training, whose batches say which static shapes suit


class GraphDataModule(DataModule):
    """Many graphs, kept in a store that is built once in ``<root>/stores``.

    Where that cannot be written to, as on a shared read-only disk, and does not hold it, the store is kept in
    ``data/stores`` instead, under the working directory, and a line says so.

    Args:
        name: of the store.
        root: where the source is, or will be, and the store beside it.
        static: fill batches up to one of a few fixed shapes, for compiled training; see `gt.data.static`.
    """

    def __init__(
        self,
        name: str,
        root: str,
        batch_size: int,
        eval_batch_size: int | None,
        workers: int,
        seed: int,
        batch_nodes: int | None = None,
        static: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, workers, seed, batch_nodes)
        self.name, self.root, self.static = name, Path(root), static
        self.graphs: Graphs | None = None
        self.folder = Path()  # of the store, once it is open
        self.known: Schema | None = None  # what a trained model knows, where these data are new to it
        self._shapes: dict[str, tuple[Shape, ...]] = {}

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """JSON-able facts that the store depends on; another key is another store."""

    @abstractmethod
    def build(self) -> Graphs | Iterable[Graphs]:
        """Read the source: all graphs, or chunks of consecutive ones, see `gt.data.store.save`, for less memory."""

    def open(self, encodings: Sequence[Encoding], known: Schema | None = None) -> None:
        self.known = known
        if known is None:
            self.folder = store_folder(self.root, f"{self.name}-{fingerprint(self.key())}", is_complete)
        else:
            self._temporary = temporary_store(self.root)
            self.folder = Path(self._temporary.name) / str(self.name)
        graphs = open_or_build(self.folder, self.build)
        if known is None:
            graphs = self.resplit(graphs)
        else:
            graphs = replace(graphs, splits={ALL: np.arange(self.samples(graphs))})
        self.graphs = attach(graphs, self.folder, encodings) if len(graphs) else graphs
        self.schema = graphs.schema

    def resplit(self, graphs: Graphs) -> Graphs:
        """The graphs of the store, split as this run asks where that differs, with what is learned from the split."""
        return graphs

    def samples(self, graphs: Graphs) -> int:
        """How many there are to predict something for."""
        return len(graphs)

    def _opened(self) -> Graphs:
        if self.graphs is None:
            raise RuntimeError("open() the data before use")
        return self.graphs

    def holds(self) -> str:
        graphs = self._opened()
        nodes, edges = int(graphs.node_ptr[-1]), int(graphs.edge_ptr[-1])
        splits = ", ".join(f"{len(ids):,} {split}" for split, ids in graphs.splits.items())
        kept: dict[str, Rows | np.ndarray] = {**graphs.nodes, **graphs.encodings}
        lines = [f"{len(graphs):,} graphs ({splits}), {nodes:,} nodes, {edges:,} edges"]
        lines += [f"{name:<20}{values.nbytes / 1e6:>8.1f} MB" for name, values in sorted(kept.items())]
        size = sum(path.stat().st_size for path in self.folder.glob("*"))
        return "\n".join([*lines, f"{'folder':<20}{size / 1e6:>8.1f} MB  {self.folder}"])

    def has(self, split: str) -> bool:
        return len(self._opened().splits.get(split, ())) > 0

    def dataset(self, split: str) -> GraphDataset:
        graphs = self._opened()
        return GraphDataset(graphs, graphs.splits[split], self.readings, self._shapes.get(split, ()))

    def loader(self, split: str) -> Loader:
        if self.static and self.schema.level == "link":
            raise UserError(
                "data.static=true fills up graphs and nodes, and this dataset predicts links: set it to false"
            )
        if self.static and split not in self._shapes:
            self._shapes[split] = self._fitted_shapes(split)
        return super().loader(split)

    def _fitted_shapes(self, split: str) -> tuple[Shape, ...]:
        """The shapes for a split, the same on every rank and whenever a run resumes."""
        world = 1 if self.trainer is None else self.trainer.world_size
        dataset, batches = self.dataset(split), self.batches(split, world=world)
        if not isinstance(batches, Batches):
            raise UserError("data.static=true fills up batches of whole graphs: set it to false for samples of one")
        sizes, edges = dataset.sizes, dataset.edges
        epochs = range(SAMPLED_EPOCHS if batches.shuffle else 1)
        shared = [(batch, rank) for epoch in epochs for batch in batches.plan(epoch) for rank in range(world)]
        sampled = [share for batch, rank in shared if len(share := batches.share(batch, rank))]
        most = 2 if batches.pairs else 1
        budget = batches.budget and most * batches.budget
        return shapes_of(sampled, sizes, edges, bound(sizes, edges, most * batches.batch_size, budget))

    def targets(self, split: str) -> Tensor:
        graphs = self._opened()
        ids = np.asarray(graphs.splits[split])
        return tensor(graphs.graphs["y"][ids])
