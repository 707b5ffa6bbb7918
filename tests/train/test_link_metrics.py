"""Ranks of links within their graphs, against a loop over graphs, links and nodes; and the head that multiplies."""

import math

import pytest
import torch

from gt.data.link_pairs import query_rows, with_rivals
from gt.graph import GraphBatch
from gt.heads import Head
from gt.link_metrics import LinkRanks
from gt.losses import loss
from gt.schema import Schema
from tests.graphs import random_batch

LINK = Schema(level="link", kind="binary")
SIZES = (6, 1, 9, 2, 1, 4)


def with_links(sizes=SIZES, seed=0, empty=(3,)) -> GraphBatch:
    """Graphs with pairs of their nodes, linked (1), not (0) or unknown; self-loops, pairs named twice, none at all."""
    draw = torch.Generator().manual_seed(seed)
    batch = random_batch(sizes, seed)
    pairs, labels = [], []
    for graph, size in enumerate(sizes):
        for _ in range(0 if graph in empty else 2 * size):
            pairs.append(torch.randint(size, (2,), generator=draw) + batch.ptr[graph])
            labels.append([0.0, 1.0, torch.nan][int(torch.randint(3, (1,), generator=draw))])
    batch.links, batch.y = torch.stack(pairs, 1), torch.tensor(labels)[:, None]
    return batch


def looped(batch: GraphBatch, ratings: torch.Tensor) -> dict[str, float]:
    """The scores of ratings (N, N) by definition."""
    of_graphs = []
    for graph, (low, high) in enumerate(zip(batch.ptr[:-1].tolist(), batch.ptr[1:].tolist(), strict=True)):
        pairs = zip(*batch.links.tolist(), batch.y[:, 0].tolist(), strict=True)
        links = [(u, v) for u, v, label in pairs if label == 1 and low <= u < high]
        of_links = []
        for u, v in links:
            others = [w for w in range(low, high) if w != v]
            filtered = [w for w in others if (u, w) not in links]
            extended = [w for w in filtered if w != u]
            found = []
            for nodes in (others, filtered, extended):
                best = 1 + sum(bool(ratings[u, w] > ratings[u, v]) for w in nodes)
                worst = best + sum(bool(ratings[u, w] == ratings[u, v]) for w in nodes)
                found.append((best + worst) / 2)
            of_links.append([*(1 / rank for rank in found), *(float(found[0] <= k) for k in (1, 3, 10))])
        if of_links:
            assert batch.sizes[graph] == high - low
            of_graphs.append(torch.tensor(of_links).mean(0))
    return dict(zip(LinkRanks.scores, torch.stack(of_graphs).mean(0).tolist(), strict=True))


@pytest.mark.parametrize("values", [2, 5, 10_000], ids=["nearly all tied", "many ties", "hardly any tie"])
def test_scores_are_those_of_a_loop(values):
    metric, expected, weights = LinkRanks(), [], []
    for seed, sizes in enumerate((SIZES, (12,), (1, 1), (3, 8, 3))):
        batch = with_links(sizes, seed)
        ratings = torch.randint(values, (batch.num_nodes,) * 2, generator=torch.Generator().manual_seed(seed)).float()
        asks = with_rivals(batch)
        metric.update(ratings[asks.links[0], asks.links[1]][:, None], asks.y)
        graphs = len(batch.batch[batch.links[0, batch.y[:, 0] == 1]].unique())
        if graphs:
            expected.append(looped(batch, ratings))
            weights.append(graphs)
    for name, value in metric.compute().items():
        of_batches = sum(weight * scores[name] for weight, scores in zip(weights, expected, strict=True)) / sum(weights)
        assert float(value) == pytest.approx(of_batches, rel=1e-5), name
    if values > 5:
        assert len({round(float(value), 4) for value in metric.compute().values()}) == 6  # no filter is idle


