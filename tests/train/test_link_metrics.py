"""Ranking metrics of links, against a loop over graphs, links and nodes; the head with a dot product."""

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


def batch_with_links(sizes=SIZES, seed=0, empty=(3,)) -> GraphBatch:
    """Graphs with labelled node pairs: 1, 0 or unknown; with self-loops, duplicate pairs and graphs without pairs."""
    draw = torch.Generator().manual_seed(seed)
    batch = random_batch(sizes, seed)
    pairs, labels = [], []
    for graph, size in enumerate(sizes):
        for _ in range(0 if graph in empty else 2 * size):
            pairs.append(torch.randint(size, (2,), generator=draw) + batch.ptr[graph])
            labels.append([0.0, 1.0, torch.nan][int(torch.randint(3, (1,), generator=draw))])
    batch.links, batch.y = torch.stack(pairs, 1), torch.tensor(labels)[:, None]
    return batch


def reference_scores(batch: GraphBatch, scores: torch.Tensor) -> dict[str, float]:
    """The metrics of scores (N, N) by their definition."""
    of_graphs = []
    for graph, (low, high) in enumerate(zip(batch.ptr[:-1].tolist(), batch.ptr[1:].tolist(), strict=True)):
        pairs = zip(*batch.links.tolist(), batch.y[:, 0].tolist(), strict=True)
        links = [(u, v) for u, v, label in pairs if label == 1 and low <= u < high]
        of_links = []
        for u, v in links:
            others = [w for w in range(low, high) if w != v]
            filtered = [w for w in others if (u, w) not in links]
            extended = [w for w in filtered if w != u]
            ranks = []
            for nodes in (others, filtered, extended):
                best = 1 + sum(bool(scores[u, w] > scores[u, v]) for w in nodes)
                worst = best + sum(bool(scores[u, w] == scores[u, v]) for w in nodes)
                ranks.append((best + worst) / 2)
            of_links.append([*(1 / rank for rank in ranks), *(float(ranks[0] <= k) for k in (1, 3, 10))])
        if of_links:
            assert batch.sizes[graph] == high - low
            of_graphs.append(torch.tensor(of_links).mean(0))
    return dict(zip(LinkRanks.scores, torch.stack(of_graphs).mean(0).tolist(), strict=True))


@pytest.mark.parametrize("values", [2, 5, 10_000], ids=["nearly all tied", "many ties", "hardly any tie"])
def test_metrics_match_loop(values):
    metric, expected, counts = LinkRanks(), [], []
    for seed, sizes in enumerate((SIZES, (12,), (1, 1), (3, 8, 3))):
        batch = batch_with_links(sizes, seed)
        scores = torch.randint(values, (batch.num_nodes,) * 2, generator=torch.Generator().manual_seed(seed)).float()
        queries = with_rivals(batch)
        metric.update(scores[queries.links[0], queries.links[1]][:, None], queries.y)
        graphs = len(batch.batch[batch.links[0, batch.y[:, 0] == 1]].unique())
        if graphs:
            expected.append(reference_scores(batch, scores))
            counts.append(graphs)
    for name, value in metric.compute().items():
        mean = sum(count * metrics[name] for count, metrics in zip(counts, expected, strict=True)) / sum(counts)
        assert float(value) == pytest.approx(mean, rel=1e-5), name
    if values > 5:
        assert len({round(float(value), 4) for value in metric.compute().values()}) == 6  # every filter has an effect


def test_rivals_follow_their_link_without_changing_the_loss():
    batch = batch_with_links()
    queries = with_rivals(batch)
    assert torch.equal(queries.links[:, query_rows(queries)], batch.links)
    assert torch.equal(queries.y[query_rows(queries), 0].nan_to_num(7), batch.y[:, 0].nan_to_num(7))
    assert torch.equal(query_rows(batch), torch.arange(len(batch.y)))
    sizes = batch.sizes[batch.batch[batch.links[0]]]
    assert len(queries.y) == len(batch.y) + int((sizes - 1)[batch.y[:, 0] == 1].sum())
    assert torch.equal(batch.batch[queries.links[0]], batch.batch[queries.links[1]])
    scores = torch.randn(batch.num_nodes, batch.num_nodes)
    losses = [loss(LINK, scores[each.links[0], each.links[1]][:, None], each.y) for each in (batch, queries)]
    torch.testing.assert_close(*losses)


def test_graphs_without_links_are_ignored():
    batch = batch_with_links((5, 4), empty=())
    batch.y[batch.batch[batch.links[0]] == 1] = 0.0
    scores = torch.rand(9, 9)
    metric, queries = LinkRanks(), with_rivals(batch)
    metric.update(scores[queries.links[0], queries.links[1]][:, None], queries.y)
    assert float(metric.compute()["mrr"]) == pytest.approx(reference_scores(batch, scores)["mrr"], rel=1e-6)
    metric.reset()
    batch.y[:] = torch.nan
    queries = with_rivals(batch)
    metric.update(torch.zeros(len(queries.y), 1), queries.y)
    metric.update(torch.zeros(0, 1), queries.y[:0])
    metric.update(torch.zeros(3, 1), torch.ones(3, 1))  # a training batch
    assert all(math.isnan(value) for value in metric.compute().values())


def test_nan_score_makes_metrics_nan():
    batch = batch_with_links((4,), empty=())
    batch.y[0] = 1.0
    queries = with_rivals(batch)
    for index in (0, 1):  # the score of the link, of a rival
        scores = torch.arange(float(len(queries.y)))[:, None]
        scores[index] = torch.nan
        metric = LinkRanks()
        metric.update(scores, queries.y)
        assert metric.compute()["mrr"].isnan()
        assert metric.compute()["hits@3"].isnan()


def test_invalid_targets_are_rejected():
    with pytest.raises(ValueError, match="expected"):
        LinkRanks().update(torch.zeros(2, 1), torch.zeros(2, 2))
    rival = torch.tensor([[torch.nan, 1.0, 0.0]])
    with pytest.raises(ValueError, match="must follow"):
        LinkRanks().update(torch.zeros(1, 1), rival)


@pytest.mark.parametrize("hidden", [0, 2])
def test_dot_product_head_and_its_gradient(hidden):
    torch.manual_seed(0)
    batch = batch_with_links((3, 1, 2), empty=())
    head = Head(8, LINK, hidden=hidden, dot=True).double()
    x = torch.randn(batch.num_nodes, 8, dtype=torch.double, requires_grad=True)
    out = head(x, batch)
    linears, rectify = [part for part in head.mlp if isinstance(part, torch.nn.Linear)], torch.nn.functional.relu
    z = x
    for number, part in enumerate(linears):
        z = z @ part.weight.T + part.bias
        z = z if number == len(linears) - 1 else rectify(z)
    expected = torch.stack([z[u] @ z[v] for u, v in batch.links.T.tolist()])[:, None]
    torch.testing.assert_close(out, expected)
    known = ~batch.y.isnan()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(expected[known], batch.y[known].double())
    ours = torch.autograd.grad(loss(LINK, out, batch.y), [x, *head.parameters()])
    for gradient, expected_gradient in zip(ours, torch.autograd.grad(entropy, [x, *head.parameters()]), strict=True):
        torch.testing.assert_close(gradient, expected_gradient)
    assert torch.autograd.gradcheck(lambda rows: head(rows, batch), x)


def test_dot_product_requires_links_with_one_target():
    assert not Head(8, Schema((5,)), dot=True).dot  # ignored: a network may be tried on data of another level
    with pytest.raises(ValueError, match="2 targets"):
        Head(8, Schema(level="link", kind="binary", outputs=2), dot=True)
