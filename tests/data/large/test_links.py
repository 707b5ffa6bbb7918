"""Link prediction on one graph: what a batch asks, and that it does not hold the answer."""

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
SHOWN = np.array([[0, 1], [1, 2], [2, 1], [2, 3], [4, 4], [5, 0], [5, 0], [6, 7], [7, 8], [9, 10]])  # 11 is alone
TRAIN = np.array([[0, 1], [2, 1], [3, 2], [4, 4], [0, 5], [8, 3]])  # the last is no edge
VALID, TEST = np.array([[0, 2], [1, 3], [9, 11]]), np.array([[8, 9], [3, 11]])
APART = np.array([[0, 11], [1, 11], [2, 11], [3, 9], [4, 9]])


class Links(LinkSource):
    """A small graph with loops, links that occur twice, and a node without any."""

    name = "links"

    def __init__(self, root: Path, shown: np.ndarray = SHOWN, ranked: bool = False) -> None:
        self.root, self.shown, self.ranked = root, shown, ranked
        self.negatives = AnotherTarget if ranked else AnyPair

    def key(self) -> dict[str, Any]:
        return {"shown": self.shown.tolist(), "ranked": self.ranked}

    def build(self) -> Graphs:
        features = np.repeat(self.shown.sum(1), 2)[:, None] + [0.25, 0.5]  # the same for both directions
        splits = {"train": TRAIN, "valid": VALID, "test": TEST}
        for part in ("valid", "test"):
            if self.ranked:
                splits[f"{part}_targets"] = np.arange(len(splits[part]) * 4).reshape(-1, 4) % NODES
            else:
                splits[f"{part}_negatives"] = APART
        return Graphs(
            node_ptr=np.array([0, NODES]),
            edge_ptr=np.array([0, 2 * len(self.shown)]),
            edge_index=add_reverses(self.shown),
            nodes={"x": np.arange(NODES)[:, None]},
            edges={"edge_attr": features.astype(np.float32)},
            splits={**splits, "valid_edge_attr": np.full((len(VALID), 2), -1, dtype=np.float32)},
            schema=Schema((NODES,), edge_floats=2, level="link", kind="binary", max_nodes=NODES),
        ).sort_edges()


@pytest.fixture
def data(tmp_path: Path) -> LinkData:
    return opened(link_data(tmp_path))


def link_data(root: Path, *shown: np.ndarray, **options: Any) -> LinkData:
    data: LinkData = over(LinkData, Links, root, *shown, **{"batch_size": 2, "seed": 5} | options)
    return data


def opened(data: LinkData) -> LinkData:
    data.open([])
    return data


def edges(batch: GraphBatch) -> list[tuple[int, ...]]:
    """Each edge with its features, sorted by target and source as all layers rely on."""
    assert batch.edge_attr is not None
    source, target = batch.edge_index.tolist()
    assert (place := list(zip(target, source, strict=True))) == sorted(place)
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


def epoch(data: LinkData, number: int = 0) -> list[GraphBatch]:
    loader = data.loader("train")
    loader.sampler.set_epoch(number)
    return list(loader)


@pytest.mark.parametrize("asked", [[(0, 1)], [(1, 0), (2, 3)], [(5, 0)], [(4, 4)], [(11, 3)], SHOWN.tolist(), []])
def test_taking_edges_out(data: LinkData, asked: list[tuple[int, int]]) -> None:
    whole = data.graph.batch
    gone = {frozenset(pair) for pair in asked}
    expected = [edge for edge in edges(whole) if frozenset(edge[:2]) not in gone]
    graph = InputGraph(whole)
    rest = graph.without(graph.between(np.array(asked, dtype=np.int64).reshape(-1, 2).T))
    assert edges(rest) == expected
    assert (rest.num_nodes, rest.max_nodes) == (NODES, NODES)
    assert len(edges(whole)) == 2 * len(SHOWN)


def test_a_training_batch(data: LinkData) -> None:
    batches = epoch(data)
    assert sorted(pair for batch in batches for pair in pairs(batch.links)[:2]) == sorted(map(tuple, TRAIN.tolist()))
    linked = {frozenset(pair) for pair in [*SHOWN.tolist(), *TRAIN.tolist()]}
    for batch in batches:
        assert batch.y is not None
        assert batch.y.flatten().tolist() == [1, 1, 0, 0]
        positive, negative = pairs(batch.links)[:2], pairs(batch.links)[2:]
        gone = {frozenset(pair) for pair in positive}
        assert edges(batch) == [edge for edge in edges(data.graph.batch) if frozenset(edge[:2]) not in gone]
        for pair in negative:
            assert pair[0] != pair[1]
            assert frozenset(pair) not in linked


def test_negatives_of_ranked_links_have_the_same_sources(tmp_path: Path) -> None:
    for batch in epoch(opened(link_data(tmp_path, ranked=True))):
        assert batch.links is not None
        assert batch.links[0, :2].tolist() == batch.links[0, 2:].tolist()