def test_rivals_follow_their_link_and_no_loss_counts_them():
    batch = with_links()
    asks = with_rivals(batch)
    assert torch.equal(asks.links[:, query_rows(asks)], batch.links)
    assert torch.equal(asks.y[query_rows(asks), 0].nan_to_num(7), batch.y[:, 0].nan_to_num(7))
    assert torch.equal(query_rows(batch), torch.arange(len(batch.y)))
    sizes = batch.sizes[batch.batch[batch.links[0]]]
    assert len(asks.y) == len(batch.y) + int((sizes - 1)[batch.y[:, 0] == 1].sum())
    assert torch.equal(batch.batch[asks.links[0]], batch.batch[asks.links[1]])
    ratings = torch.randn(batch.num_nodes, batch.num_nodes)
    losses = [loss(LINK, ratings[each.links[0], each.links[1]][:, None], each.y) for each in (batch, asks)]
    torch.testing.assert_close(*losses)


def test_a_graph_without_links_counts_for_nothing_and_nothing_at_all_is_undefined():
    batch = with_links((5, 4), empty=())
    batch.y[batch.batch[batch.links[0]] == 1] = 0.0
    ratings = torch.rand(9, 9)
    metric, asks = LinkRanks(), with_rivals(batch)
    metric.update(ratings[asks.links[0], asks.links[1]][:, None], asks.y)
    assert float(metric.compute()["mrr"]) == pytest.approx(looped(batch, ratings)["mrr"], rel=1e-6)
    metric.reset()
    batch.y[:] = torch.nan
    asks = with_rivals(batch)
    metric.update(torch.zeros(len(asks.y), 1), asks.y)
    metric.update(torch.zeros(0, 1), asks.y[:0])
    metric.update(torch.zeros(3, 1), torch.ones(3, 1))  # of a batch for training
    assert all(math.isnan(value) for value in metric.compute().values())


def test_a_rating_that_is_no_number_is_no_good_rank():
    batch = with_links((4,), empty=())
    batch.y[0] = 1.0
    asks = with_rivals(batch)
    for place in (0, 1):  # the link's own, that of a rival
        ratings = torch.arange(float(len(asks.y)))[:, None]
        ratings[place] = torch.nan
        metric = LinkRanks()
        metric.update(ratings, asks.y)
        assert metric.compute()["mrr"].isnan()
        assert metric.compute()["hits@3"].isnan()


def test_wrong_targets_are_refused():
    with pytest.raises(ValueError, match="expected"):
        LinkRanks().update(torch.zeros(2, 1), torch.zeros(2, 2))
    rival = torch.tensor([[torch.nan, 1.0, 0.0]])
    with pytest.raises(ValueError, match="must follow"):
        LinkRanks().update(torch.zeros(1, 1), rival)


@pytest.mark.parametrize("hidden", [0, 2])
def test_a_scalar_product_is_that_of_both_nodes_and_has_its_gradient(hidden):
    torch.manual_seed(0)
    batch = with_links((3, 1, 2), empty=())
    head = Head(8, LINK, hidden=hidden, dot=True).double()
    x = torch.randn(batch.num_nodes, 8, dtype=torch.double, requires_grad=True)
    out = head(x, batch)
    maps, rectify = [part for part in head.mlp if isinstance(part, torch.nn.Linear)], torch.nn.functional.relu
    z = x
    for number, part in enumerate(maps):
        z = z @ part.weight.T + part.bias
        z = z if number == len(maps) - 1 else rectify(z)
    expected = torch.stack([z[u] @ z[v] for u, v in batch.links.T.tolist()])[:, None]
    torch.testing.assert_close(out, expected)
    known = ~batch.y.isnan()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(expected[known], batch.y[known].double())
    ours = torch.autograd.grad(loss(LINK, out, batch.y), [x, *head.parameters()])
    for one, other in zip(ours, torch.autograd.grad(entropy, [x, *head.parameters()]), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(lambda rows: head(rows, batch), x)


def test_a_scalar_product_is_of_links_with_one_target():
    assert not Head(8, Schema((5,)), dot=True).dot  # a network is tried out on other data than those it will see
    with pytest.raises(ValueError, match="2 targets"):
        Head(8, Schema(level="link", kind="binary", outputs=2), dot=True)
