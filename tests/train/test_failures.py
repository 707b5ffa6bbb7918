"""System failures during training, as PyTorch and NumPy raise them, become one line with a remedy."""

import os
import signal
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from gt.errors import UserError
from gt.train.failures import explained
from tests.parallel.ranks import run_on_ranks

LARGE = 1 << 50  # bytes, more than any machine has


def data_options(**options):
    return SimpleNamespace(**{"batch_size": 32, "eval_batch_size": None, "workers": 2} | options)


def training_step():
    torch.empty(LARGE, dtype=torch.uint8)


def validation_step():
    np.empty(LARGE, np.uint8)


def gpu_step():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 1 GiB")


@pytest.mark.parametrize(
    ("step", "options", "parts"),
    [
        (training_step, {}, ["1.13e+06 GB", "data.batch_size (now 32)", "trainer.accumulate_grad_batches"]),
        (training_step, {"batch_nodes": 4000}, ["data.batch_nodes (now 4000)", "trainer.accumulate_grad_batches"]),
        (training_step, {"batch_size": None}, ["data/sampler"]),
        (validation_step, {}, ["in evaluation", "data.eval_batch_size"]),
        (validation_step, {"eval_batch_size": 64}, ["data.eval_batch_size (now 64)"]),
        (gpu_step, {}, ["2.5 GiB", "data.batch_size (now 32)"]),
    ],
)
def test_out_of_memory_names_the_options_to_lower(step, options, parts):
    with pytest.raises(UserError) as caught, explained(data_options(**options)):
        step()
    assert all(part in str(caught.value) for part in ["out of memory", *parts])


class FailingDataset(torch.utils.data.Dataset):
    """Two items, the second of which fails in the worker that loads it."""

    def __init__(self, failure: str) -> None:
        self.failure = failure

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        if index and self.failure == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if index and self.failure == "refused":
            raise UserError("row 1 of items.csv is empty: fill it")
        if index:
            raise KeyError("a bug")
        return index


def test_killed_worker_is_reported_with_advice():
    with pytest.raises(UserError, match=r"pid \d+\).*data\.workers \(now 2\)"), explained(data_options()):
        list(DataLoader(FailingDataset("killed"), batch_size=None, num_workers=1))


def test_worker_error_is_reported_in_one_line():
    with pytest.raises(UserError) as caught, explained(data_options()):
        list(DataLoader(FailingDataset("refused"), batch_size=None, num_workers=1))
    assert str(caught.value) == "row 1 of items.csv is empty: fill it"


def test_connection_failures_are_explained(monkeypatch):
    taken = dist.TCPStore("127.0.0.1", 0, 1, True)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(taken.port))
    with pytest.raises(UserError, match=rf"MASTER_PORT={taken.port}: this port is used"), explained(data_options()):
        dist.TCPStore("127.0.0.1", taken.port, 1, True)
    with pytest.raises(UserError, match=r"did not meet at MASTER_ADDR=127\.0\.0\.1 .*1/2"), explained(data_options()):
        dist.TCPStore("127.0.0.1", 0, 2, True, timedelta(seconds=1))


def exit_or_reduce(rank, world):
    """The message of the error when rank 0 exits and the other rank reduces with it."""
    if not rank:
        return ""
    with pytest.raises(UserError) as caught, explained(data_options()):
        dist.all_reduce(torch.zeros(1))
    return str(caught.value)


def test_lost_process_is_reported(tmp_path):
    assert run_on_ranks(2, tmp_path, exit_or_reduce)[1].startswith("another process of this run was lost: ")


def test_internal_errors_are_not_swallowed():
    with pytest.raises(KeyError, match="a bug"), explained(data_options()):
        list(DataLoader(FailingDataset("bug"), batch_size=None, num_workers=1))
