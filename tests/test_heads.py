"""Pools of one's own are parts of the network: trained, saved and loaded with it."""

import pytest
import torch
from torch import nn
from torch_geometric.utils import softmax

from gt.heads import Head, Max, Mean, Pool, Sum
from gt.schema import Schema
from tests.graphs import random_batch


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
