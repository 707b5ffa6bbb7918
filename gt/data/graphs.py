"""Data modules for stored graphs, where each graph, or each node of many graphs, has a target."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gt.data.arrays import Rows
from gt.data.batch_sampler import Request
from gt.data.batching import GraphDataset, runs, tensor
from gt.data.built import checked_build
from gt.data.datamodule import ALL, DataModule, Loader, Sized
from gt.data.encodings import attach, compute
from gt.data.link_pairs import Ranked
from gt.data.packed import Graphs
from gt.data.source import Source
from gt.data.static import Shape, bound, shapes_of
from gt.data.store import fingerprint, is_complete, open_or_build
from gt.data.store_folders import store_folder, temporary_store
from gt.encodings import Encoding
from gt.errors import UserError
from gt.keys import full_key
from gt.losses import Criterion, balanced
from gt.ranges import at_least
from gt.ranks import rank_zero_only
from gt.schema import Schema, format_list

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

CHUNK = 1000  # samples collated at a time to collect targets
SAMPLED_EPOCHS = 4  # training epochs to whose batches static shapes are fitted


@dataclass(kw_only=True, eq=False, repr=False)
class Stored(DataModule):
    """Graphs kept in a store that is built once, in ``<root>/stores`` of the source.

    If that folder is read-only, as on a shared disk, and does not hold the store, the store is kept in ``data/stores``
    below the working directory instead, and a line says so.

    Args:
        weights: ``balanced`` gives all classes, or yes and no, the same total weight in the loss, however rare they are
            in the training split; metrics are not weighted.

    Raises:
        UserError: on ``open``, if weights are requested for other kinds of targets.
    """

    source: Source = field(kw_only=False)
    weights: Literal["none", "balanced"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stored: Graphs | None = None

    def open(self, encodings: Sequence[Encoding], model_schema: Schema | None = None) -> None:
        self.stored = self._open_store(encodings) if model_schema is None else self._open_new(encodings, model_schema)
        if self.weights == "balanced" and model_schema is None:
            self.stored = replace(self.stored, schema=self._balanced(self.stored.schema))
        self.schema = self.stored.schema

    def _open_store(self, encodings: Sequence[Encoding]) -> Graphs:
        """Open the store, building it if needed, and split it."""
        source = self.source
        key = fingerprint(full_key(source))
        source.folder = store_folder(source.root, source.name, key, is_complete, source.made_of)
        graphs = open_or_build(source.folder, lambda: checked_build(source))
        self.check(graphs)
        graphs = source.resplit(graphs)
        if summary := source.summary(graphs):
            rank_zero_only(print)(summary, flush=True)
        return attach(graphs, source.folder, encodings) if len(graphs) else graphs

    def _balanced(self, schema: Schema) -> Schema:
        """Add loss weights, computed on the training split, to the schema, and print them."""
        if schema.kind == "regression" or schema.level == "link" or schema.pointer:
            raise UserError(
                f"data.weights=balanced is only for classes, or yes and no, of graphs or nodes: leave it out "
                f"({schema.task()})"
            )
        schema = replace(schema, weights=balanced(schema, self.targets("train")))
        texts = [f"{weight:.3g}" for weight in schema.weights]
        if schema.outputs > 1:
            texts = [f"{n} ({w})" for n, w in zip(schema.names or range(schema.outputs), texts, strict=True)]
        label = "class weights" if schema.kind == "multiclass" else "weight of yes relative to no"
        rank_zero_only(print)(f"{label} in the loss, from the training split: {format_list(texts, 6)}", flush=True)
        return schema

    def _open_new(self, encodings: Sequence[Encoding], model_schema: Schema) -> Graphs:
        """All graphs of data new to a trained model, in memory or in a temporary store removed with this object."""
        source = self.source
        if source.in_memory:
            built = source.build_known(model_schema)
            (graphs,) = (built,) if isinstance(built, Graphs) else built
        else:
            self._temporary = temporary_store(source.root)
            source.folder = Path(self._temporary.name) / source.name
            graphs = open_or_build(source.folder, lambda: source.build_known(model_schema))
        graphs = replace(graphs, splits={ALL: np.arange(self.samples(graphs))})
        if not len(graphs):
            return graphs
        return compute(graphs, encodings) if source.in_memory else attach(graphs, source.folder, encodings)

    def check(self, graphs: Graphs) -> None:
        """Check that this is the right data module for the graphs.

        Raises:
            UserError: it is not; names the right one.
        """

    def samples(self, graphs: Graphs) -> int:
        """The number of samples to predict."""
        return len(graphs)

    @property
    def graphs(self) -> Graphs:
        """The store, once it is open."""
        if self.stored is None:
            raise RuntimeError("open() the data before use")
        return self.stored

    def holds(self) -> str:
        graphs = self.graphs
        nodes, edges = int(graphs.node_ptr[-1]), int(graphs.edge_ptr[-1])
        splits = ", ".join(f"{len(ids):,} {split}" for split, ids in graphs.splits.items())
        arrays: dict[str, Rows | np.ndarray] = {**graphs.nodes, **graphs.encodings}
        lines = [f"{len(graphs):,} graphs ({splits}), {nodes:,} nodes, {edges:,} edges"]
        lines += [f"{name:<20}{values.nbytes / 1e6:>8.1f} MB" for name, values in sorted(arrays.items())]
        size = sum(path.stat().st_size for path in self.source.folder.glob("*"))
        return "\n".join([*lines, f"{'folder':<20}{size / 1e6:>8.1f} MB  {self.source.folder}"])

    def measures(self) -> "tuple[MetricCollection, Criterion]":
        return self.source.measures(self.graphs)

    def examples(self, net: nn.Module, split: str) -> str:
        dataset = self.dataset(split)
        return self.source.examples(dataset, net) if isinstance(dataset, GraphDataset) else ""

    def has(self, split: str) -> bool:
        return len(self.graphs.splits.get(split, ())) > 0

    def splits(self) -> list[str]:
        return list(dict.fromkeys([*super().splits(), *self.graphs.splits]))


@dataclass(kw_only=True, eq=False, repr=False)
class GraphData(Stored, Sized):
    """Many graphs, each with a target of its own, or with targets at its nodes or at pairs of its nodes.

    Args:
        batch_nodes: nodes in a training batch of each process, padding included, instead of a number of graphs;
            validation and test then use up to twice as many. None uses ``batch_size``.
        static: pad batches to one of a few fixed shapes, for compiled training; see `gt.data.static`.
    """

    batch_nodes: int | None = None
    static: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_nodes is not None:
            at_least(1, self.batch_nodes, "batch_nodes")
        self._shapes: dict[str, tuple[Shape, ...]] = {}

    def check(self, graphs: Graphs) -> None:
        if len(graphs) == 1 and graphs.schema.level == "node" and self.source.option_for_nodes:
            raise UserError(
                f"{self.source} is a single graph: choose data={self.source.option_for_nodes}, which splits its nodes"
            )
        if graphs.schema.level == "link" and self.spread:
            raise UserError(
                "trainer=context_parallel distributes the node pairs among which links are ranked: choose trainer=ddp"
            )

    def measure(self, split: str) -> dict[str, Any]:
        if split != "train" and self.eval_batch_size is not None:
            return super().measure(split)
        return super().measure(split) | {"budget": self.batch_nodes}

    def dataset(self, split: str) -> GraphDataset:
        ids, shapes, present = self.graphs.splits[split], self._shapes.get(split, ()), self.source.present
        if self.graphs.schema.level == "link" and split != "train":
            present = Ranked(present)
        return GraphDataset(self.graphs, ids, shapes, present, self.seed if split == "train" else 0)

    def loader(self, split: str) -> Loader:
        if self.static and split not in self._shapes:
            self._shapes[split] = self._fitted_shapes(split)
        return super().loader(split)

    def go_by_shapes(self, static: bool) -> None:
        """Set ``static`` for all loaders created from now on."""
        self.static, self._shapes = static, {}

    def _fitted_shapes(self, split: str) -> tuple[Shape, ...]:
        """The static shapes for a split, the same on every rank and after a resume."""
        world, dataset = self.world, self.dataset(split)
        batches = self.batches(split, world=world)
        sizes, edges = dataset.sizes, dataset.edges
        epochs = range(SAMPLED_EPOCHS if batches.shuffle else 1)
        shared = [(batch, rank) for epoch in epochs for batch in batches.plan(epoch) for rank in range(world)]
        sampled = [share for batch, rank in shared if len(share := batches.share(batch, rank))]
        factor = 2 if batches.pairs else 1
        budget = batches.budget and factor * batches.budget
        return shapes_of(sampled, sizes, edges, bound(sizes, edges, factor * batches.batch_size, budget))

    def targets(self, split: str) -> Tensor:
        graphs, dataset = self.graphs, self.dataset(split)
        if dataset.present is not None:  # it may set the targets, too
            dataset.shapes = ()
            parts = np.split(np.arange(len(dataset)), range(CHUNK, len(dataset), CHUNK))
            targets = (dataset[Request(tuple(part.tolist()))].y for part in parts)
            return torch.cat([y for y in targets if y is not None])
        ids = np.asarray(graphs.splits[split], np.int64)
        if "y" in graphs.graphs:
            return tensor(graphs.graphs["y"][ids])
        if graphs.links:
            return tensor(graphs.links["y"][runs(graphs.link_ptr[ids], np.diff(graphs.link_ptr)[ids])])
        return tensor(graphs.nodes["y"][runs(graphs.node_ptr[ids], graphs.sizes[ids])])
