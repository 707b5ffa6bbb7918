"""Targets for the nodes of one large graph: a step trains on a sample of it, evaluation reads all of it in chunks."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gt.attention import Reading
from gt.data.batch_sampler import Epochs, Request
from gt.data.batching import BatchDataset, prepare_all, tensor
from gt.data.graphs import Stored
from gt.data.large.sampling import Full, Rows, Sample, Sampler
from gt.data.machine import memory
from gt.data.packed import Graphs
from gt.encodings import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference.whole_graph import WholeGraph
from gt.ranges import at_least
from gt.schema import UNLABELLED, Schema


def shared(values: np.ndarray) -> Tensor:
    """A float32 or int64 tensor over an array, memory-mapped or not, without a copy where the type is already one."""
    if values.dtype not in (np.float32, np.int64):
        return tensor(values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # nobody writes to a batch's features
        return torch.from_numpy(np.asarray(values))


def only(y: np.ndarray, rows: int, places: np.ndarray, numbers: np.ndarray) -> Tensor:
    """(rows, ...) targets: those of the nodes ``numbers`` at ``places``, and no label elsewhere.

    No label is NaN, or `UNLABELLED` where ``y`` holds classes (whole numbers).
    """
    kind, blank = (torch.long, UNLABELLED) if y.dtype.kind in "iu" else (torch.float32, torch.nan)
    targets = torch.full((rows, *y.shape[1:]), blank, dtype=kind)
    targets[torch.from_numpy(places)] = tensor(y[numbers])
    return targets


def refuse_dense(batch: GraphBatch, readings: Iterable[Reading]) -> None:
    """Refuse masks of so many pairs that the weights of one layer would not fit into this machine's memory."""
    for mask, demand in readings:
        pairs = mask.pair_count(batch) or 0
        if 4 * pairs * getattr(demand, "heads", 1) > memory():
            raise UserError(
                f"{mask} on {batch.num_nodes:,} nodes has {pairs:,} pairs, whose weights do not fit into memory: "
                "choose a mask that follows the edges (mask=one_hop), or a smaller sample (data/sampler=neighbours)"
            )


class Whole:
    """The one graph of a store as tensors, made when first asked for and once for all who share this."""

    def __init__(self, graphs: Graphs) -> None:
        self.graphs = graphs

    @cached_property
    def _parts(self) -> dict[str, Any]:
        graphs, nodes = self.graphs, int(self.graphs.node_ptr[-1])
        features = {name: shared(values) for name, values in graphs.nodes.items() if name != "y"}
        features |= {name: tensor(values.take(np.arange(nodes))) for name, values in graphs.encodings.items()}
        attributes = graphs.edges.get("edge_attr")
        return {
            "ptr": torch.tensor([0, nodes]),
            "edge_index": torch.from_numpy(graphs.edge_index.astype(np.int64)),
            "max_nodes": nodes,
            "x": features.pop("x", None),
            "edge_attr": None if attributes is None else shared(attributes),
            "extras": features,
        }

    def batch(self, chunk: int | None) -> GraphBatch:
        """The graph without targets; with a chunk, for inference on so many nodes and edges at a time."""
        return (GraphBatch(**self._parts) if chunk is None else WholeGraph(**self._parts, chunk=chunk)).finish()


class NodeSamples(BatchDataset):
    """The steps of each epoch; a step, drawn by (epoch, processes), gives a batch of one graph.

    A draw depends on the seed, the epoch and the step alone, whichever process makes it.

    Args:
        whole: a store of one graph, y among its ``nodes``.
        roots: numbers of the nodes whose targets count.
        sampler: already open.
        seed: what all is drawn from.
        chunk: not None: the whole graph is for inference so many nodes and edges at a time; nothing is made ready.
    """

    def __init__(self, whole: Whole, roots: np.ndarray, sampler: Sampler, seed: int, chunk: int | None = None) -> None:
        self.whole, self.graphs, self.sampler = whole, whole.graphs, sampler
        self.roots, self.seed, self.chunk = np.asarray(roots, np.int64), seed, chunk
        self.is_root = np.zeros(int(self.graphs.node_ptr[-1]), bool)
        self.is_root[self.roots] = True
        self._planned: tuple[tuple[int, int], list[np.ndarray]] | None = None

    def __len__(self) -> int:
        return len(self.roots)

    def plan(self, epoch: int, world: int) -> list[np.ndarray]:
        """What each step of an epoch begins with."""
        if self._planned is None or self._planned[0] != (epoch, world):
            draw = np.random.default_rng([self.seed, epoch])
            self._planned = (epoch, world), self.sampler.plan(self.roots, world, draw)
        return self._planned[1]

    def batch(self, request: Request) -> GraphBatch:
        [step] = request.samples
        nodes = self.plan(*request.draw)[step]
        sample = self.sampler.sample(nodes, self.is_root, np.random.default_rng([self.seed, *request.draw, step]))
        batch = self._all(nodes) if sample is None else self._part(sample)
        if self.chunk is not None:
            return batch
        refuse_dense(batch, request.readings)
        return prepare_all(batch, request.readings)

    @cached_property
    def _kept(self) -> GraphBatch:
        return self.whole.batch(self.chunk)

    def _all(self, roots: np.ndarray) -> GraphBatch:
        """The whole graph; what masks say of it is kept from step to step."""
        batch = copy(self._kept)
        batch.y = only(self.graphs.nodes["y"], len(self.is_root), roots, roots)
        return batch

    def _part(self, sample: Sample) -> GraphBatch:
        nodes = self.graphs.nodes
        attributes = self.graphs.edges.get("edge_attr")
        features = {name: tensor(values[sample.nodes]) for name, values in nodes.items() if name != "y"}
        features |= {name: tensor(values.take(sample.nodes)) for name, values in self.graphs.encodings.items()}
        return GraphBatch(
            ptr=torch.tensor([0, len(sample.nodes)]),
            edge_index=torch.from_numpy(sample.ends),
            max_nodes=len(sample.nodes),
            x=features.pop("x", None),
            edge_attr=None if attributes is None else tensor(attributes[sample.edges]),
            y=only(nodes["y"], len(sample.nodes), sample.roots, sample.nodes[sample.roots]),
            extras=features,
            memo=sample.memo,
        ).finish()


