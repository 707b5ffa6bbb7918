"""Statistics of batch norms, taken anew before each validation: against PyTorch's own way to take them."""

import pytest
import torch
from hydra.utils import instantiate
from torch.optim.swa_utils import update_bn

from gt.train.checkpoint import load
from tests.small_runs import configured, train, weights, write_graphs

PLAIN = ["model.block.dropout=0", "callbacks.norm_statistics.batches=3"]
TAKEN = ["callbacks=[default,norm_statistics]", *PLAIN]
AVERAGED = ["optim.lr=0.1", "callbacks.swa.start=0.3"]


def statistics(state):
    return {name: value for name, value in state.items() if "running" in name}


@pytest.mark.parametrize(
    "options",
    [
        TAKEN,
        ["callbacks=[default,swa,norm_statistics]", *PLAIN, *AVERAGED],
        ["callbacks=[default,norm_statistics,swa]", *PLAIN, *AVERAGED],
        ["callbacks=[default,norm_statistics,ema]", *PLAIN, "optim.lr=0.1", "callbacks.average.decay=0.9"],
    ],
)
def test_they_are_those_of_the_weights_that_are_kept(tmp_path, options):
    data = write_graphs(tmp_path)
    train(tmp_path / "run", *data, *options)
    net = load(tmp_path / "run").net
    kept = {name: value.clone() for name, value in statistics(net.state_dict()).items()}
    with configured(tmp_path / "run", *data) as cfg:
        module = instantiate(cfg.data)
    module.open([])
    dataset, batches = module.dataset("train"), list(module.batches("train"))
    assert len(batches) > 3
    update_bn([dataset[request] for request in batches[:3]], net)
    found = statistics(net.state_dict())
    assert found.keys() == kept.keys() != set()
    for name, value in kept.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_no_block_is_skipped_meanwhile(tmp_path):
    data = write_graphs(tmp_path)
    train(tmp_path / "run", *data, *TAKEN, "+model.stochastic_depth=0.5", "model.depth=4")
    task = load(tmp_path / "run")
    assert task.net.stochastic_depth == 0.5
    kept = {name: value.clone() for name, value in statistics(task.net.state_dict()).items()}
    with configured(tmp_path / "run", *data) as cfg:
        module = instantiate(cfg.data)
    module.open([])
    dataset, batches = module.dataset("train"), list(module.batches("train"))
    task.net.stochastic_depth = 0.0
    update_bn([dataset[request] for request in batches[:3]], task.net)
    for name, value in statistics(task.net.state_dict()).items():
        torch.testing.assert_close(value, kept[name], msg=name)


def test_training_itself_stays_as_it_was(tmp_path):
    data = write_graphs(tmp_path)
    options = ["model.block.dropout=0.3"]
    train(tmp_path / "plain", *data, *options)
    train(tmp_path / "taken", *data, *TAKEN, *options)
    plain, taken = (weights(tmp_path / name) for name in ("plain", "taken"))
    other = {name for name in plain if not torch.equal(plain[name], taken[name])}
    assert other
    assert all("running" in name or "num_batches" in name for name in other)


def test_a_run_that_goes_on_takes_the_same(tmp_path):
    data, steady = write_graphs(tmp_path), ["optim.warmup=0", "optim/schedule=constant"]
    train(tmp_path / "whole", *data, *TAKEN, *steady)
    train(tmp_path / "half", *data, *TAKEN, *steady, "trainer.max_epochs=1")
    train(tmp_path / "half", *data, *TAKEN, *steady, resume=True)
    half = weights(tmp_path / "half")
    assert all(torch.equal(half[name], value) for name, value in weights(tmp_path / "whole").items())
