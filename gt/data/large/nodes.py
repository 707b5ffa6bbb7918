"""Node prediction on one large graph: a training step sees a sample of it, evaluation all of it in chunks."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gt.attention import Demand, Reading
from gt.data.batch_sampler import Epochs, Request
from gt.data.batching import BatchDataset, prepare_all, tensor
from gt.data.graphs import Stored
from gt.data.large.sampling import Adjacency, Full, Sample, Sampler
from gt.data.machine import memory
from gt.data.packed import Graphs
from gt.encodings import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference.whole_graph import WholeGraph
from gt.ranges import at_least
from gt.schema import UNLABELLED, Schema

COMPILED_MATRICES = 8  # matrices of all pairs that a compiled layer and its gradients hold at once


def as_tensor(values: np.ndarray) -> Tensor:
    """A float32 or int64 tensor of a possibly memory-mapped array, sharing its memory if the dtype matches."""
    if values.dtype not in (np.float32, np.int64):
        return tensor(values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # features of a batch are never written to
        return torch.from_numpy(np.asarray(values))


def scatter_targets(y: np.ndarray, rows: int, positions: np.ndarray, ids: np.ndarray) -> Tensor:
    """(rows, ...) targets: those of the nodes ``ids`` at ``positions``, and no label elsewhere.

    A missing label is NaN, or `UNLABELLED` if ``y`` holds classes (integers).
    """
    dtype, fill = (torch.long, UNLABELLED) if y.dtype.kind in "iu" else (torch.float32, torch.nan)
    targets = torch.full((rows, *y.shape[1:]), fill, dtype=dtype)
    targets[torch.from_numpy(positions)] = tensor(y[ids])
    return targets


def refuse_dense(batch: GraphBatch, readings: Iterable[Reading]) -> None:
    """Refuse masks with so many pairs that the attention weights of one layer would not fit into memory.

    On a CPU a compiled layer computes all pairs of nodes, and keeps several matrices of them.
    """
    for mask, demand in readings:
        if isinstance(demand, Demand) and demand.compiled and demand.device == "cpu":
            if COMPILED_MATRICES * 4 * batch.num_nodes**2 * demand.heads > memory():
                raise UserError(
                    f"compiled attention on {batch.num_nodes:,} nodes computes all pairs of them, which do not fit "
                    "into memory: set trainer.compile=false, or choose a smaller graph"
                )
            continue
        pairs = mask.pair_count(batch) or 0
        if 4 * pairs * getattr(demand, "heads", 1) > memory():
            raise UserError(
                f"{mask} on {batch.num_nodes:,} nodes has {pairs:,} pairs, whose weights do not fit into memory: "
                "choose a mask that follows the edges (mask=one_hop), or a smaller sample (data/sampler=neighbours)"
            )


class SingleGraph:
    """The only graph of a store as tensors, created lazily and shared by all users of the object."""

    def __init__(self, graphs: Graphs) -> None:
        self.graphs = graphs

    @cached_property
    def _parts(self) -> dict[str, Any]:
        graphs, nodes = self.graphs, int(self.graphs.node_ptr[-1])
        features = {name: as_tensor(values) for name, values in graphs.nodes.items() if name != "y"}
        features |= {name: tensor(values.take(np.arange(nodes))) for name, values in graphs.encodings.items()}
        attributes = graphs.edges.get("edge_attr")
        return {
            "ptr": torch.tensor([0, nodes]),
            "edge_index": torch.from_numpy(graphs.edge_index.astype(np.int64)),
            "max_nodes": nodes,
            "x": features.pop("x", None),
            "edge_attr": None if attributes is None else as_tensor(attributes),
            "extras": features,
        }

    def batch(self, chunk: int | None) -> GraphBatch:
        """The graph without targets; if ``chunk`` is given, for inference on that many nodes and edges at a time."""
        return (GraphBatch(**self._parts) if chunk is None else WholeGraph(**self._parts, chunk=chunk)).finish()


class NodeSamples(BatchDataset):
    """The steps of each epoch; a step, with (epoch, processes) as its draw, gives a batch of one graph.

    A draw depends only on the seed, the epoch and the step, whichever process makes it.

    Args:
        whole: a store of one graph, with ``y`` among its ``nodes``.
        roots: indices of the nodes whose targets count.
        sampler: an opened sampler.
        seed: seed of all draws.
        chunk: if given, the batches are for inference on that many nodes and edges at a time, and masks are not
            prepared.
    """

    def __init__(
        self, whole: SingleGraph, roots: np.ndarray, sampler: Sampler, seed: int, chunk: int | None = None
    ) -> None:
        self.whole, self.graphs, self.sampler = whole, whole.graphs, sampler
        self.roots, self.seed, self.chunk = np.asarray(roots, np.int64), seed, chunk
        self.is_root = np.zeros(int(self.graphs.node_ptr[-1]), bool)
        self.is_root[self.roots] = True
        self._planned: tuple[tuple[int, int], list[np.ndarray]] | None = None

    def __len__(self) -> int:
        return len(self.roots)

    def plan(self, epoch: int, world: int) -> list[np.ndarray]:
        """The seed nodes of each step of an epoch."""
        if self._planned is None or self._planned[0] != (epoch, world):
            rng = np.random.default_rng([self.seed, epoch])
            self._planned = (epoch, world), self.sampler.plan(self.roots, world, rng)
        return self._planned[1]

    def batch(self, request: Request) -> GraphBatch:
        [step] = request.samples
        nodes = self.plan(*request.draw)[step]
        sample = self.sampler.sample(nodes, self.is_root, np.random.default_rng([self.seed, *request.draw, step]))
        batch = self._full(nodes) if sample is None else self._subgraph(sample)
        if self.chunk is not None:
            return batch
        refuse_dense(batch, request.readings)
        return prepare_all(batch, request.readings)

    @cached_property
    def _whole_batch(self) -> GraphBatch:
        return self.whole.batch(self.chunk)

    def _full(self, roots: np.ndarray) -> GraphBatch:
        """The whole graph; masks of it are cached from step to step."""
        batch = copy(self._whole_batch)
        batch.y = scatter_targets(self.graphs.nodes["y"], len(self.is_root), roots, roots)
        return batch

    def _subgraph(self, sample: Sample) -> GraphBatch:
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
            y=scatter_targets(nodes["y"], len(sample.nodes), sample.roots, sample.nodes[sample.roots]),
            extras=features,
            memo=sample.memo,
        ).finish()


class Steps(Epochs):
    """This process's steps of each epoch, as `NodeSamples` takes them.

    Args:
        steps: steps of an epoch over all processes, a multiple of ``world``.
        shuffle: draw new samples each epoch; False for evaluation.
        epoch: the first epoch.
        rank, world: rank of this process and number of processes.
        first: steps of the first epoch to skip when a run resumes in its middle.
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
    """Node prediction on one graph; splits are node indices.

    Args:
        source: a source of one graph with ``y`` among its nodes, integers for classes.
        sampler: what a training step sees, see `gt.data.large.sampling`; None for the whole graph.
        evaluate: ``full``: exactly, on the whole graph chunk by chunk, even if training used samples; ``sampled``: on
            samples as in training, cheaper but approximate.
        chunk: nodes and edges processed at a time in exact evaluation; memory grows with it.
        workers: processes that draw samples, unless these are the whole graph; 0 uses the training process.
        seed: seed of the samples.
    """

    sampler: Sampler | None = None
    evaluate: Literal["full", "sampled"] = "full"
    chunk: int = 1 << 19

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.chunk, "chunk")
        self._datasets: dict[str, NodeSamples] = {}  # cached, as those of the whole graph are large

    def check(self, graphs: Graphs) -> None:
        if len(graphs) != 1 or graphs.schema.level != "node":
            alternative = self.source.option_for_graphs
            problem = f"{len(graphs)} graphs, but one is needed" if len(graphs) != 1 else "no targets at its nodes"
            raise UserError(f"{self.source} has {problem}{f': choose data={alternative}' if alternative else ''}")

    def open(self, encodings: Sequence[Encoding], model_schema: Schema | None = None) -> None:
        super().open(encodings, model_schema)
        graphs, sampler = self.graphs, self.sampler or Full()
        if model_schema is None:
            sampler.open(Adjacency.of(graphs.edge_index, int(graphs.node_ptr[-1])), self.source.folder)
        elif len(graphs) != 1:
            raise UserError(f"{self.source} has {len(graphs)} graphs, but this model reads a single one")
        self.whole, self._datasets = SingleGraph(graphs), {}
        for split, roots in graphs.splits.items():
            if split != "train" and (self.evaluate == "full" or model_schema is not None):
                self._datasets[split] = NodeSamples(self.whole, roots, Full(), self.seed, self.chunk)
            else:
                self._datasets[split] = NodeSamples(self.whole, roots, sampler, self.seed)

    def samples(self, graphs: Graphs) -> int:
        return int(graphs.node_ptr[-1])

    def dataset(self, split: str) -> NodeSamples:
        return self._datasets[split]

    def workers_for(self, split: str) -> int:
        """The whole graph stays in the training process: a worker would have to send a copy each epoch."""
        return 0 if isinstance(self._datasets[split].sampler, Full) else self.workers

    def batches(self, split: str, **state: int) -> Steps:
        dataset = self.dataset(split)
        return Steps(dataset.sampler.steps(len(dataset), state.get("world", 1)), split == "train", **state)

    def targets(self, split: str) -> Tensor:
        return tensor(self.graphs.nodes["y"][np.asarray(self.graphs.splits[split], np.int64)])
