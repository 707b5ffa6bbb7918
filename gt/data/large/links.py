"""Link prediction on one graph: which pairs of nodes are linked, beyond the known edges?

The input must not leak the answers. In training, the model sees the graph without any copy of the links of the batch,
in either direction; in evaluation, it sees only training links. Encodings precomputed on the whole graph would leak
training links, and are refused.
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
from gt.data.large.link_questions import EvaluationLinks, Questions, RankedTargets, SharedNegatives, UnlabelledPairs
from gt.data.large.link_training import InputGraph, LinkBatches, TrainingLinks
from gt.data.large.negatives import AnyPair, Negatives
from gt.data.large.nodes import SingleGraph
from gt.data.large.sampling import Full, Neighbours, Sampler
from gt.data.source import Source
from gt.encodings import Encoding
from gt.errors import UserError
from gt.ranges import at_least
from gt.schema import Schema

MAX_EVAL_PAIRS = 1 << 27  # default pairs in an evaluation batch: 3 GiB of node indices, labels and scores

NO_PAIRS = (
    "name the links to predict: a split of the run's own data, --split valid or test, or a table of pairs, "
    "--pairs FILE, on the training graph or, with data=csv_links, on another graph"
)


def add_reverses(pairs: np.ndarray) -> np.ndarray:
    """(K, 2) pairs to (2, 2K) edges: each pair, followed by its reverse."""
    return np.stack([pairs.ravel(), pairs[:, ::-1].ravel()])


class LinkSource(Source):
    """One graph with the edges that a model may read, and the links to predict.

    `build` returns `Graphs` of one graph whose edges go both ways. Its ``splits`` hold pairs of nodes: the links under
    ``train``, ``valid`` and ``test`` (K, 2), and the negatives of the latter two either under ``valid_negatives`` and
    ``test_negatives`` (Q, 2), shared by all links, or under ``valid_targets`` and ``test_targets`` (K, Q), negative
    targets for the source of each link. If edges have features, ``valid_edge_attr`` has those of the links in
    ``valid``.

    Attributes:
        negatives: sampler of the negatives in training.
        late_links: whether a model may read the links of ``valid`` in the test.
        grows: whether `build_known` reads another graph with all its links, on which pairs may be predicted.
        query_pairs: (K, 2) in new data, the pairs to predict with a trained model.
    """

    negatives: type[Negatives] = AnyPair
    late_links: bool = True
    grows: bool = False
    query_pairs: np.ndarray | None = None

    def ids(self) -> pd.Index | None:
        """The names of the nodes as text, in the order of the store; None if nodes have only indices."""
        return None


@dataclass(kw_only=True, eq=False, repr=False)
class LinkData(Stored, Sized):
    """Link prediction on one graph.

    Args:
        batch_size: links in a training batch of each process, to which as many negatives are added.
        eval_batch_size: maximum number of pairs in an evaluation batch; the graph is read once per batch.
        valid_as_input: also let the model read the links of ``valid`` in the test.
        sampler: samples around the links of a training batch, a `Neighbours` (whose ``roots`` are those links); None or
            `Full` for the whole graph.
        chunk: nodes, edges and pairs processed at a time in evaluation on the whole graph; memory grows with it.

    Raises:
        UserError: another sampler, or ``valid_as_input`` although the source forbids it.
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
                f"data/batching=links: {self.source} has no links to predict: use data=csv_links for your own graph"
            )
        if not isinstance(self.sampler, Neighbours | Full | None):
            raise UserError(
                f"{type(self.sampler).__name__} does not sample around links: choose data/sampler=neighbours or full"
            )
        if self.valid_as_input and not self.source.late_links:
            raise UserError(
                f"{self.source.name} does not allow validation links as test input: set data.valid_as_input=false"
            )
        at_least(1, self.chunk, "chunk")

    def open(self, encodings: Sequence[Encoding], model_schema: Schema | None = None) -> None:
        pairs = self.source.query_pairs
        if model_schema is not None and pairs is None and not self.source.grows:
            raise UserError(NO_PAIRS)
        for encoding in encodings:
            if encoding.key() is not None:
                raise UserError(
                    f"{type(encoding).__name__} is precomputed from all edges, including those to predict: "
                    "choose encoding=none or degree for links"
                )
        super().open([], model_schema)
        if model_schema is not None:
            self.ask(np.empty((0, 2), np.int64) if pairs is None else pairs)

    def ask(self, pairs: np.ndarray) -> None:
        """Set the split `ALL` to (K, 2) pairs of nodes of the graph."""
        self.stored = replace(self.graphs, splits={**self.graphs.splits, ALL: pairs})

    def check_split(self, split: str) -> None:
        if split == ALL and not self.has(split):
            raise UserError(NO_PAIRS)
        super().check_split(split)

    @cached_property
    def whole(self) -> SingleGraph:
        """The graph with the training links."""
        return SingleGraph(self.graphs)

    @cached_property
    def graph(self) -> InputGraph:
        """The input graph in training, before the links of a batch are removed."""
        return InputGraph(self.whole.batch(None))

    @cached_property
    def negative_sampler(self) -> Negatives:
        """The sampler of the negatives in training."""
        edges = self.graph.batch.edge_index.numpy().T
        one_way = edges[edges[:, 0] <= edges[:, 1]]  # as edges go both ways
        return self.source.negatives(np.concatenate([one_way, self.graphs.splits["train"]]), self.graph.batch.num_nodes)

    @cached_property
    def late_graph(self) -> SingleGraph:
        """The graph with the training and validation links."""
        graphs = self.graphs
        edge_index = np.concatenate([graphs.edge_index, add_reverses(graphs.splits["valid"])], axis=1)
        edges = dict(graphs.edges)
        if "edge_attr" in edges:
            added = np.repeat(graphs.splits["valid_edge_attr"], 2, axis=0)
            edges["edge_attr"] = np.concatenate([edges["edge_attr"], added])
        ptr = np.array([0, edge_index.shape[1]])
        return SingleGraph(replace(graphs, edge_index=edge_index, edge_ptr=ptr, edges=edges).sort_edges())

    def questions(self, split: str) -> Questions:
        """The links and negatives of an evaluation."""
        splits = self.graphs.splits
        if split == ALL:
            return UnlabelledPairs(splits[ALL])
        if f"{split}_targets" in splits:
            return RankedTargets(splits[split], splits[f"{split}_targets"])
        return SharedNegatives(splits[split], splits[f"{split}_negatives"])

    def dataset(self, split: str) -> TrainingLinks | EvaluationLinks:
        if split == "train":
            links = self.graphs.splits["train"]
            sampler = self.sampler if isinstance(self.sampler, Neighbours) else None
            return TrainingLinks(self.graph, links, self.negative_sampler, sampler, self.seed)
        questions = self.questions(split)
        block = min((self.eval_batch_size or MAX_EVAL_PAIRS) // questions.width, -(-len(questions) // self.world))
        whole = self.late_graph if split == "test" and self.valid_as_input else self.whole
        return EvaluationLinks(whole.batch(self.chunk), questions, max(block, 1))

    def workers_for(self, split: str) -> int:
        """Evaluation uses the graph in memory: a worker would have to send a copy."""
        return self.workers if split == "train" else 0

    def batches(self, split: str, **state: int) -> Batches:
        sizes = self.dataset(split).sizes
        if split == "train":
            return LinkBatches(sizes, self.batch_size, shuffle=True, seed=self.seed, **state)
        return Batches(sizes, 1, shuffle=False, seed=self.seed, **state)

    def targets(self, split: str) -> Tensor:
        if split == "train":
            return torch.tensor([[1.0], [0.0]]).repeat(len(self.graphs.splits["train"]), 1)
        questions = self.questions(split)
        return torch.from_numpy(questions.rows(0, len(questions))[1].astype(np.float32))[:, None]