@pytest.mark.parametrize("fanout", [(1,), (2, 1), (None, None), (3, None, 2)])
@pytest.mark.parametrize("number", range(3))
def test_a_sample_around_links(tmp_path: Path, fanout: tuple[int | None, ...], number: int) -> None:
    """Nodes have their number as their feature, so that a sample says which they are."""
    whole, data = opened(link_data(tmp_path)), opened(link_data(tmp_path, sampler=Neighbours(fanout)))
    for full, sample in zip(epoch(whole, number), epoch(data, number), strict=True):
        assert sample.x is not None
        nodes = sample.x[:, 0]
        assert len(nodes.unique()) == len(nodes) == sample.num_nodes == sample.max_nodes
        assert [tuple(nodes[list(pair)].tolist()) for pair in pairs(sample.links)] == pairs(full.links)
        assert sample.y is not None
        assert full.y is not None
        assert sample.y.equal(full.y)
        drawn = [(int(nodes[s]), int(nodes[t]), *row) for s, t, *row in map(list, edges(sample))]
        left = edges(full)
        assert all(drawn.count(edge) <= left.count(edge) for edge in drawn)
        roots = {node for pair in pairs(full.links) for node in pair}
        reads = {node: sum(edge[1] == node for edge in left) for node in roots}
        most = [reads[node] if fanout[0] is None else min(reads[node], fanout[0]) for node in sorted(roots)]
        assert [sum(edge[1] == node for edge in drawn) for node in sorted(roots)] == most
        if fanout == (None, None):
            near = {edge[0] for edge in left if edge[1] in roots} | roots
            assert sorted(drawn) == sorted(edge for edge in left if edge[1] in near)


@pytest.mark.parametrize("sampler", [Partition(2), Clusters(2, 1)])
def test_samplers_that_do_not_begin_with_nodes(tmp_path: Path, sampler: Sampler) -> None:
    with pytest.raises(UserError, match=f"{type(sampler).__name__} does not sample around links"):
        link_data(tmp_path, sampler=sampler)


@pytest.mark.parametrize("sampler", [None, Full(), Neighbours((2, 2)), Neighbours((1,))])
def test_what_is_asked_cannot_be_read_off(tmp_path: Path, sampler: Sampler | None) -> None:
    """A training link may be in the graph, or not, or twice: the model sees the same graph when it is asked for it."""
    fewer = SHOWN[~(np.sort(SHOWN, 1) == [1, 2]).all(1)]
    more = np.concatenate([SHOWN, [[1, 2], [2, 1]]])
    found = []
    for shown in (SHOWN, fewer, more):
        data = opened(link_data(tmp_path, shown, sampler=sampler))
        batch = data.dataset("train")[Request((TRAIN.tolist().index([2, 1]),), draw=(0,))]
        assert batch.x is not None
        found.append((edges(batch), batch.x.tolist(), network()(batch)))
    for other in found[1:]:
        assert other[:2] == found[0][:2]
        assert other[2].equal(found[0][2])
    seen = opened(link_data(tmp_path, fewer)).graph.batch
    assert edges(seen) != edges(opened(link_data(tmp_path)).graph.batch)  # the links do make a difference elsewhere


def test_evaluation_reads_no_link_that_it_asks_for(tmp_path: Path) -> None:
    for valid_as_input in (False, True):
        data = opened(link_data(tmp_path, valid_as_input=valid_as_input))
        for split, links in (("valid", VALID), ("test", TEST)):
            (batch,) = data.loader(split)
            shown = {frozenset(edge[:2]) for edge in edges(batch)}
            assert not shown & {frozenset(pair) for pair in links.tolist()}


def test_validation_links_as_input(tmp_path: Path) -> None:
    data = opened(link_data(tmp_path, valid_as_input=True))
    added = [(a, b, -1.0, -1.0) for a, b in [*VALID.tolist(), *VALID[:, ::-1].tolist()]]
    (test,) = data.loader("test")
    (valid,) = data.loader("valid")
    assert edges(test) == sorted([*edges(data.graph.batch), *added])
    assert edges(valid) == edges(data.graph.batch)
    assert not {frozenset(p) for p in VALID.tolist()} & {frozenset(e[:2]) for b in epoch(data) for e in edges(b)}


def test_no_two_batches_draw_alike(tmp_path: Path) -> None:
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


def test_a_run_that_resumes_draws_as_one_that_never_stopped(data: LinkData) -> None:
    whole = list(LinkBatches(np.ones(12), 2, shuffle=True, seed=1, epoch=4))
    resumed = LinkBatches(np.ones(12), 2, shuffle=True, seed=1, epoch=4, first=2)
    assert list(resumed) == whole[2:]
    resumed.set_epoch(5)
    assert len(list(resumed)) == 6
    first, again, other = (epoch(data, number) for number in (0, 0, 1))
    assert [pairs(b.links) for b in first] == [pairs(b.links) for b in again]
    assert {pairs(b.links)[2] for b in first} != {pairs(b.links)[2] for b in other}


