"""Batch-norm statistics recomputed before each validation, against PyTorch's `update_bn`."""

import pytest
import torch
from hydra.utils import instantiate
from torch.optim.swa_utils import update_bn

from gt.train.checkpoint import load
from tests.small_runs import configured, train, weights, write_graphs

PLAIN = ["model.block.dropout=0", "callbacks.norm_statistics.batches=3"]
RECOMPUTED = ["callbacks=[default,norm_statistics]", *PLAIN]
AVERAGED = ["optim.lr=0.1", "callbacks.swa.start=0.3"]


def running_statistics(state):
    return {name: value for name, value in state.items() if "running" in name}


@pytest.mark.parametrize(
    "options",
    [
        RECOMPUTED,
        ["callbacks=[default,swa,norm_statistics]", *PLAIN, *AVERAGED],
        ["callbacks=[default,norm_statistics,swa]", *PLAIN, *AVERAGED],
        ["callbacks=[default,norm_statistics,ema]", *PLAIN, "optim.lr=0.1", "callbacks.average.decay=0.9"],
    ],
)
def test_statistics_match_the_saved_weights(tmp_path, options):
    data = write_graphs(tmp_path)
    train(tmp_path / "run", *data, *options)
    net = load(tmp_path / "run").net
    saved = {name: value.clone() for name, value in running_statistics(net.state_dict()).items()}
    with configured(tmp_path / "run", *data) as cfg:
        module = instantiate(cfg.data)
    module.open([])
    dataset, batches = module.dataset("train"), list(module.batches("train"))
    assert len(batches) > 3
    update_bn([dataset[request] for request in batches[:3]], net)
    expected = running_statistics(net.state_dict())
    assert expected.keys() == saved.keys() != set()
    for name, value in saved.items():
        torch.testing.assert_close(expected[name], value, msg=name)


def test_stochastic_depth_is_off_during_recomputation(tmp_path):
    data = write_graphs(tmp_path)
    train(tmp_path / "run", *data, *RECOMPUTED, "+model.stochastic_depth=0.5", "model.depth=4")
    task = load(tmp_path / "run")
    assert task.net.stochastic_depth == 0.5
    saved = {name: value.clone() for name, value in running_statistics(task.net.state_dict()).items()}
    with configured(tmp_path / "run", *data) as cfg:
        module = instantiate(cfg.data)
    module.open([])
    dataset, batches = module.dataset("train"), list(module.batches("train"))
    task.net.stochastic_depth = 0.0
    update_bn([dataset[request] for request in batches[:3]], task.net)
    for name, value in running_statistics(task.net.state_dict()).items():
        torch.testing.assert_close(value, saved[name], msg=name)


def test_training_is_unaffected(tmp_path):
    data = write_graphs(tmp_path)
    options = ["model.block.dropout=0.3"]
    train(tmp_path / "plain", *data, *options)
    train(tmp_path / "taken", *data, *RECOMPUTED, *options)
    plain, recomputed = (weights(tmp_path / name) for name in ("plain", "taken"))
    differing = {name for name in plain if not torch.equal(plain[name], recomputed[name])}
    assert differing
    assert all("running" in name or "num_batches" in name for name in differing)


def test_resumed_run_matches_uninterrupted_run(tmp_path):
    data, constant_rate = write_graphs(tmp_path), ["optim.warmup=0", "optim/schedule=constant"]
    train(tmp_path / "whole", *data, *RECOMPUTED, *constant_rate)
    train(tmp_path / "half", *data, *RECOMPUTED, *constant_rate, "trainer.max_epochs=1")
    train(tmp_path / "half", *data, *RECOMPUTED, *constant_rate, resume=True)
    resumed = weights(tmp_path / "half")
    assert all(torch.equal(resumed[name], value) for name, value in weights(tmp_path / "whole").items())