class Steps(Epochs):
    """This process's steps of each epoch, as `NodeSamples` takes them.

    Args:
        steps: of an epoch, of all processes: a multiple of ``world``.
        shuffle: draw anew each epoch; False for evaluation.
        epoch: the first one.
        rank, world: which share of how many.
        first: steps of the first epoch to skip, for a run that resumes in the middle.
    """

    def __init__(
        self, steps: int, shuffle: bool, rank: int = 0, world: int = 1, epoch: int = 0, first: int = 0
    ) -> None:
        self.steps, self.shuffle, self.epoch = steps, shuffle, epoch
        self.rank, self.world, self.first = rank, world, first

    def __len__(self) -> int:
        return self.steps // self.world

    def __iter__(self) -> Iterator[Request]:
        epoch = self.epoch if self.shuffle else 0
        first, self.first = self.first, 0
        for step in range(self.rank + first * self.world, self.steps, self.world):
            yield Request((step,), tuple(self.readings()), draw=(epoch, self.world))


@dataclass(kw_only=True, eq=False, repr=False)
class NodeData(Stored):
    """One graph whose nodes have the targets; splits are node numbers.

    Args:
        source: of one graph with ``y`` among its nodes, whole numbers for classes.
        sampler: what a training step sees, see `gt.data.large.sampling`; None the whole graph.
        evaluate: ``full``: on the whole graph, exactly, chunk by chunk, whatever training saw; ``sampled``: on samples,
            as in training, which is cheaper, and not exact.
        chunk: nodes and edges that exact evaluation works on at a time; memory grows with it.
        workers: processes that draw samples, where these are not the whole graph; 0: the training process does.
        seed: what samples are drawn from.
    """

    sampler: Sampler | None = None
    evaluate: Literal["full", "sampled"] = "full"
    chunk: int = 1 << 19

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.chunk, "chunk")
        self._datasets: dict[str, NodeSamples] = {}  # kept: those of the whole graph are large

    def check(self, graphs: Graphs) -> None:
        if len(graphs) != 1 or graphs.schema.level != "node":
            other = self.source.option_for_graphs
            wrong = f"{len(graphs)} graphs where one is needed" if len(graphs) != 1 else "no targets at its nodes"
            raise UserError(f"{self.source} has {wrong}{f': choose data={other}' if other else ''}")

    def open(self, encodings: Sequence[Encoding], known: Schema | None = None) -> None:
        super().open(encodings, known)
        graphs, sampler = self.graphs, self.sampler or Full()
        if known is None:
            sampler.open(Rows.of(graphs.edge_index, int(graphs.node_ptr[-1])), self.source.folder)
        elif len(graphs) != 1:
            raise UserError(f"{self.source} has {len(graphs)} graphs: this model reads one")
        self.whole, self._datasets = Whole(graphs), {}
        for split, roots in graphs.splits.items():
            if split != "train" and (self.evaluate == "full" or known is not None):
                self._datasets[split] = NodeSamples(self.whole, roots, Full(), self.seed, self.chunk)
            else:
                self._datasets[split] = NodeSamples(self.whole, roots, sampler, self.seed)

    def samples(self, graphs: Graphs) -> int:
        return int(graphs.node_ptr[-1])

    def dataset(self, split: str) -> NodeSamples:
        return self._datasets[split]

    def workers_for(self, split: str) -> int:
        """The whole graph is made once, in the training process: to hand it over would copy it each epoch."""
        return 0 if isinstance(self._datasets[split].sampler, Full) else self.workers

    def batches(self, split: str, **place: int) -> Steps:
        dataset = self.dataset(split)
        return Steps(dataset.sampler.steps(len(dataset), place.get("world", 1)), split == "train", **place)

    def targets(self, split: str) -> Tensor:
        return tensor(self.graphs.nodes["y"][np.asarray(self.graphs.splits[split], np.int64)])
