"""What networks said, with every gradient, before the layers were rewritten: files that an earlier version wrote."""

import json
from pathlib import Path

import pytest
import torch

from gt.schema import Schema
from gt.train.network import build
from tests.golden.make import CASES, batch, computed

FOLDER = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_before(name):
    saved = torch.load(FOLDER / f"{name}.pt", weights_only=True)
    schema = Schema.from_dict(CASES[name][1])
    net = build(json.loads(saved["config"]), schema)
    net.load_state_dict(saved["state"])
    now = computed(net, batch(name, schema))
    before = saved["computed"]
    assert now.keys() == before.keys()
    for key, value in before.items():
        largest = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(
            now[key] / largest, value / largest, rtol=0, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
        )
