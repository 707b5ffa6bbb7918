"""One override, and two processes that share each batch train as one process does."""

import json

import numpy as np
import pytest

from tests.train.test_distributed import logged, train

SHORT = ("model.width=16", "model.depth=2", "logger=csv", "trainer.log_every_n_steps=1")


def assert_trains_as_one(folder, *options):
    """Losses and scores of 20 steps and more; and attention went round a ring."""
    alone = train(folder / "alone", *SHORT, *options, "trainer=cpu")
    assert alone.returncode == 0, alone.stderr
    both = train(folder / "both", *SHORT, *options, "trainer=context_parallel", "trainer.accelerator=cpu")
    assert both.returncode == 0, both.stderr
    assert "Warning" not in both.stderr
    assert "ring" in both.stdout
    assert len(logged(folder / "alone", "train/loss")) >= 20
    for name in ("train/loss", "valid/loss", "valid/accuracy"):
        assert logged(folder / "both", name) == pytest.approx(logged(folder / "alone", name), abs=1e-5)
    scores, right = (json.loads((folder / run / "result.json").read_text())["scores"] for run in ("both", "alone"))
    assert scores == pytest.approx(right, abs=1e-5)


def test_text_longer_than_a_process_has(tmp_path):
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "a", "mat", "and", "ran", "away"], 1500)
    (tmp_path / "words.txt").write_text(" ".join(words))
    assert_trains_as_one(
        tmp_path,
        *("data=text", f"data.path={tmp_path / 'words.txt'}", f"data.root={tmp_path}", "data.context=150"),
        *("data.batch_size=3", "trainer.max_epochs=-1", "trainer.max_steps=20", "trainer.val_check_interval=10"),
        *("trainer.check_val_every_n_epoch=null", "optim.lr=0.01"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["mask.hops=null", "mask.schedule=[1,null]"])
def test_one_graph(mask, tmp_path):
    ends, splits = np.unique(np.random.default_rng(0).integers(90, size=(300, 2)), axis=0), ("train", "valid", "test")
    nodes = [{"id": n, "kind": n % 5, "label": n % 3, "split": splits[n % 4 % 3]} for n in range(90)]
    edges = [{"source": int(a), "target": int(b), "far": float(abs(a - b))} for a, b in ends if a != b]
    graph = {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "edges": edges}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    assert_trains_as_one(
        tmp_path,
        *("data=graph_file_nodes", f"data.path={tmp_path / 'graph.json'}", f"data.root={tmp_path}", "mask=hops", mask),
        *("model=gps", "model.block.dropout=0", "trainer.max_epochs=24", "callbacks.early_stopping=null"),
    )
