"""Optimisers beside PyTorch's own: which parameters are decayed, how, and at which learning rates."""

import math

import pytest
import torch
from torch import nn

from gt.errors import UserError
from gt.train.optim import Adam, AdamW


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))


def trained(net: nn.Module, optimiser: torch.optim.Optimizer, steps: int, schedule=None) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimiser.zero_grad()
        net(torch.randn(8, 4, generator=draw)).square().sum().backward()
        optimiser.step()
        if schedule is not None:
            schedule.step()
    return [parameter.detach() for parameter in net.parameters()]


@pytest.mark.parametrize(("ours", "torchs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_named_parameters_alone_are_decayed_as_pytorch_does_at_a_constant_rate(ours, torchs):
    found, expected = network(), network()
    made = ours(lr=0.01, weight_decay=0.3, decayed=["0.*"], warmup=0, final=1.0).configure(found, 20)
    groups = [
        {"params": expected[0].parameters(), "weight_decay": 0.3},
        {"params": [*expected[1].parameters(), *expected[2].parameters()], "weight_decay": 0.0},
    ]
    moved = trained(found, made["optimizer"], 20, made["lr_scheduler"]["scheduler"])
    for one, other in zip(moved, trained(expected, torchs(groups, lr=0.01), 20), strict=True):
        torch.testing.assert_close(one, other)


def test_unless_named_matrices_are_decayed():
    net = network()
    groups = AdamW(weight_decay=0.1).configure(net, 10)["optimizer"].param_groups
    assert {id(p): group["weight_decay"] for group in groups for p in group["params"]} == {
        id(p): 0.1 if p.dim() == 2 else 0.0 for p in net.parameters()
    }


def test_a_pattern_that_names_no_parameter_is_refused():
    with pytest.raises(UserError, match=r"'1\.wieght'.*1\.\*"):
        AdamW(decayed=["0.*", "1.wieght"]).configure(network(), 10)


@pytest.mark.parametrize(
    ("warmup", "final", "rates"),
    [
        (0, 1.0, [1.0] * 8),
        (0, 0.0, [0.5 + 0.5 * math.cos(math.pi * n / 8) for n in range(8)]),
        (2, 1.0, [1 / 3, 2 / 3, *[1.0] * 6]),
        (0.25, 0.5, [1 / 3, 2 / 3, *[0.75 + 0.25 * math.cos(math.pi * n / 6) for n in range(6)]]),
        (0.01, 1.0, [0.5, *[1.0] * 7]),  # a warm-up that is wanted takes a step at least
    ],
)
def test_the_rate_rises_for_the_warmup_and_falls_to_the_last(warmup, final, rates):
    made = Adam(lr=0.2, warmup=warmup, final=final).configure(network(), 8)
    optimiser, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    found = []
    for _ in range(8):
        found.append(optimiser.param_groups[0]["lr"] / 0.2)
        optimiser.step()
        schedule.step()
    assert found == pytest.approx(rates)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_training_of_a_step_or_two_has_a_schedule(steps):
    made = AdamW(warmup=100).configure(network(), steps)
    assert made["optimizer"].param_groups[0]["lr"] > 0
