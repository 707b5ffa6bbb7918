"""Backends on Apple's GPUs, which Lightning selects by itself where there is one."""

import math

from gt.attention import Demand, explain
from gt.masks import Hops
from tests.graphs import random_batch


def test_auto_chooses_among_operations_that_they_have():
    pairs = Hops(1)(random_batch((300, 200), density=0.01))
    costs_or_reasons = explain(pairs, Demand(device="mps"))
    usable = {name for name, cost in costs_or_reasons.items() if not isinstance(cost, str) and cost < math.inf}
    assert usable == {"dense", "sdpa"}
    assert costs_or_reasons["sparse"] == "PyTorch has no sparse products on Apple's GPUs"
