"""Evaluation pairs for link prediction: the links of a split and their negatives."""

import copy
from typing import Protocol

import numpy as np
import torch

from gt.data.batch_sampler import Request
from gt.data.batching import BatchDataset
from gt.graph import GraphBatch


class Questions(Protocol):
    """The links and negatives of an evaluation, as items of ``width`` rows each."""

    width: int

    def __len__(self) -> int: ...

    def rows(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """The pairs (2, rows) of items ``low`` to ``high``, and (rows,) whether they are linked (NaN if unknown)."""


class SharedNegatives:
    """All links share the same negatives. An item is a link or a negative; both are evenly interleaved."""

    width = 1

    def __init__(self, positive: np.ndarray, negative: np.ndarray) -> None:
        position = np.concatenate([np.linspace(0, 1, len(positive)), np.linspace(0, 1, len(negative))])
        order = position.argsort(kind="stable")
        self.pairs = np.concatenate([positive, negative])[order]
        self.linked = order < len(positive)

    def __len__(self) -> int:
        return len(self.pairs)

    def rows(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[low:high].T, self.linked[low:high]


class RankedTargets:
    """Each link has its own negatives: an item is a link, then its source with each of the negative targets."""

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


class UnlabelledPairs:
    """Pairs (K, 2) without labels, for prediction."""

    width = 1

    def __init__(self, pairs: np.ndarray) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def rows(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[low:high].T, np.full(len(self.pairs[low:high]), np.nan)


class EvaluationLinks(BatchDataset):
    """Blocks of evaluation pairs on one graph; a batch is one block.

    Args:
        graph: the input graph, a batch of one.
        questions: the pairs to score.
        block: items in a block.
    """

    def __init__(self, graph: GraphBatch, questions: Questions, block: int) -> None:
        self.graph, self.questions, self.block = graph, questions, block

    def __len__(self) -> int:
        return -(-len(self.questions) // self.block)

    def batch(self, request: Request) -> GraphBatch:
        [index] = request.samples
        pairs, linked = self.questions.rows(index * self.block, (index + 1) * self.block)
        batch = copy.copy(self.graph)
        batch.links = torch.from_numpy(pairs.astype(np.int64))
        batch.y = torch.from_numpy(linked.astype(np.float32))[:, None]
        return batch
