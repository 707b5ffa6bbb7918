"""Read-outs: a user's own pools are trained, saved and loaded with the network; choices among nodes."""

import pytest
import torch
from torch import nn
from torch_geometric.utils import softmax

from gt.graph import GraphBatch, path_graphs
from gt.heads import IMPOSSIBLE, Head, Max, Mean, Pool, Sum, choice_log_odds
from gt.schema import Schema
from tests.graphs import random_batch
from tests.races import NoRaces


class Gated(Pool):
    """The mean over nodes, each multiplied by a learned gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(width, 1)

    def forward(self, x, batch):
        return Mean()(self.weigh(x).sigmoid() * x, batch)


class Attention(Pool):
    """Softmax attention of one learned query over the nodes of each graph."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(width, 1, bias=False), nn.Linear(width, width)

    def forward(self, x, batch):
        share = softmax(self.query(x), batch.batch, num_nodes=batch.num_graphs)
        return Sum()(share * self.value(x), batch)


class Bare(nn.Module):
    """A pool that does not derive from `Pool`."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, batch):
        return self.scale * Mean()(x, batch)


@pytest.mark.parametrize(
    "pool",
    [Gated(8), Bare(), [Mean(), Gated(8)], Attention, [Max(), Attention]],
    ids=["own", "bare module", "one of two", "factory", "module and factory"],
)
def test_learned_pool_is_trained_and_saved(pool):
    head = Head(8, Schema((5,), outputs=2), hidden=0, pool=pool)
    learned = {name: value.detach().clone() for name, value in head.named_parameters() if name.startswith("pools.")}
    assert learned.keys() == {name for name in head.state_dict() if name.startswith("pools.")}
    assert learned
    optimiser = torch.optim.SGD(head.parameters(), lr=1.0)
    batch = random_batch((3, 4))
    head(torch.randn(7, 8), batch).square().sum().backward()
    optimiser.step()
    assert all(not torch.equal(value, head.get_parameter(name)) for name, value in learned.items())
    head.double()
    assert head(torch.randn(7, 8, dtype=torch.double), batch).dtype is torch.double


def test_unused_pool_has_no_parameters():
    head = Head(8, Schema((5,), level="node", outputs=2), pool=Gated(8))
    assert not [name for name, _ in head.named_parameters() if name.startswith("pools")]


def test_pool_factory_receives_the_width_of_its_head():
    first, second = (Head(width, Schema((5,), outputs=2), hidden=0, pool=Attention) for width in (4, 8))
    assert [head.pools[0].query.in_features for head in (first, second)] == [4, 8]
    loaded = Head(8, Schema((5,), outputs=2), hidden=0, pool=Attention)
    loaded.load_state_dict(second.state_dict())
    x, batch = torch.randn(7, 8), random_batch((3, 4))
    assert torch.equal(loaded(x, batch), second(x, batch))


def pointer_batch(sizes, candidate, query) -> GraphBatch:
    batch = path_graphs(sizes)
    batch.extras = {"candidate": torch.tensor(candidate), "query": torch.tensor(query)}
    return batch


def test_choice_log_odds_match_a_loop():
    torch.manual_seed(0)
    batch = pointer_batch([4, 1, 3], [2, 0, 1, 2, 0, 3, 3, 1], [0, 1, 0, 0, 1, 0, 0, 0])
    score = (torch.randn(8, dtype=torch.float64) * 30).requires_grad_()
    rows = choice_log_odds(score, batch, 3)
    for graph, (first, last) in enumerate(((0, 4), (4, 5), (5, 8))):
        for choice in range(3):
            scores = [score[n] for n in range(first, last) if batch.extras["candidate"][n] == choice + 1]
            if scores:
                torch.testing.assert_close(rows[graph, choice], torch.stack(scores).logsumexp(0))
            else:
                assert rows[graph, choice] == IMPOSSIBLE
    loss = torch.nn.functional.cross_entropy(rows[[0, 2]], torch.tensor([1, 0]))
    first_log_softmax, last_log_softmax = score[[2, 0, 3]].log_softmax(0), score[[7, 5, 6]].log_softmax(0)
    expected = -(first_log_softmax[1:].logsumexp(0) + last_log_softmax[0]) / 2
    torch.testing.assert_close(loss, expected)
    gradient, expected_gradient = (
        torch.autograd.grad(value, score, retain_graph=True)[0] for value in (loss, expected)
    )
    torch.testing.assert_close(gradient, expected_gradient)
    assert torch.autograd.gradcheck(lambda s: choice_log_odds(s, batch, 3)[rows > IMPOSSIBLE], score)


def test_choices_are_among_the_nodes_of_each_graph():
    torch.manual_seed(0)
    schema = Schema(node_vocab=(3,), outputs=3, pointer=True)
    head = Head(8, schema, hidden=1).double()
    batch = pointer_batch([4, 3], [2, 0, 1, 2, 1, 0, 2], [0, 1, 0, 0, 0, 1, 0])
    x = torch.randn(7, 8, dtype=torch.float64, requires_grad=True)
    rows = head(x, batch)
    query = x[[1, 1, 1, 1, 5, 5, 5]]
    torch.testing.assert_close(rows, choice_log_odds(head.mlp(torch.cat([x, query, x * query], 1))[:, 0], batch, 3))
    assert rows.argmax(1).tolist() == rows[:, :2].argmax(1).tolist()  # the third choice is in neither graph
    alone = pointer_batch([3], [1, 0, 2], [0, 1, 0])
    torch.testing.assert_close(head(x[4:], alone), rows[1:])
    order = torch.tensor([3, 0, 2, 1])  # permutes the first graph's nodes
    permuted = pointer_batch([4], [2, 2, 1, 0], [0, 0, 0, 1])
    torch.testing.assert_close(head(x[order], permuted), rows[:1])
    with NoRaces():
        head(x, batch).square().sum().backward()
    changed = x.detach().clone()
    changed[1] += 1.0  # the query node of the first graph
    assert (head(changed, batch)[0, :2] != rows[0, :2]).all()
    assert torch.equal(head(changed, batch)[1], rows[1])


@pytest.mark.parametrize("options", [{"kind": "binary"}, {"level": "node"}, {"positions": 2}])
def test_pointer_with_other_target_types_is_rejected(options):
    with pytest.raises(ValueError, match="choice"):
        Schema(node_vocab=(3,), outputs=3, pointer=True, **options)
