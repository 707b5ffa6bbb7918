"""Link prediction on one graph: training batches, evaluation questions, and no leakage of held-out links."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gt.attention import Reading
from gt.data.batch_sampler import Request
from gt.data.large.link_questions import RankedTargets, SharedNegatives
from gt.data.large.link_training import InputGraph, LinkBatches
from gt.data.large.links import LinkData, LinkSource, add_reverses
from gt.data.large.negatives import AnotherTarget, AnyPair
from gt.data.large.sampling import Clusters, Full, Neighbours, Partition, Sampler
from gt.data.packed import Graphs
from gt.encodings import Degree, RandomWalk
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference.whole_graph import predict
from gt.layers import GINE, Attention, ParallelBlock
from gt.masks import Hops
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.baseline import baseline
from tests.data.modules import over

NODES = 12
EDGES = np.array([[0, 1], [1, 2], [2, 1], [2, 3], [4, 4], [5, 0], [5, 0], [6, 7], [7, 8], [9, 10]])  # not node 11
TRAIN = np.array([[0, 1], [2, 1], [3, 2], [4, 4], [0, 5], [8, 3]])  # the last is not an edge
VALID, TEST = np.array([[0, 2], [1, 3], [9, 11]]), np.array([[8, 9], [3, 11]])
NEGATIVES = np.array([[0, 11], [1, 11], [2, 11], [3, 9], [4, 9]])


class Links(LinkSource):
    """A small graph with self-loops, duplicate links and an isolated node."""

    name = "links"

    def __init__(self, root: Path, edges: np.ndarray = EDGES, ranked: bool = False) -> None:
        self.root, self.edges, self.ranked = root, edges, ranked
        self.negatives = AnotherTarget if ranked else AnyPair

    def key(self) -> dict[str, Any]:
        return {"shown": self.edges.tolist(), "ranked": self.ranked}

    def build(self) -> Graphs:
        features = np.repeat(self.edges.sum(1), 2)[:, None] + [0.25, 0.5]  # equal in both directions
        splits = {"train": TRAIN, "valid": VALID, "test": TEST}
        for part in ("valid", "test"):
            if self.ranked:
                splits[f"{part}_targets"] = np.arange(len(splits[part]) * 4).reshape(-1, 4) % NODES
            else:
                splits[f"{part}_negatives"] = NEGATIVES
        return Graphs(
            node_ptr=np.array([0, NODES]),
            edge_ptr=np.array([0, 2 * len(self.edges)]),
            edge_index=add_reverses(self.edges),
            nodes={"x": np.arange(NODES)[:, None]},
            edges={"edge_attr": features.astype(np.float32)},
            splits={**splits, "valid_edge_attr": np.full((len(VALID), 2), -1, dtype=np.float32)},
            schema=Schema((NODES,), edge_floats=2, level="link", kind="binary", max_nodes=NODES),
        ).sort_edges()


@pytest.fixture
def data(tmp_path: Path) -> LinkData:
    return open_data(link_data(tmp_path))


def link_data(root: Path, *edges: np.ndarray, **options: Any) -> LinkData:
    data: LinkData = over(LinkData, Links, root, *edges, **{"batch_size": 2, "seed": 5} | options)
    return data


def open_data(data: LinkData) -> LinkData:
    data.open([])
    return data


def edges_of(batch: GraphBatch) -> list[tuple[int, ...]]:
    """Each edge with its features; asserts the order by target and source on which all layers rely."""
    assert batch.edge_attr is not None
    source, target = batch.edge_index.tolist()
    assert (order := list(zip(target, source, strict=True))) == sorted(order)
    return sorted((s, t, *row) for s, t, row in zip(source, target, batch.edge_attr.tolist(), strict=True))


def pairs(links: Tensor | None) -> list[tuple[int, ...]]:
    assert links is not None
    return [tuple(pair) for pair in links.T.tolist()]


def network(seed: int = 0) -> GraphTransformer:
    torch.manual_seed(seed)
    schema = Schema((NODES,), edge_floats=2, level="link", kind="binary", max_nodes=NODES)

    def block(width: int) -> ParallelBlock:
        return ParallelBlock(width, local=GINE, attention=lambda d: Attention(d, heads=2))

    return GraphTransformer(schema, width=16, depth=2, block=block, mask=Hops(2)).eval()


def epoch_batches(data: LinkData, number: int = 0) -> list[GraphBatch]:
    loader = data.loader("train")
    loader.sampler.set_epoch(number)
    return list(loader)


@pytest.mark.parametrize("links", [[(0, 1)], [(1, 0), (2, 3)], [(5, 0)], [(4, 4)], [(11, 3)], EDGES.tolist(), []])
def test_input_graph_without_given_edges(data: LinkData, links: list[tuple[int, int]]) -> None:
    whole = data.graph.batch
    removed = {frozenset(pair) for pair in links}
    expected = [edge for edge in edges_of(whole) if frozenset(edge[:2]) not in removed]
    graph = InputGraph(whole)
    rest = graph.without(graph.between(np.array(links, dtype=np.int64).reshape(-1, 2).T))
    assert edges_of(rest) == expected
    assert (rest.num_nodes, rest.max_nodes) == (NODES, NODES)
    assert len(edges_of(whole)) == 2 * len(EDGES)


def test_training_batch_hides_its_links(data: LinkData) -> None:
    batches = epoch_batches(data)
    assert sorted(pair for batch in batches for pair in pairs(batch.links)[:2]) == sorted(map(tuple, TRAIN.tolist()))
    linked = {frozenset(pair) for pair in [*EDGES.tolist(), *TRAIN.tolist()]}
    for batch in batches:
        assert batch.y is not None
        assert batch.y.flatten().tolist() == [1, 1, 0, 0]
        positive, negative = pairs(batch.links)[:2], pairs(batch.links)[2:]
        removed = {frozenset(pair) for pair in positive}
        assert edges_of(batch) == [edge for edge in edges_of(data.graph.batch) if frozenset(edge[:2]) not in removed]
        for pair in negative:
            assert pair[0] != pair[1]
            assert frozenset(pair) not in linked


def test_ranked_negatives_keep_the_source(tmp_path: Path) -> None:
    for batch in epoch_batches(open_data(link_data(tmp_path, ranked=True))):
        assert batch.links is not None
        assert batch.links[0, :2].tolist() == batch.links[0, 2:].tolist()


@pytest.mark.parametrize("fanout", [(1,), (2, 1), (None, None), (3, None, 2)])
@pytest.mark.parametrize("number", range(3))
def test_neighbour_sample_around_links(tmp_path: Path, fanout: tuple[int | None, ...], number: int) -> None:
    """Each node's feature is its index, which identifies it in a sample."""
    whole, data = open_data(link_data(tmp_path)), open_data(link_data(tmp_path, sampler=Neighbours(fanout)))
    for full, sample in zip(epoch_batches(whole, number), epoch_batches(data, number), strict=True):
        assert sample.x is not None
        nodes = sample.x[:, 0]
        assert len(nodes.unique()) == len(nodes) == sample.num_nodes == sample.max_nodes
        assert [tuple(nodes[list(pair)].tolist()) for pair in pairs(sample.links)] == pairs(full.links)
        assert sample.y is not None
        assert full.y is not None
        assert sample.y.equal(full.y)
        drawn = [(int(nodes[s]), int(nodes[t]), *row) for s, t, *row in map(list, edges_of(sample))]
        remaining = edges_of(full)
        assert all(drawn.count(edge) <= remaining.count(edge) for edge in drawn)
        roots = {node for pair in pairs(full.links) for node in pair}
        in_degree = {node: sum(edge[1] == node for edge in remaining) for node in roots}
        expected = [in_degree[node] if fanout[0] is None else min(in_degree[node], fanout[0]) for node in sorted(roots)]
        assert [sum(edge[1] == node for edge in drawn) for node in sorted(roots)] == expected
        if fanout == (None, None):
            inner = {edge[0] for edge in remaining if edge[1] in roots} | roots
            assert sorted(drawn) == sorted(edge for edge in remaining if edge[1] in inner)


