"""Processes that make batches for a GPU: they are forked, and may not ask CUDA anything."""

import os
from functools import partial

import numpy as np
import pytest
import torch

from gt.attention import Demand, costs
from gt.data.batch_sampler import Batches
from gt.data.batching import GraphDataset
from gt.data.datamodule import Loader
from gt.data.packed import Graphs, pointers
from gt.masks import Hops
from gt.schema import Schema


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that, as CUDA does, refuses to answer a process that was forked."""

    def answer(value):
        if os.getpid() != this:
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")
        return value

    def forget():
        costs.cost_table.cache_clear()
        costs.capability.cache_clear()

    this = os.getpid()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", partial(answer, "a GPU"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", partial(answer, (9, 0)))
    forget()
    yield
    forget()


def test_workers_choose_the_backend_without_asking_the_gpu(gpu):
    sizes = np.array([3, 5, 2, 4])
    edges = np.concatenate([np.stack([np.arange(size - 1), np.arange(1, size)]) for size in sizes], axis=1)
    graphs = Graphs(pointers(sizes), pointers(sizes - 1), edges, Schema(max_nodes=5)).sort_edges()
    batches = Batches(sizes, batch_size=2)
    batches.readings = lambda: [(Hops(1), Demand("cuda", half=True))]
    loader = Loader(GraphDataset(graphs, np.arange(4)), sampler=batches, batch_size=None, num_workers=1)
    assert sum(batch.num_graphs for batch in loader) == 4
