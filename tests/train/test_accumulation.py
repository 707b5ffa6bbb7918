"""Batches whose gradients are added up for one step train as one batch that holds all of them."""

import json

import pytest
import torch

from tests.small_runs import train
from tests.train.test_distributed import MODEL, write_graphs

SMOOTH = ("+optim.optimizer.eps=0.1", "optim.lr=0.2")  # steps go by the gradient itself, not by its sign


def weights(folder, *overrides):
    train(folder, *MODEL, *SMOOTH, "trainer.max_epochs=3", *overrides)
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_what_is_learned_without_labels_does_not_weigh_by_labels(tmp_path):
    """Graphs of six nodes, of which one or all have a label; what is hidden of them are all."""
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
    whole = weights(tmp_path / "whole", *data, "data.batch_size=15")
    parts = weights(tmp_path / "parts", *data, "data.batch_size=5", "trainer.accumulate_grad_batches=3")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("batch", "together", "more"),
    [
        (8, 2, ()),
        (4, 5, ()),  # an epoch has four batches, fewer than are wanted for a step
        (8, 2, ("optim.skip=1",)),
    ],
)
def test_a_batch_may_come_in_parts(batch, together, more, tmp_path):
    """Graphs of 1 to 15 nodes with a target each: one half of a batch knows more of them than the other."""
    write_graphs(tmp_path / "graphs.jsonl", {"train": 16, "valid": 1, "test": 1})
    data = (f"data.source.path={tmp_path / 'graphs.jsonl'}", f"data.source.root={tmp_path}", *more)
    whole = weights(tmp_path / "whole", *data, "data.batch_size=16")
    parts = weights(
        tmp_path / "parts", *data, f"data.batch_size={batch}", f"trainer.accumulate_grad_batches={together}"
    )
    begun = weights(tmp_path / "begun", *data, "data.batch_size=16", "optim.lr=1e-30")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=2e-6)
    assert any(not torch.allclose(begun[name], value, rtol=0, atol=1e-4) for name, value in whole.items())
