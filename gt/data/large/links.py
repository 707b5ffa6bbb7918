"""Link prediction on one graph: which pairs of nodes are linked, beyond the links that the graph shows?

No answer is to be read off the question. In training the model sees the graph without the links of the batch, in either
direction, however often they occur; in evaluation it sees the links of the training only. Encodings that are computed
once from the whole graph would know the training links that they are asked for, and are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gt.data.batch_sampler import Batches
from gt.data.datamodule import ALL, Sized
from gt.data.graphs import Stored
from gt.data.large.link_questions import Asked, EvaluationLinks, Questions, Ranked, Together
from gt.data.large.link_training import InputGraph, LinkBatches, TrainingLinks
from gt.data.large.negatives import AnyPair, Negatives
from gt.data.large.nodes import Whole
from gt.data.large.sampling import Full, Neighbours, Sampler
from gt.data.source import Source
from gt.encodings import Encoding
from gt.errors import UserError
from gt.ranges import at_least
from gt.schema import Schema

LARGEST = 1 << 27  # pairs in an evaluation batch unless told otherwise: 3 GiB of numbers of nodes, answers and ratings

UNASKED = (
    "links are asked for by a split of the run's own data, --split valid or test, or by a table of pairs, "
    "--pairs FILE, of the graph of the training or, of data=csv_links, of another"
)


def both_ways(pairs: np.ndarray) -> np.ndarray:
    """(K, 2) pairs to the (2, 2K) edges between them: each pair, then its inverse."""
    return np.stack([pairs.ravel(), pairs[:, ::-1].ravel()])


class LinkSource(Source):
    """One graph, whose edges are those that a model may read, and the links that it is asked for.

    `build` makes a `Graphs` of one graph whose edges go both ways, and among its ``splits`` are pairs of nodes: the
    links to learn and to find under ``train``, ``valid`` and ``test`` (K, 2); what the latter two are told from either
    under ``valid_negatives`` and ``test_negatives`` (Q, 2), the same pairs for all links, or under ``valid_targets``
    and ``test_targets`` (K, Q), other targets for the source of each. Where edges have features, ``valid_edge_attr``
    has those of the links in ``valid``.

    Attributes:
        negatives: what a link is told from in training.
        late_links: whether a model may read the links of ``valid`` in the test.
        grows: whether `build_known` makes another graph, all of whose links are read, of which pairs may be asked.
        asked: (K, 2) of new data, the pairs of which a trained model is asked whether they are linked.
    """

    negatives: type[Negatives] = AnyPair
    late_links: bool = True
    grows: bool = False
    asked: np.ndarray | None = None

    def ids(self) -> pd.Index | None:
        """What the source calls its nodes, as text, in the order of the store; None where they have numbers alone."""
        return None


@dataclass(kw_only=True, eq=False, repr=False)
class LinkData(Stored, Sized):
    """Link prediction on one graph.

    Args:
        batch_size: links in a training batch, on each process; each comes with as many pairs that are none.
        eval_batch_size: pairs in an evaluation batch, at most: the graph is read once for each batch.
        valid_as_input: in the test, let the model read the links of ``valid`` too.
        sampler: what training reads around the links of a batch, a `Neighbours` (whose ``roots`` are those links); None
            or `Full`: the whole graph.
        chunk: nodes, edges and pairs that evaluation, which reads the whole graph, works on at a time; memory grows
            with it.

    Raises:
        UserError: another sampler; ``valid_as_input`` where the source does not allow it.
    """

    source: LinkSource = field(kw_only=False)
    batch_size: int = 65536
    valid_as_input: bool = False
    sampler: Sampler | None = None
    chunk: int = 1 << 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.source, LinkSource):
            raise UserError(
                f"data/batching=links: {self.source} names no links to find: your own graph is read by data=csv_links"
            )
        if not isinstance(self.sampler, Neighbours | Full | None):
            raise UserError(
                f"{type(self.sampler).__name__} does not sample around links: choose data/sampler=neighbours or full"
            )
        if self.valid_as_input and not self.source.late_links:
            raise UserError(
                f"{self.source.name} allows no validation links as input in the test: set data.valid_as_input=false"
            )
        at_least(1, self.chunk, "chunk")

    def open(self, encodings: Sequence[Encoding], known: Schema | None = None) -> None:
        asked = self.source.asked
        if known is not None and asked is None and not self.source.grows:
            raise UserError(UNASKED)
        for encoding in encodings:
            if encoding.key() is not None:
                raise UserError(
                    f"{type(encoding).__name__} is computed once from all edges, those to be predicted among them: "
                    "choose encoding=none or degree for links"
                )
        super().open([], known)
        if known is not None:
            self.ask(np.empty((0, 2), np.int64) if asked is None else asked)

    def ask(self, pairs: np.ndarray) -> None:
        """Let (K, 2) pairs of nodes of the graph be the split `ALL`."""
        self.stored = replace(self.graphs, splits={**self.graphs.splits, ALL: pairs})

    def check_split(self, split: str) -> None:
        if split == ALL and not self.has(split):
            raise UserError(UNASKED)
        super().check_split(split)

    @cached_property
    def whole(self) -> Whole:
        """The graph of the training links."""
        return Whole(self.graphs)

    @cached_property
    def graph(self) -> InputGraph:
        """What a model reads in training, before the links of a batch are taken out."""
        return InputGraph(self.whole.batch(None))

    @cached_property
    def absent(self) -> Negatives:
        """Draws the pairs that links are told from in training."""
        edges = self.graph.batch.edge_index.numpy().T
        once = edges[edges[:, 0] <= edges[:, 1]]  # `build` makes edges that go both ways
        return self.source.negatives(np.concatenate([once, self.graphs.splits["train"]]), self.graph.batch.num_nodes)

    @cached_property
    def late(self) -> Whole:
        """The graph of the training and the validation links."""
        graphs = self.graphs
        edge_index = np.concatenate([graphs.edge_index, both_ways(graphs.splits["valid"])], axis=1)
        edges = dict(graphs.edges)
        if "edge_attr" in edges:
            added = np.repeat(graphs.splits["valid_edge_attr"], 2, axis=0)
            edges["edge_attr"] = np.concatenate([edges["edge_attr"], added])
        ptr = np.array([0, edge_index.shape[1]])
        return Whole(replace(graphs, edge_index=edge_index, edge_ptr=ptr, edges=edges).sort_edges())

    def questions(self, split: str) -> Questions:
        """What is asked in an evaluation."""
        splits = self.graphs.splits
        if split == ALL:
            return Asked(splits[ALL])
        if f"{split}_targets" in splits:
            return Ranked(splits[split], splits[f"{split}_targets"])
        return Together(splits[split], splits[f"{split}_negatives"])

    def dataset(self, split: str) -> TrainingLinks | EvaluationLinks:
        if split == "train":
            links = self.graphs.splits["train"]
            sampler = self.sampler if isinstance(self.sampler, Neighbours) else None
            return TrainingLinks(self.graph, links, self.absent, sampler, self.seed)
        questions = self.questions(split)
        block = min((self.eval_batch_size or LARGEST) // questions.width, -(-len(questions) // self.world))
        whole = self.late if split == "test" and self.valid_as_input else self.whole
        return EvaluationLinks(whole.batch(self.chunk), questions, max(block, 1))

    def workers_for(self, split: str) -> int:
        """An evaluation reads the graph that there is: to hand it over from another process would copy it."""
        return self.workers if split == "train" else 0

    def batches(self, split: str, **place: int) -> Batches:
        sizes = self.dataset(split).sizes
        if split == "train":
            return LinkBatches(sizes, self.batch_size, shuffle=True, seed=self.seed, **place)
        return Batches(sizes, 1, shuffle=False, seed=self.seed, **place)

    def targets(self, split: str) -> Tensor:
        if split == "train":
            return torch.tensor([[1.0], [0.0]]).repeat(len(self.graphs.splits["train"]), 1)
        questions = self.questions(split)
        return torch.from_numpy(questions.rows(0, len(questions))[1].astype(np.float32))[:, None]
