"""Optimisers and schedules against PyTorch's own: which parameters are decayed, and the learning rate at each step."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from gt.errors import UserError
from gt.layers import GCN, GRASS, PairBlock, PolynormerBlock
from gt.losses import Criterion
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.optim import Optimisation, stable_then_decay
from tests.small_runs import train, write_graphs


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))


def fit(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int, schedule=None, seed=1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(8, 4, generator=generator)).square().sum().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return [parameter.detach() for parameter in net.parameters()]


def rate_shares(optim: Optimisation, steps: int, extra: int = 0) -> list[float]:
    """The learning rate at each step as a share of ``lr``."""
    configured = optim.configure(network(), steps)
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    shares = []
    for _ in range(steps + extra):
        [rate] = {group["lr"] for group in optimizer.param_groups}
        shares.append(rate / optim.lr)
        optimizer.step()
        schedule.step()
    return shares


@pytest.mark.parametrize(
    "kind", [torch.optim.Adam, torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9), torch.optim.RMSprop]
)
def test_only_named_parameters_are_decayed(kind):
    net, reference = network(), network()
    optim = Optimisation(lr=0.01, weight_decay=0.3, decayed=["0.*"], warmup=0, final=1.0, optimizer=kind)
    configured = optim.configure(net, 20)
    groups = [
        {"params": reference[0].parameters(), "weight_decay": 0.3},
        {"params": [*reference[1].parameters(), *reference[2].parameters()], "weight_decay": 0.0},
    ]
    updated = fit(net, configured["optimizer"], 20, configured["lr_scheduler"]["scheduler"])
    for parameter, expected in zip(updated, fit(reference, kind(groups, lr=0.01), 20), strict=True):
        torch.testing.assert_close(parameter, expected)


def test_matrices_are_decayed_by_default():
    net = network()
    groups = Optimisation(weight_decay=0.1).configure(net, 10)["optimizer"].param_groups
    assert {id(p): group["weight_decay"] for group in groups for p in group["params"]} == {
        id(p): 0.1 if p.dim() == 2 else 0.0 for p in net.parameters()
    }


@pytest.mark.parametrize("block", [partial(PairBlock, attention=GRASS), partial(PolynormerBlock, local=GCN)])
def test_biases_and_channel_gates_are_not_decayed(block):
    net = GraphTransformer(Schema((5,), level="node", outputs=3), 16, 1, block)
    groups = Optimisation(weight_decay=0.1).configure(net, 10)["optimizer"].param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    undecayed = [name for name, p in net.named_parameters() if "bias" in name or "logit" in name]
    assert undecayed
    assert {decay[id(net.get_parameter(name))] for name in undecayed} == {0.0}


def test_pattern_without_match_is_rejected():
    with pytest.raises(UserError, match=r"'1\.wieght'.*1\.\*"):
        Optimisation(decayed=["0.*", "1.wieght"]).configure(network(), 10)


MUON = partial(torch.optim.Muon, momentum=0.9)


def test_muon_updates_matrices_and_adamw_the_rest():
    net, reference = network(), network()
    configured = Optimisation(lr=0.01, weight_decay=0.1, optimizer=MUON, warmup=0, final=1.0).configure(net, 5)
    updated = fit(net, configured["optimizer"], 5, configured["lr_scheduler"]["scheduler"])
    optimizers = [
        MUON([p for p in reference.parameters() if p.dim() == 2], lr=0.01, weight_decay=0.1),
        torch.optim.AdamW([p for p in reference.parameters() if p.dim() == 1], lr=0.01, weight_decay=0.0),
    ]
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        reference.zero_grad()
        reference(torch.randn(8, 4, generator=generator)).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
    for parameter, expected in zip(updated, reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected.detach())


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, MUON])
@pytest.mark.parametrize(
    "schedule",
    [
        lr_scheduler.CosineAnnealingLR,
        partial(lr_scheduler.OneCycleLR, cycle_momentum=False),
        partial(lr_scheduler.ConstantLR, factor=1.0),
        stable_then_decay,
    ],
)
def test_optimiser_and_schedule_resume_from_saved_state(optimizer, schedule):
    optim = Optimisation(lr=0.01, weight_decay=0.1, warmup=2, optimizer=optimizer, schedule=schedule)
    net = network()
    configured = optim.configure(net, 12)
    fit(net, configured["optimizer"], 5, configured["lr_scheduler"]["scheduler"])
    states = copy.deepcopy(
        (net.state_dict(), configured["optimizer"].state_dict(), configured["lr_scheduler"]["scheduler"].state_dict())
    )
    uninterrupted = fit(net, configured["optimizer"], 7, configured["lr_scheduler"]["scheduler"], seed=2)
    restored = network()
    resumed = optim.configure(restored, 12)
    parts = (restored, resumed["optimizer"], resumed["lr_scheduler"]["scheduler"])
    for part, state in zip(parts, states, strict=True):
        part.load_state_dict(state)
    for expected, actual in zip(uninterrupted, fit(restored, *parts[1:2], 7, parts[2], seed=2), strict=True):
        assert torch.equal(expected, actual)


@pytest.mark.parametrize(
    ("warmup", "final", "expected"),
    [
        (0, 1.0, [1.0] * 8),
        (0, 0.0, [0.5 + 0.5 * math.cos(math.pi * n / 8) for n in range(8)]),
        (2, 1.0, [1 / 3, 2 / 3, *[1.0] * 6]),
        (0.25, 0.5, [1 / 3, 2 / 3, *[0.75 + 0.25 * math.cos(math.pi * n / 6) for n in range(6)]]),
        (0.01, 1.0, [0.5, *[1.0] * 7]),  # any warm-up takes at least one step
    ],
)
def test_rate_rises_in_warmup_and_decays_to_final(warmup, final, expected):
    assert rate_shares(Optimisation(lr=0.2, warmup=warmup, final=final), 8) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (partial(lr_scheduler.ConstantLR, factor=1.0), [1 / 3, 2 / 3, *[1.0] * 12]),
        (partial(stable_then_decay, decay=0.5), [1 / 3, 2 / 3, *[1.0] * 6, *[0.9, 0.8, 0.7, 0.6, 0.5, 0.5]]),
        (partial(lr_scheduler.PolynomialLR, power=1.0), [1 / 3, 2 / 3, *[1 - n / 10 for n in range(11)], 0.0]),
    ],
)
def test_schedule_spans_the_steps_after_warmup(schedule, expected):
    assert rate_shares(Optimisation(lr=0.2, warmup=2, final=0.5, schedule=schedule), 12, 2) == pytest.approx(expected)


def test_one_cycle_matches_pytorch():
    optimizer = torch.optim.SGD(network().parameters(), 0.2)
    expected = lr_scheduler.OneCycleLR(optimizer, 0.2, 20, cycle_momentum=False)
    schedule = partial(lr_scheduler.OneCycleLR, cycle_momentum=False)
    for share in rate_shares(Optimisation(lr=0.2, warmup=0, schedule=schedule), 20, 0):
        assert share == pytest.approx(expected.get_last_lr()[0] / 0.2)
        optimizer.step()
        expected.step()


def test_plateau_schedule_monitors_criterion():
    schedule = partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0)
    optim = Optimisation(lr=0.2, warmup=0, schedule=schedule)
    configured = optim.configure(network(), 100, Criterion("auroc", "max"))["lr_scheduler"]
    assert (configured["monitor"], configured["interval"]) == ("valid/auroc", "epoch")
    for value, share in ((0.5, 1.0), (0.6, 1.0), (0.6, 0.5), (0.7, 0.5), (0.1, 0.25)):
        configured["scheduler"].step(value)
        assert configured["scheduler"].get_last_lr()[0] == pytest.approx(0.2 * share)


def test_plateau_counts_only_validated_epochs(tmp_path):
    plateau = ["optim/schedule=plateau", "optim.schedule.patience=0", "+optim.schedule.threshold=10", "optim.lr=0.008"]
    validation = ["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=6"]
    train(tmp_path / "run", *write_graphs(tmp_path), *plateau, *validation)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == 0.008 / 4  # of three, the first is the best


def test_plateau_counts_validations_within_epoch(tmp_path):
    """Ten steps in two epochs, validated after steps 3, 6 and 9, of which the first is the best."""
    plateau = ["optim/schedule=plateau", "optim.schedule.patience=0", "+optim.schedule.threshold=10", "optim.lr=0.008"]
    validation = ["trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=3"]
    train(tmp_path / "run", *write_graphs(tmp_path), *plateau, *validation)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == 0.008 / 4


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"schedule": lr_scheduler.ReduceLROnPlateau}, "warmup"),
        ({"optimizer": partial(torch.optim.AdamW, lr=0.1)}, "lr"),
        ({"optimizer": partial(torch.optim.AdamW, betas=(0.9, 1.5))}, "beta"),
        ({"schedule": partial(lr_scheduler.OneCycleLR, pct_start=2.0)}, "pct_start"),
        ({"schedule": partial(stable_then_decay, decay=20)}, "decay"),  # a percentage, or steps
    ],
)
def test_invalid_options_are_rejected_at_construction(options, name):
    with pytest.raises(ValueError, match=name):
        Optimisation(**options)


@pytest.mark.parametrize("steps", [1, 2])
def test_schedule_of_one_or_two_steps(steps):
    configured = Optimisation(warmup=100).configure(network(), steps)
    assert configured["optimizer"].param_groups[0]["lr"] > 0


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (partial(lr_scheduler.ConstantLR, factor=1.0), [1 / 4, 2 / 4, 3 / 4, 1, 1, 1]),
        (partial(lr_scheduler.ExponentialLR, gamma=0.5), [1 / 4, 2 / 4, 3 / 4, 1, 1 / 2, 1 / 4]),
        (partial(lr_scheduler.CosineAnnealingLR, T_max=2), [1 / 4, 2 / 4, 3 / 4, 1, 1 / 2, 0]),
    ],
)
def test_endless_training_has_warmup_and_schedule(schedule, expected):
    configured = Optimisation(lr=1.0, warmup=3, schedule=schedule).configure(network(), -1)
    optimizer, seen = configured["optimizer"], []
    for _ in expected:
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        configured["lr_scheduler"]["scheduler"].step()
    assert seen == pytest.approx(expected)


@pytest.mark.parametrize("schedule", [lr_scheduler.CosineAnnealingLR, lr_scheduler.OneCycleLR, stable_then_decay])
def test_endless_training_rejects_shares_of_its_length(schedule):
    with pytest.raises(UserError, match=rf"^optim\.schedule \({schedule.__name__}\): .* set trainer\.max_epochs"):
        Optimisation(schedule=schedule, warmup=3).configure(network(), -1)
    with pytest.raises(UserError, match=r"^optim\.warmup=0\.1: .* optim\.warmup in steps"):
        Optimisation(schedule=lr_scheduler.ConstantLR, warmup=0.1).configure(network(), -1)


@pytest.mark.parametrize(("scaling", "factor"), [("linear", 4), ("sqrt", 2)])
def test_rate_scales_with_global_batch_size(scaling, factor, tmp_path):
    options = ["data.batch_size=8", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=1", "optim.base_batch=4"]
    optim = ["optim.lr=0.001", "optim/schedule=constant", "optim.warmup=0", f"optim.scaling={scaling}"]
    train(tmp_path / "run", *write_graphs(tmp_path), *options, *optim)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    for group in saved["optimizer_states"][0]["param_groups"]:
        assert group["lr"] == pytest.approx(0.001 * factor)


def test_rate_scaling_requires_fixed_batch_size(tmp_path):
    with pytest.raises(UserError, match=r"optim\.base_batch"):
        train(tmp_path / "run", *write_graphs(tmp_path), "data.batch_nodes=50", "optim.base_batch=4")
