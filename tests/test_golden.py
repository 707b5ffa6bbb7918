"""What networks said, with every gradient, before the layers were rewritten: files that an earlier version wrote."""

import json
import re
from pathlib import Path

import pytest
import torch

from gt.schema import Schema
from gt.train.checkpoint import build
from tests.golden.make import CASES, batch, computed

FOLDER = Path(__file__).parent / "golden"


def renamed(name: str) -> str:
    """What a parameter of that version is called now."""
    return re.sub(r"^(blocks\.\d+)\.project_", r"\1.attention.project_", name)  # of the block of Dwivedi & Bresson


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_before(name):
    saved = torch.load(FOLDER / f"{name}.pt", weights_only=True)
    schema = Schema.from_dict(CASES[name][1])
    net = build(json.loads(saved["config"]), schema)
    net.load_state_dict(saved["state"])
    now = computed(net, batch(name, schema))
    before = {f"grad {renamed(k[5:])}" if k.startswith("grad ") else k: v for k, v in saved["computed"].items()}
    assert now.keys() == before.keys()
    for key, value in before.items():
        largest = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(
            now[key] / largest, value / largest, rtol=0, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
        )
