"""Link prediction on one graph: which pairs of nodes are linked, beyond the links that the graph shows?

No answer is to be read off the question. In training the model sees the graph without the links of the batch, in either
direction, however often they occur; in evaluation it sees the links of the training only. Encodings that are computed
once from the whole graph would know the training links that they are asked for, and are refused.
"""

import copy
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gt.attention import Reading
from gt.data.batching import Batches, gather, prepare_all, runs
from gt.data.datamodule import GraphDataModule
from gt.data.negatives import AnyPair, Negatives
from gt.data.store import Graphs
from gt.encodings import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch

LARGEST = 1 << 22  # links in an evaluation batch unless told otherwise: a few GiB of hidden states at a width of 64


def both_ways(pairs: np.ndarray) -> np.ndarray:
    """(K, 2) pairs to the (2, 2K) edges between them: each pair, then its inverse."""
    return np.stack([pairs.ravel(), pairs[:, ::-1].ravel()])


class InputGraph:
    """The graph of a batch of one graph, from which edges can be taken out."""

    def __init__(self, batch: GraphBatch) -> None:
        self.batch = batch
        source, target = batch.edge_index.numpy()
        self.keys = self._key(source, target)  # ascending, as edges are sorted by (target, source)

    def _key(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        return target * np.int64(self.batch.num_nodes) + source

    def without(self, pairs: np.ndarray) -> GraphBatch:
        """The same graph without any edge between the two nodes of each pair (2, K), in either direction."""
        key = np.unique(np.concatenate([self._key(*pairs), self._key(*pairs[::-1])]))
        low, high = (np.searchsorted(self.keys, key, side) for side in ("left", "right"))
        kept = np.ones(len(self.keys), dtype=bool)
        kept[runs(low, high - low)] = False
        keep, whole = torch.from_numpy(kept), self.batch
        return GraphBatch(
            ptr=whole.ptr,
            edge_index=whole.edge_index[:, keep],
            max_nodes=whole.max_nodes,
            equal_sizes=True,
            x=whole.x,
            edge_attr=None if whole.edge_attr is None else whole.edge_attr[keep],
            extras=dict(whole.extras),
        )


class TrainingLinks(Dataset[GraphBatch]):
    """Links to learn; ``[draw, *numbers]`` gives a batch of the links so numbered and as many pairs that are none.

    Args:
        graph: what a model reads, the links to learn among its edges.
        links: (K, 2) nodes of each link.
        negatives: makes the pairs that are none.
        seed: what they are drawn from, together with ``draw``.
        readings: what the model will ask of each batch.
    """

    def __init__(
        self, graph: InputGraph, links: np.ndarray, negatives: Negatives, seed: int, readings: Iterable[Reading]
    ) -> None:
        self.graph, self.links, self.negatives, self.seed, self.readings = graph, links, negatives, seed, readings

    def __len__(self) -> int:
        return len(self.links)

    @property
    def sizes(self) -> np.ndarray:
        """(K,) ones: one link costs as much as another."""
        return np.ones(len(self), dtype=np.int64)

    def __getitems__(self, items: list[int]) -> GraphBatch:
        draw, numbers = items[0], np.array(items[1:])
        positive = self.links[numbers].T.astype(np.int64)
        negative = self.negatives.draw(positive, np.random.default_rng([self.seed, draw]))
        batch = self.graph.without(positive)
        batch.links = torch.from_numpy(np.concatenate([positive, negative], axis=1))
        batch.y = (torch.arange(2 * len(numbers)) < len(numbers)).float()[:, None]
        return prepare_all(batch.finish(), self.readings)


class LinkBatches(Batches):
    """Batches of link numbers, before each a number that no other batch of the training has: see `TrainingLinks`."""

    def __iter__(self) -> Iterator[list[int]]:
        first = self.first
        for place, batch in enumerate(super().__iter__(), first):
            yield [(self.epoch * len(self) + place) * self.world + self.rank, *batch]


class Questions(Protocol):
    """The links of an evaluation and the pairs that they are told from: so many items of ``width`` rows each."""

    width: int

    def __len__(self) -> int: ...

    def rows(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """The pairs (2, rows) of the items from ``low`` to ``high``, and (rows,) True where they are linked."""


class Together:
    """All links are told from the same pairs. An item is a link or a pair that is none; both come evenly mixed."""

    width = 1

    def __init__(self, positive: np.ndarray, negative: np.ndarray) -> None:
        place = np.concatenate([np.linspace(0, 1, len(positive)), np.linspace(0, 1, len(negative))])
        order = place.argsort(kind="stable")
        self.pairs = np.concatenate([positive, negative])[order]
        self.linked = order < len(positive)

    def __len__(self) -> int:
        return len(self.pairs)

    def rows(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[low:high].T, self.linked[low:high]


class Ranked:
    """Each link is told from pairs of its own: an item is a link, then its source with each of the other targets."""

    def __init__(self, positive: np.ndarray, targets: np.ndarray) -> None:
        self.positive, self.targets, self.width = positive, targets, 1 + targets.shape[1]

    def __len__(self) -> int:
        return len(self.positive)

    def rows(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        source, target = self.positive[low:high].T
        targets = np.column_stack([target, self.targets[low:high]])
        linked = np.zeros(targets.shape, dtype=bool)
        linked[:, 0] = True
        return np.stack([source.repeat(self.width), targets.ravel()]), linked.ravel()


class EvaluationLinks(Dataset[GraphBatch]):
    """Blocks of questions about one graph; a list with the number of one block gives its batch.

    Args:
        batch: the graph that a model reads.
        questions: what it is asked.
        block: items in a block.
        readings: what the model will ask of each batch.
    """

    def __init__(self, batch: GraphBatch, questions: Questions, block: int, readings: Iterable[Reading]) -> None:
        self.batch, self.questions, self.block, self.readings = batch, questions, block, readings
        self.prepared = lru_cache(maxsize=1)(self._prepared)

    def __len__(self) -> int:
        return -(-len(self.questions) // self.block)

    @property
    def sizes(self) -> np.ndarray:
        """Ones, a number a block."""
        return np.ones(len(self), dtype=np.int64)

    def _prepared(self, readings: frozenset[Reading]) -> GraphBatch:
        """All of a batch but its questions, which is the same for every block."""
        return prepare_all(replace(self.batch, pairs={}, wide={}).finish(), readings)

    def __getitems__(self, items: list[int]) -> GraphBatch:
        (number,) = items
        pairs, linked = self.questions.rows(number * self.block, (number + 1) * self.block)
        batch = copy.copy(self.prepared(frozenset(self.readings)))
        batch.links = torch.from_numpy(pairs.astype(np.int64))
        batch.y = torch.from_numpy(linked.astype(np.float32))[:, None]
        return batch


class LinkDataModule(GraphDataModule):
    """Link prediction on one graph, whose edges are those that a model may read.

    `build` makes a `Graphs` of one graph whose edges go both ways, and among its ``splits`` are pairs of nodes: the
    links to learn and to find under ``train``, ``valid`` and ``test`` (K, 2); what the latter two are told from either
    under ``valid_negatives`` and ``test_negatives`` (Q, 2), the same pairs for all links, or under ``valid_targets``
    and ``test_targets`` (K, Q), other targets for the source of each. Where edges have features, ``valid_edge_attr``
    has those of the links in ``valid``.

    Args:
        batch_size: links in a training batch, on each process; each comes with as many pairs that are none.
        eval_batch_size: pairs in an evaluation batch, at most: the graph is read once for each batch.
        valid_as_input: in the test, let the model read the links of ``valid`` too.
        negatives: what a link is told from in training.
    """

    def __init__(
        self,
        name: str,
        root: str,
        batch_size: int,
        eval_batch_size: int | None,
        workers: int,
        seed: int,
        valid_as_input: bool = False,
        negatives: type[Negatives] = AnyPair,
    ) -> None:
        super().__init__(name, root, batch_size, eval_batch_size or LARGEST, workers, seed)
        self.valid_as_input, self.negatives = valid_as_input, negatives

    @abstractmethod
    def build(self) -> Graphs:
        """Read the source."""

    def open(self, encodings: Sequence[Encoding]) -> None:
        for encoding in encodings:
            if encoding.key() is not None:
                raise UserError(
                    f"{type(encoding).__name__} is computed once from all edges, those to be predicted among them: "
                    "choose encoding=none or degree for links"
                )
        super().open([])

    @cached_property
    def graph(self) -> InputGraph:
        """What a model reads in training, before the links of a batch are taken out."""
        return InputGraph(gather(self._opened(), [0]))

    @cached_property
    def absent(self) -> Negatives:
        """Draws the pairs that links are told from in training."""
        edges = self.graph.batch.edge_index.numpy().T
        once = edges[edges[:, 0] <= edges[:, 1]]  # `build` makes edges that go both ways
        return self.negatives(np.concatenate([once, self._opened().splits["train"]]), self.graph.batch.num_nodes)

    @cached_property
    def test_graph(self) -> GraphBatch:
        """What a model reads in the test."""
        graphs = self._opened()
        if not self.valid_as_input:
            return self.graph.batch
        edge_index = np.concatenate([graphs.edge_index, both_ways(graphs.splits["valid"])], axis=1)
        edges = dict(graphs.edges)
        if "edge_attr" in edges:
            added = np.repeat(graphs.splits["valid_edge_attr"], 2, axis=0)
            edges["edge_attr"] = np.concatenate([edges["edge_attr"], added])
        ptr = np.array([0, edge_index.shape[1]])
        return gather(replace(graphs, edge_index=edge_index, edge_ptr=ptr, edges=edges).sort_edges(), [0])

    def questions(self, split: str) -> Questions:
        """What is asked in an evaluation."""
        splits = self._opened().splits
        if f"{split}_targets" in splits:
            return Ranked(splits[split], splits[f"{split}_targets"])
        return Together(splits[split], splits[f"{split}_negatives"])

    def dataset(self, split: str) -> Any:
        if split == "train":
            links = self._opened().splits["train"]
            return TrainingLinks(self.graph, links, self.absent, self.seed, self.readings)
        questions = self.questions(split)
        world = 1 if self.trainer is None else self.trainer.world_size
        block = min(self.eval_batch_size // questions.width, -(-len(questions) // world))
        graph = self.test_graph if split == "test" else self.graph.batch
        return EvaluationLinks(graph, questions, max(block, 1), self.readings)

    def batches(self, split: str, **place: int) -> Batches:
        sizes = self.dataset(split).sizes
        if split == "train":
            return LinkBatches(sizes, self.batch_size, shuffle=True, seed=self.seed, **place)
        return Batches(sizes, 1, shuffle=False, seed=self.seed, **place)

    def targets(self, split: str) -> Tensor:
        if split == "train":
            return torch.tensor([[1.0], [0.0]]).repeat(len(self._opened().splits["train"]), 1)
        questions = self.questions(split)
        return torch.from_numpy(questions.rows(0, len(questions))[1].astype(np.float32))[:, None]
