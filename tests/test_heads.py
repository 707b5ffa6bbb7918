"""Read-outs: pools of one's own are parts of the network, trained, saved and loaded with it; choices among nodes."""

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
    """A mean over nodes that each weigh what a linear map says."""

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
    """A pool that knows nothing of `Pool`."""

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
def test_a_learned_pool_is_trained_and_saved(pool):
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


def test_a_pool_that_is_not_used_has_no_parameters_to_train():
    head = Head(8, Schema((5,), level="node", outputs=2), pool=Gated(8))
    assert not [name for name, _ in head.named_parameters() if name.startswith("pools")]


def test_a_factory_makes_a_pool_for_each_head_of_its_width():
    first, second = (Head(width, Schema((5,), outputs=2), hidden=0, pool=Attention) for width in (4, 8))
    assert [head.pools[0].query.in_features for head in (first, second)] == [4, 8]
    again = Head(8, Schema((5,), outputs=2), hidden=0, pool=Attention)
    again.load_state_dict(second.state_dict())
    x, batch = torch.randn(7, 8), random_batch((3, 4))
    assert torch.equal(again(x, batch), second(x, batch))


def pointing(sizes, candidate, query) -> GraphBatch:
    batch = path_graphs(sizes)
    batch.extras = {"candidate": torch.tensor(candidate), "query": torch.tensor(query)}
    return batch


def test_choices_against_a_loop():
    torch.manual_seed(0)
    batch = pointing([4, 1, 3], [2, 0, 1, 2, 0, 3, 3, 1], [0, 1, 0, 0, 1, 0, 0, 0])
    score = (torch.randn(8, dtype=torch.float64) * 30).requires_grad_()
    rows = choice_log_odds(score, batch, 3)
    for graph, (first, last) in enumerate(((0, 4), (4, 5), (5, 8))):
        for choice in range(3):
            own = [score[n] for n in range(first, last) if batch.extras["candidate"][n] == choice + 1]
            if own:
                torch.testing.assert_close(rows[graph, choice], torch.stack(own).logsumexp(0))
            else:
                assert rows[graph, choice] == IMPOSSIBLE
    loss = torch.nn.functional.cross_entropy(rows[[0, 2]], torch.tensor([1, 0]))
    of_first, of_last = score[[2, 0, 3]].log_softmax(0), score[[7, 5, 6]].log_softmax(0)
    expected = -(of_first[1:].logsumexp(0) + of_last[0]) / 2
    torch.testing.assert_close(loss, expected)
    one, other = (torch.autograd.grad(value, score, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(lambda s: choice_log_odds(s, batch, 3)[rows > IMPOSSIBLE], score)


def test_a_graph_chooses_among_its_own_nodes():
    torch.manual_seed(0)
    schema = Schema(node_vocab=(3,), outputs=3, pointer=True)
    head = Head(8, schema, hidden=1).double()
    batch = pointing([4, 3], [2, 0, 1, 2, 1, 0, 2], [0, 1, 0, 0, 0, 1, 0])
    x = torch.randn(7, 8, dtype=torch.float64, requires_grad=True)
    rows = head(x, batch)
    asking = x[[1, 1, 1, 1, 5, 5, 5]]
    torch.testing.assert_close(rows, choice_log_odds(head.mlp(torch.cat([x, asking, x * asking], 1))[:, 0], batch, 3))
    assert rows.argmax(1).tolist() == rows[:, :2].argmax(1).tolist()  # the third choice is in neither graph
    alone = pointing([3], [1, 0, 2], [0, 1, 0])
    torch.testing.assert_close(head(x[4:], alone), rows[1:])
    order = torch.tensor([3, 0, 2, 1])  # of the first graph's nodes
    turned = pointing([4], [2, 2, 1, 0], [0, 0, 0, 1])
    torch.testing.assert_close(head(x[order], turned), rows[:1])
    with NoRaces():
        head(x, batch).square().sum().backward()
    moved = x.detach().clone()
    moved[1] += 1.0  # the one that asks
    assert (head(moved, batch)[0, :2] != rows[0, :2]).all()
    assert torch.equal(head(moved, batch)[1], rows[1])


@pytest.mark.parametrize("facts", [{"kind": "binary"}, {"level": "node"}, {"positions": 2}])
def test_only_a_graph_has_choices(facts):
    with pytest.raises(ValueError, match="choice"):
        Schema(node_vocab=(3,), outputs=3, pointer=True, **facts)
