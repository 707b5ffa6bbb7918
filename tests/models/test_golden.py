"""Outputs and gradients of networks, against files written by an earlier version, before the layers were rewritten."""

import json
from pathlib import Path

import pytest
import torch

from gt.schema import Schema
from gt.train.network import build
from tests.golden.make import CASES, batch, computed

FOLDER = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_match_the_stored_ones(name):
    saved = torch.load(FOLDER / f"{name}.pt", weights_only=True)
    schema = Schema.from_dict(CASES[name][1])
    net = build(json.loads(saved["config"]), schema)
    net.load_state_dict(saved["state"])
    actual = computed(net, batch(name, schema))
    expected = saved["computed"]
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        largest = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(
            actual[key] / largest, value / largest, rtol=0, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
        )