@pytest.mark.parametrize("sampler", [Partition(2), Clusters(2, 1)])
def test_samplers_without_roots_are_rejected(tmp_path: Path, sampler: Sampler) -> None:
    with pytest.raises(UserError, match=f"{type(sampler).__name__} does not sample around links"):
        link_data(tmp_path, sampler=sampler)


@pytest.mark.parametrize("sampler", [None, Full(), Neighbours((2, 2)), Neighbours((1,))])
def test_input_does_not_depend_on_the_training_link(tmp_path: Path, sampler: Sampler | None) -> None:
    """The model's input for a training link is the same whether the graph has that link never, once or repeatedly."""
    without_link = EDGES[~(np.sort(EDGES, 1) == [1, 2]).all(1)]
    with_duplicates = np.concatenate([EDGES, [[1, 2], [2, 1]]])
    inputs = []
    for edges in (EDGES, without_link, with_duplicates):
        data = open_data(link_data(tmp_path, edges, sampler=sampler))
        batch = data.dataset("train")[Request((TRAIN.tolist().index([2, 1]),), draw=(0,))]
        assert batch.x is not None
        inputs.append((edges_of(batch), batch.x.tolist(), network()(batch)))
    for variant in inputs[1:]:
        assert variant[:2] == inputs[0][:2]
        assert variant[2].equal(inputs[0][2])
    whole = open_data(link_data(tmp_path, without_link)).graph.batch
    assert edges_of(whole) != edges_of(open_data(link_data(tmp_path)).graph.batch)  # the graphs themselves differ


