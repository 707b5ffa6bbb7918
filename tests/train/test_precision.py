"""Every precision that the configuration offers trains, clips and accumulates gradients, or is rejected."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gt.layers import Attention, FeedForward, GatedGCN, ParallelBlock
from gt.masks import Complete
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.compile import Trainer
from tests.graphs import random_batch
from tests.train_matrix import CLIP, PRECISIONS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_combination_trains_or_is_rejected(processes, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"{a} and {b} make {a + b};" for a in range(20) for b in range(20)))
    completed = subprocess.run(
        [sys.executable, "-m", "tests.train_matrix", str(tmp_path / "text.txt"), str(processes)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    cases = [json.loads(line) for line in completed.stdout.splitlines() if line.startswith("{")]
    assert len(cases) == len(PRECISIONS) * 4
    for case in cases:
        if case["precision"] == "16-true":
            assert "trainer.precision" in case["refused"], case
            continue
        assert case["processes"] == processes, case
        assert case["steps"] == 2, case
        assert case["moved"], case
        assert case["finite"], case
        assert case["norms"], case
        for norm in case["norms"]:
            assert norm < 1.01 * CLIP if case["clip"] else norm > 10 * CLIP, case


def test_float32_matmul_precision_is_configurable(monkeypatch):
    precisions = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", precisions.append)
    for options in ({}, {"matmul_precision": "high"}):
        Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)
    assert precisions == ["highest", "high"]


def test_16_bit_network_rescales_outputs_in_float32():
    schema = Schema((5, 5), edge_vocab=(3,), kind="regression", mean=(1003.0,), scale=(0.0625,))
    torch.manual_seed(0)
    net = GraphTransformer(
        schema, 16, 1, lambda width: ParallelBlock(width, GatedGCN, Attention, FeedForward), Complete()
    ).eval()
    batch = random_batch((4, 1, 6))
    exact = net(batch)
    out = net.to(torch.bfloat16)(batch)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, exact, rtol=0, atol=0.01)  # in 16 bits, 1,003 itself would be 1,000 or 1,004


def test_16_bit_network_accepts_float32_features():
    net = GraphTransformer(
        Schema(node_floats=2, outputs=3), 16, 1, lambda width: ParallelBlock(width, attention=Attention)
    ).to(torch.bfloat16)
    batch = random_batch((4, 1, 6))
    batch.x = batch.x.float()
    assert net(batch).isfinite().all()
