"""Gradient accumulation: several batches train exactly as one batch that holds all of their samples."""

import json

import pytest
import torch

from tests.small_runs import train
from tests.train.test_distributed import MODEL, write_graphs

SMOOTH = ("+optim.optimizer.eps=0.1", "optim.lr=0.2")  # steps proportional to the gradient, not to its sign


def train_weights(folder, *overrides):
    train(folder, *MODEL, *SMOOTH, "trainer.max_epochs=3", *overrides)
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_self_supervised_loss_is_not_weighted_by_labels(tmp_path):
    """Graphs of six nodes, one or all of them labelled; all are masked."""
    lines = []
    for number in range(16):
        nodes = [{"id": n, "kind": (n * number) % 3} for n in range(6)]
        for node in nodes if number % 4 == 0 else nodes[:1]:
            node["label"] = node["kind"] % 2
        split = "train" if number else "valid"
        edges = [{"source": n, "target": n - 1} for n in range(1, 6)]
        graph = {"directed": False, "multigraph": False, "graph": {"split": split}, "nodes": nodes, "edges": edges}
        lines.append(json.dumps(graph))
    (tmp_path / "graphs.jsonl").write_text("\n".join(lines))
    data = (f"data.source.path={tmp_path / 'graphs.jsonl'}", f"data.source.root={tmp_path}", "supervised=1e-9")
    data += ("objective=mask_nodes", "objective.mask_nodes.share=1")
    full_batch = train_weights(tmp_path / "whole", *data, "data.batch_size=15")
    accumulated = train_weights(tmp_path / "parts", *data, "data.batch_size=5", "trainer.accumulate_grad_batches=3")
    for name, value in full_batch.items():
        torch.testing.assert_close(accumulated[name], value, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("batch", "count", "options"),
    [
        (8, 2, ()),
        (4, 5, ()),  # an epoch has four batches, fewer than a step accumulates
        (8, 2, ("optim.skip=1",)),
    ],
)
def test_accumulated_batches_train_as_one(batch, count, options, tmp_path):
    """Graphs of 1 to 15 nodes with a target each: the parts of a batch differ in their number of targets."""
    write_graphs(tmp_path / "graphs.jsonl", {"train": 16, "valid": 1, "test": 1})
    data = (f"data.source.path={tmp_path / 'graphs.jsonl'}", f"data.source.root={tmp_path}", *options)
    full_batch = train_weights(tmp_path / "whole", *data, "data.batch_size=16")
    accumulated = train_weights(
        tmp_path / "parts", *data, f"data.batch_size={batch}", f"trainer.accumulate_grad_batches={count}"
    )
    initial = train_weights(tmp_path / "begun", *data, "data.batch_size=16", "optim.lr=1e-30")
    for name, value in full_batch.items():
        torch.testing.assert_close(accumulated[name], value, rtol=0, atol=2e-6)
    assert any(not torch.allclose(initial[name], value, rtol=0, atol=1e-4) for name, value in full_batch.items())