def test_evaluation_graph_excludes_its_links(tmp_path: Path) -> None:
    for valid_as_input in (False, True):
        data = open_data(link_data(tmp_path, valid_as_input=valid_as_input))
        for split, links in (("valid", VALID), ("test", TEST)):
            (batch,) = data.loader(split)
            visible = {frozenset(edge[:2]) for edge in edges_of(batch)}
            assert not visible & {frozenset(pair) for pair in links.tolist()}


def test_validation_links_as_input_only_for_test(tmp_path: Path) -> None:
    data = open_data(link_data(tmp_path, valid_as_input=True))
    added = [(a, b, -1.0, -1.0) for a, b in [*VALID.tolist(), *VALID[:, ::-1].tolist()]]
    (test,) = data.loader("test")
    (valid,) = data.loader("valid")
    assert edges_of(test) == sorted([*edges_of(data.graph.batch), *added])
    assert edges_of(valid) == edges_of(data.graph.batch)
    assert not {frozenset(p) for p in VALID.tolist()} & {
        frozenset(e[:2]) for b in epoch_batches(data) for e in edges_of(b)
    }


def test_draws_are_unique_over_ranks_and_epochs(tmp_path: Path) -> None:
    draws, numbers = [], []
    for rank in range(2):
        sampler = LinkBatches(np.ones(12), 2, shuffle=True, rank=rank, world=2)
        for number in range(3):
            sampler.set_epoch(number)
            batches = list(sampler)
            assert len(batches) == len(sampler) == 3
            draws += [batch.draw for batch in batches]
            numbers += [(number, link) for batch in batches for link in batch.samples]
    assert len(set(draws)) == len(draws)
    assert sorted(numbers) == [(number, link) for number in range(3) for link in range(12)]


def test_resumed_epoch_draws_the_same(data: LinkData) -> None:
    whole = list(LinkBatches(np.ones(12), 2, shuffle=True, seed=1, epoch=4))
    resumed = LinkBatches(np.ones(12), 2, shuffle=True, seed=1, epoch=4, first=2)
    assert list(resumed) == whole[2:]
    resumed.set_epoch(5)
    assert len(list(resumed)) == 6
    first, repeated, next_epoch = (epoch_batches(data, number) for number in (0, 0, 1))
    assert [pairs(b.links) for b in first] == [pairs(b.links) for b in repeated]
    assert {pairs(b.links)[2] for b in first} != {pairs(b.links)[2] for b in next_epoch}


def test_questions_with_shared_negatives() -> None:
    positive, negative = np.arange(20).reshape(10, 2), np.arange(100, 160).reshape(30, 2)
    questions = SharedNegatives(positive, negative)
    endpoints, linked = questions.rows(0, len(questions))
    assert endpoints.T[linked].tolist() == positive.tolist()
    assert endpoints.T[~linked].tolist() == negative.tolist()
    assert questions.rows(0, 20)[1].sum() == questions.rows(20, 40)[1].sum() == 5  # each part has its share of links
    for empty in (SharedNegatives(positive[:0], negative), SharedNegatives(positive, negative[:0])):
        assert len(empty) == len(empty.rows(0, 99)[1]) in (10, 30)


