"""Errors of constructors name the configuration key that caused them."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.optim import AdamW

import gt.train.network
import train
from gt.cli.config import check
from gt.data.python.functions import PythonFunctions
from gt.errors import UserError
from gt.layers import Attention, FeedForward, GatedGCN
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.construct import constructing
from gt.train.network import build, rehearse
from gt.train.optim import Optimisation
from tests.cli.configurations import composed, options_of
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture

SCHEMA = Schema((5,), edge_vocab=(3,), outputs=2)


class Layer:
    """Rejects some sizes, with several kinds of error."""

    def __init__(self, size: int, inner: object = None) -> None:
        if size == 0:
            raise ValueError(f"size must be 1 or more, not {size}")
        if size == 1:
            raise RuntimeError("something about no argument")
        if size == 2:
            raise UserError("said already")
        if size == 3:
            Path("/nowhere/at/all").read_text()
        if inner == "call":
            raise TypeError("no such size")
        self.inner = inner(4) if callable(inner) else inner


def layer(size: int) -> Layer:
    """A function in place of a class."""
    if size < 0:
        raise ValueError(f"size is {size}")
    return Layer(size)


NAME = f"{__name__}.Layer"
REJECTED = {
    "a value": ({"_target_": NAME, "size": 0}, "part.size=0: size must be 1 or more, not 0"),
    "no key in the message": ({"_target_": NAME, "size": 1}, "part: something about no argument"),
    "a part of a part": (
        {"_target_": NAME, "size": 9, "inner": {"_target_": NAME, "size": 0}},
        "part.inner.size=0: size must be 1 or more, not 0",
    ),
    "called by what it is a part of": (
        {"_target_": NAME, "size": 9, "inner": {"_target_": NAME, "_partial_": True, "inner": "call"}},
        "part.inner: no such size",
    ),
    "a function": ({"_target_": f"{__name__}.layer", "size": -2}, "part.size=-2: size is -2"),
    "in a list": (
        {"_target_": NAME, "size": 9, "inner": [{"_target_": NAME, "size": 7}, {"_target_": NAME, "size": 0}]},
        "part.inner.1.size=0: size must be 1 or more, not 0",
    ),
    "of two alike the one": (
        {
            "_target_": NAME,
            "size": 9,
            "inner": {"a": {"_target_": NAME, "size": 7}, "b": {"_target_": NAME, "size": 1}},
        },
        "part.inner.b: something about no argument",
    ),
    "said by the constructor": ({"_target_": NAME, "size": 2}, "said already"),
}  # fmt: skip


@pytest.mark.parametrize(("part", "message"), REJECTED.values(), ids=REJECTED)
def test_error_names_the_innermost_constructor(part, message):
    cfg = OmegaConf.create({"other": {"_target_": NAME, "size": 5}, "part": part})
    with pytest.raises(UserError) as caught, constructing(cfg):
        instantiate(cfg.part, _convert_="all")
    assert str(caught.value) == message


def test_missing_argument_is_named_with_its_section():
    cfg = OmegaConf.create({"part": {"_target_": NAME, "size": 9, "inner": {"_target_": NAME}}})
    with pytest.raises(UserError, match=r"^part\.inner: .*'size'"), constructing(cfg):
        instantiate(cfg.part)


def test_unrelated_errors_are_not_translated():
    cfg = OmegaConf.create({"part": {"_target_": NAME, "size": 3}})
    with pytest.raises(FileNotFoundError), constructing(cfg):
        instantiate(cfg.part)
    with pytest.raises(ZeroDivisionError), constructing(cfg):
        1 / 0  # noqa: B018
    with pytest.raises(ValueError, match="size"), constructing(cfg, RuntimeError):
        Layer(0)


MODELS = {
    "model.block.attention.heads=0": [],
    "model.block.attention.heads=3": [],
    "model.block.attention.dropout=1.0": [],
    "model.block.attention.backend='spares'": [],
    "model.block.local.dropout=1.5": ["model.block.local.dropout=1.5"],
    "model.block.feed_forward.ratio=0": [],
    "model.block.blend.weight=1.5": [],
    "model.head.hidden=-1": [],
    "model.head.pool=[]": [],
    "model.width=0": [],
    "model.depth=-1": [],
    "mask.hops=-1": [],
    "mask.width=-1": ["mask=window", "mask.width=-1"],
}


@pytest.mark.parametrize("key", MODELS)
def test_network_error_names_its_key(key):
    cfg = composed("encoding=none", *(MODELS[key] or ["+" + key if "backend" in key else key]))
    config = OmegaConf.to_container(cfg, resolve=True)
    with pytest.raises(UserError) as caught:
        build({part: config.get(part, {}) for part in ("model", "mask", "encoding")}, SCHEMA)
    assert str(caught.value).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optim.optimizer.betas=[2,3]", "optim.optimizer.betas=[2, 3]"),
        ("+optim.optimizer.eps=-1.0", "optim.optimizer.eps=-1.0"),
    ],
)
def test_optimiser_error_names_its_key(override, key):
    cfg = composed(override)
    with pytest.raises(UserError) as caught, constructing(cfg):
        instantiate(cfg.optim, _convert_="all")
    assert str(caught.value).startswith(f"{key}: ")


@pytest.mark.parametrize(
    "construct",
    [
        partial(Optimisation, lr=0), partial(Optimisation, lr=float("nan")), partial(Optimisation, lr=float("inf")),
        partial(Optimisation, weight_decay=-1), partial(Optimisation, optimizer=partial(AdamW, betas=(0.9, 1.0))),
        partial(Optimisation, warmup=-1),
        partial(Optimisation, final=1.5), partial(Attention, 8, heads=0), partial(Attention, 8, heads=-2),
        partial(Attention, 8, dropout=1.0), partial(Attention, 8, dropout=float("nan")),
        partial(Attention, 8, backend="quick"), partial(FeedForward, 8, ratio=0.0), partial(FeedForward, 8, dropout=1),
        partial(GatedGCN, 8, dropout=-0.1), partial(GraphTransformer, SCHEMA, 8, 0, dropout=1.0),
        partial(GraphTransformer, SCHEMA, 8, 0, init_std=0.0),
        partial(GraphTransformer, SCHEMA, 8, 0, init_std=0.02, glorot=True),
    ],
)  # fmt: skip
def test_constructors_reject_values_out_of_range(construct):
    with pytest.raises(ValueError, match=r"lr|weight_decay|beta|warmup|final|heads|dropout|quick|ratio|init_std"):
        construct()


@pytest.mark.parametrize(
    "override",
    [
        "trainer.max_epochs=0", "trainer.max_epochs=-2", "trainer.max_steps=0", "trainer.limit_train_batches=0",
        "trainer.limit_train_batches=0.0", "trainer.limit_val_batches=0", "trainer.limit_test_batches=-1",
        "trainer.accumulate_grad_batches=0", "trainer.gradient_clip_val=-1", "trainer.val_check_interval=0",
        "trainer.check_val_every_n_epoch=0", "trainer.log_every_n_steps=0", "trainer.num_sanity_val_steps=-2",
        "trainer.limit_train_batches=1.5", "trainer.val_check_interval=2.5", "callbacks.checkpoint.save_top_k=-2",
        "trainer.devices=0", "+trainer.overfit_batches=1",
        "+trainer.num_nodes=0", "callbacks.early_stopping.patience=-1", "seed=-1", "seed=4294967296",
    ],
)  # fmt: skip
def test_options_lightning_ignores_are_rejected(override):
    key, _, value = override.lstrip("+").partition("=")
    with pytest.raises(UserError) as caught:
        check(composed(override))
    assert str(caught.value).startswith(f"{key}={value}: ")


def test_special_values_of_lightning_are_accepted():
    check(composed("trainer.max_epochs=-1", "trainer.limit_train_batches=0.5", "trainer.gradient_clip_val=0"))
    check(composed("trainer.max_steps=5", "trainer.val_check_interval=0.25", "trainer.gradient_clip_val=null"))
    check(composed("+trainer.fast_dev_run=true", "seed=4294967295", "trainer.limit_test_batches=1.0"))


@pytest.mark.parametrize(
    "key",
    [
        "model.block.attention.heads=0", "model.block.attention.backend='quick'", "model.width=-1", "optim.lr=-1",
        "trainer.strategy='quick'", "trainer.precision='fp8'", "encoding.rwse.steps",
    ],
)  # fmt: skip
def test_untrainable_config_fails_before_the_data_are_built(key, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(PythonFunctions, "key", lambda *_: pytest.fail("the data were built"))
    override = "encoding.rwse.steps=0" if key.startswith("encoding") else key
    monkeypatch.setattr(sys, "argv", ["train.py", override, "logger=csv", f"hydra.run.dir={tmp_path / 'run'}"])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit):
        train.command()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "steps" in line if key.startswith("encoding") else key.partition("=")[0] in line


@pytest.mark.parametrize("model", options_of("model"))
@pytest.mark.parametrize("encoding", ["none", "[sinusoidal,degree]", "[learned,rope]"])
def test_rehearsal_preserves_the_random_state(model, encoding, monkeypatch):
    config = OmegaConf.to_container(composed(model, f"encoding={encoding}"), resolve=True)
    parts = {part: config.get(part, {}) for part in ("model", "mask", "encoding")}
    built = []
    monkeypatch.setattr(gt.train.network, "build", lambda *args: built.append(build(*args)))
    before = torch.get_rng_state()
    rehearse(parts)
    assert len(built) == 1
    assert torch.equal(before, torch.get_rng_state())
