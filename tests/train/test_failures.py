"""What the system does to a training is one line with a remedy; PyTorch's and NumPy's own errors."""

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
from tests.parallel.ranks import on_ranks

LARGE = 1 << 50  # bytes that no machine has


def data(**options):
    return SimpleNamespace(**{"batch_size": 32, "eval_batch_size": None, "workers": 2} | options)


def training_step():
    torch.empty(LARGE, dtype=torch.uint8)


def validation_step():
    np.empty(LARGE, np.uint8)


def on_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 1 GiB")


@pytest.mark.parametrize(
    ("step", "options", "said"),
    [
        (training_step, {}, ["1.13e+06 GB", "data.batch_size (now 32)", "trainer.accumulate_grad_batches"]),
        (training_step, {"batch_nodes": 4000}, ["data.batch_nodes (now 4000)", "trainer.accumulate_grad_batches"]),
        (training_step, {"batch_size": None}, ["data/sampler"]),
        (validation_step, {}, ["in evaluation", "data.eval_batch_size"]),
        (validation_step, {"eval_batch_size": 64}, ["data.eval_batch_size (now 64)"]),
        (on_a_gpu, {}, ["2.5 GiB", "data.batch_size (now 32)"]),
    ],
)
def test_short_memory_names_the_key_that_needs_less(step, options, said):
    with pytest.raises(UserError) as caught, explained(data(**options)):
        step()
    assert all(words in str(caught.value) for words in ["out of memory", *said])


class Items(torch.utils.data.Dataset):
    """Two, the second of which fails in the process that makes it."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> int:
        if number and self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if number and self.how == "refused":
            raise UserError("row 1 of items.csv is empty: fill it")
        if number:
            raise KeyError("a bug")
        return number


def test_a_killed_worker_is_named_with_what_needs_less_memory():
    with pytest.raises(UserError, match=r"pid \d+\).*data\.workers \(now 2\)"), explained(data()):
        list(DataLoader(Items("killed"), batch_size=None, num_workers=1))


def test_what_a_worker_refuses_is_its_own_line():
    with pytest.raises(UserError) as caught, explained(data()):
        list(DataLoader(Items("refused"), batch_size=None, num_workers=1))
    assert str(caught.value) == "row 1 of items.csv is empty: fill it"


def test_a_port_that_is_taken_and_processes_that_do_not_meet_are_named(monkeypatch):
    taken = dist.TCPStore("127.0.0.1", 0, 1, True)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(taken.port))
    with pytest.raises(UserError, match=rf"MASTER_PORT={taken.port}: this port is used"), explained(data()):
        dist.TCPStore("127.0.0.1", taken.port, 1, True)
    with pytest.raises(UserError, match=r"did not meet at MASTER_ADDR=127\.0\.0\.1 .*1/2"), explained(data()):
        dist.TCPStore("127.0.0.1", 0, 2, True, timedelta(seconds=1))


def leave_or_sum(rank, world):
    """The first process leaves; what a sum with it comes to in the other."""
    if not rank:
        return ""
    with pytest.raises(UserError) as caught, explained(data()):
        dist.all_reduce(torch.zeros(1))
    return str(caught.value)


def test_a_process_that_has_left_is_said(tmp_path):
    assert on_ranks(2, tmp_path, leave_or_sum)[1].startswith("another process of this run was lost: ")


def test_a_bug_goes_through():
    with pytest.raises(KeyError, match="a bug"), explained(data()):
        list(DataLoader(Items("bug"), batch_size=None, num_workers=1))