def test_questions_about_shared_pairs() -> None:
    positive, negative = np.arange(20).reshape(10, 2), np.arange(100, 160).reshape(30, 2)
    questions = SharedNegatives(positive, negative)
    found, linked = questions.rows(0, len(questions))
    assert found.T[linked].tolist() == positive.tolist()
    assert found.T[~linked].tolist() == negative.tolist()
    assert questions.rows(0, 20)[1].sum() == questions.rows(20, 40)[1].sum() == 5  # every part holds its share
    for empty in (SharedNegatives(positive[:0], negative), SharedNegatives(positive, negative[:0])):
        assert len(empty) == len(empty.rows(0, 99)[1]) in (10, 30)


def test_questions_of_ranked_links() -> None:
    questions = RankedTargets(np.array([[3, 1], [5, 2]], dtype=np.uint8), np.array([[7, 300], [9, 8]], dtype=np.int16))
    found, linked = questions.rows(0, 2)
    assert found.T.tolist() == [[3, 1], [3, 7], [3, 300], [5, 2], [5, 9], [5, 8]]
    assert linked.tolist() == [True, False, False] * 2
    assert questions.rows(1, 2)[0].T.tolist() == found.T.tolist()[3:]


def trainer_of(rank: int = 0, world: int = 1, device: str = "cpu") -> Any:
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(global_rank=rank, world_size=world, strategy=strategy)


@pytest.mark.parametrize(("device", "pinned"), [(None, False), ("cpu", False), ("cuda", True)])
def test_memory_is_pinned_for_training_on_a_gpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str | None, pinned: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as where trainer=cpu leaves a GPU to others
    data = opened(link_data(tmp_path))
    data.trainer = None if device is None else trainer_of(device=device)
    assert data.loader("valid").pin_memory is pinned


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize(("world", "largest"), [(1, None), (2, None), (3, None), (2, 3), (1, 1), (7, None)])
def test_every_question_is_asked_once(tmp_path: Path, ranked: bool, world: int, largest: int | None) -> None:
    asked: list[Any] = []
    for rank in range(world):
        data = opened(link_data(tmp_path, ranked=ranked))
        data.eval_batch_size = largest or data.eval_batch_size
        data.trainer = trainer_of(rank, world)
        for batch in data.loader("valid"):
            assert batch.links is not None
            if batch.y is None:  # of a rank for which no question is left
                assert world == 7
                continue
            assert len(batch.y) == batch.links.shape[1] <= max(largest or 99, 5 if ranked else 1)
            assert not ranked or (batch.y[::5].all() and batch.y.sum() == len(batch.y) / 5)  # groups stay whole
            asked += zip(pairs(batch.links), batch.y.flatten().tolist(), strict=True)
    found, linked = data.questions("valid").rows(0, len(data.questions("valid")))
    assert sorted(asked) == sorted(zip(map(tuple, found.T.tolist()), linked.astype(float), strict=True))


def test_masks_are_prepared_and_blocks_share_their_graph(data: LinkData) -> None:
    readings: set[Reading] = network().readings()
    data.readings, data.eval_batch_size = lambda: readings, 3
    (mask, _), *_ = readings
    for batch in epoch(data):
        assert mask in batch.memo
    first, second, _ = data.loader("valid")
    assert first.edge_index is second.edge_index is data.graph.batch.edge_index
    assert first.links is not second.links
    assert not data.graph.batch.memo


@pytest.mark.parametrize("ranked", [False, True])
def test_evaluation_in_chunks_is_exact(tmp_path: Path, ranked: bool) -> None:
    found = []
    for chunk in (3, 10, 1 << 20):
        data = opened(link_data(tmp_path, ranked=ranked, chunk=chunk))
        (batch,) = data.loader("test")
        found.append(predict(network(), batch))
        assert found[-1].shape == batch.y.shape
        torch.testing.assert_close(found[-1], network()(batch), rtol=1e-5, atol=1e-6)
    assert found[0].std() > 1e-3
    with pytest.raises(ValueError, match="chunk"):
        link_data(tmp_path, chunk=0)


def test_encodings_that_would_know_the_links(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="RandomWalk is precomputed from all edges"):
        link_data(tmp_path).open([RandomWalk(steps=2)])
    link_data(tmp_path).open([Degree()])


def test_masks_of_too_many_pairs(data: LinkData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 16)  # a machine of 256 bytes
    data.readings = lambda: {(Hops(None), demand) for _, demand in network().readings()}
    with pytest.raises(UserError, match="mask=one_hop"):
        epoch(data)


def test_trivial_baseline(data: LinkData) -> None:
    assert len(data.dataset("train")) == len(TRAIN)
    assert data.targets("test").sum() == len(TEST)
    found = baseline(data, data.targets("valid"))
    assert found["loss"] == pytest.approx(np.log(2))
    assert found["auroc"] == 0.5


def test_a_model_learns_and_predicts_links(data: LinkData) -> None:
    net = network().train()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for number in range(25):
        for batch in epoch(data, number):
            assert batch.y is not None
            loss = torch.nn.functional.binary_cross_entropy_with_logits(net(batch), batch.y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert np.mean(losses[-9:]) < 0.8 * np.mean(losses[:9])