def test_questions_with_ranked_targets() -> None:
    questions = RankedTargets(np.array([[3, 1], [5, 2]], dtype=np.uint8), np.array([[7, 300], [9, 8]], dtype=np.int16))
    endpoints, linked = questions.rows(0, 2)
    assert endpoints.T.tolist() == [[3, 1], [3, 7], [3, 300], [5, 2], [5, 9], [5, 8]]
    assert linked.tolist() == [True, False, False] * 2
    assert questions.rows(1, 2)[0].T.tolist() == endpoints.T.tolist()[3:]


def trainer_of(rank: int = 0, world: int = 1, device: str = "cpu") -> Any:
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(global_rank=rank, world_size=world, strategy=strategy)


@pytest.mark.parametrize(("device", "pinned"), [(None, False), ("cpu", False), ("cuda", True)])
def test_memory_is_pinned_only_on_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str | None, pinned: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as with trainer=cpu on a machine with a GPU
    data = open_data(link_data(tmp_path))
    data.trainer = None if device is None else trainer_of(device=device)
    assert data.loader("valid").pin_memory is pinned


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize(("world", "largest"), [(1, None), (2, None), (3, None), (2, 3), (1, 1), (7, None)])
def test_ranks_cover_each_question_once(tmp_path: Path, ranked: bool, world: int, largest: int | None) -> None:
    answered: list[Any] = []
    for rank in range(world):
        data = open_data(link_data(tmp_path, ranked=ranked))
        data.eval_batch_size = largest or data.eval_batch_size
        data.trainer = trainer_of(rank, world)
        for batch in data.loader("valid"):
            assert batch.links is not None
            if batch.y is None:  # a rank without questions
                assert world == 7
                continue
            assert len(batch.y) == batch.links.shape[1] <= max(largest or 99, 5 if ranked else 1)
            assert not ranked or (batch.y[::5].all() and batch.y.sum() == len(batch.y) / 5)  # groups are not split
            answered += zip(pairs(batch.links), batch.y.flatten().tolist(), strict=True)
    expected, linked = data.questions("valid").rows(0, len(data.questions("valid")))
    assert sorted(answered) == sorted(zip(map(tuple, expected.T.tolist()), linked.astype(float), strict=True))


def test_masks_are_precomputed_and_graph_is_shared(data: LinkData) -> None:
    readings: set[Reading] = network().readings()
    data.readings, data.eval_batch_size = lambda: readings, 3
    (mask, _), *_ = readings
    for batch in epoch_batches(data):
        assert mask in batch.memo
    first, second, _ = data.loader("valid")
    assert first.edge_index is second.edge_index is data.graph.batch.edge_index
    assert first.links is not second.links
    assert not data.graph.batch.memo


@pytest.mark.parametrize("ranked", [False, True])
def test_chunked_evaluation_is_exact(tmp_path: Path, ranked: bool) -> None:
    predictions = []
    for chunk in (3, 10, 1 << 20):
        data = open_data(link_data(tmp_path, ranked=ranked, chunk=chunk))
        (batch,) = data.loader("test")
        predictions.append(predict(network(), batch))
        assert predictions[-1].shape == batch.y.shape
        torch.testing.assert_close(predictions[-1], network()(batch), rtol=1e-5, atol=1e-6)
    assert predictions[0].std() > 1e-3
    with pytest.raises(ValueError, match="chunk"):
        link_data(tmp_path, chunk=0)


def test_encodings_that_leak_links_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="RandomWalk is precomputed from all edges"):
        link_data(tmp_path).open([RandomWalk(steps=2)])
    link_data(tmp_path).open([Degree()])


def test_mask_that_exceeds_memory_is_rejected(data: LinkData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 16)  # a machine with 256 bytes of memory
    data.readings = lambda: {(Hops(None), demand) for _, demand in network().readings()}
    with pytest.raises(UserError, match="mask=one_hop"):
        epoch_batches(data)


def test_baseline_scores_at_chance(data: LinkData) -> None:
    assert len(data.dataset("train")) == len(TRAIN)
    assert data.targets("test").sum() == len(TEST)
    scores = baseline(data, data.targets("valid"))
    assert scores["loss"] == pytest.approx(np.log(2))
    assert scores["auroc"] == 0.5


def test_training_loss_decreases(data: LinkData) -> None:
    net = network().train()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for number in range(25):
        for batch in epoch_batches(data, number):
            assert batch.y is not None
            loss = torch.nn.functional.binary_cross_entropy_with_logits(net(batch), batch.y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert np.mean(losses[-9:]) < 0.8 * np.mean(losses[:9])
