"""What runs on Apple's GPUs, which Lightning selects by itself where there is one."""

import math

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from gt.attention import Demand, explain
from gt.inference.analysis import _by_distance
from gt.masks import Hops
from tests.graphs import random_batch


def test_auto_chooses_among_operations_that_they_have():
    pairs = Hops(1)(random_batch((300, 200), density=0.01))
    costs_or_reasons = explain(pairs, Demand(device="mps"))
    usable = {name for name, cost in costs_or_reasons.items() if not isinstance(cost, str) and cost < math.inf}
    assert usable == {"dense", "sdpa"}
    assert costs_or_reasons["sparse"] == "PyTorch has no sparse products on Apple's GPUs"


def test_attention_by_distance_is_summed_without_float64():
    with FakeTensorMode():
        weights, distance = torch.ones(2, 4, 3, 3, device="mps"), torch.zeros(2, 3, 3, dtype=torch.long, device="mps")
        assert _by_distance(weights, distance, 5).dtype == torch.float32
    assert _by_distance(torch.ones(2, 4, 3, 3), torch.zeros(2, 3, 3, dtype=torch.long), 5).dtype == torch.float64
