"""Context parallelism by one override: training with two processes that share each batch matches one process."""

import json

import numpy as np
import pytest

from tests.train.test_distributed import logged, train

SHORT = ("model.width=16", "model.depth=2", "logger=csv", "trainer.log_every_n_steps=1")


def assert_matches_one_process(folder, *options):
    """Losses and scores over at least 20 steps are equal, and ring attention was used."""
    single = train(folder / "alone", *SHORT, *options, "trainer=cpu")
    assert single.returncode == 0, single.stderr
    sharded = train(folder / "both", *SHORT, *options, "trainer=context_parallel", "trainer.accelerator=cpu")
    assert sharded.returncode == 0, sharded.stderr
    assert "Warning" not in sharded.stderr
    assert "ring" in sharded.stdout
    assert len(logged(folder / "alone", "train/loss")) >= 20
    for name in ("train/loss", "valid/loss", "valid/accuracy"):
        assert logged(folder / "both", name) == pytest.approx(logged(folder / "alone", name), abs=1e-5)
    scores, expected = (json.loads((folder / run / "result.json").read_text())["scores"] for run in ("both", "alone"))
    assert scores == pytest.approx(expected, abs=1e-5)


def test_language_model_matches_one_process(tmp_path):
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "a", "mat", "and", "ran", "away"], 1500)
    (tmp_path / "words.txt").write_text(" ".join(words))
    assert_matches_one_process(
        tmp_path,
        *("data=text", f"data.path={tmp_path / 'words.txt'}", f"data.root={tmp_path}", "data.context=150"),
        *("data.batch_size=3", "trainer.max_epochs=-1", "trainer.max_steps=20", "trainer.val_check_interval=10"),
        *("trainer.check_val_every_n_epoch=null", "optim.lr=0.01"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["mask.hops=null", "mask.schedule=[1,null]"])
def test_single_graph_matches_one_process(mask, tmp_path):
    ends, splits = np.unique(np.random.default_rng(0).integers(90, size=(300, 2)), axis=0), ("train", "valid", "test")
    nodes = [{"id": n, "kind": n % 5, "label": n % 3, "split": splits[n % 4 % 3]} for n in range(90)]
    edges = [{"source": int(a), "target": int(b), "far": float(abs(a - b))} for a, b in ends if a != b]
    graph = {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "edges": edges}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    assert_matches_one_process(
        tmp_path,
        *("data=graph_file_nodes", f"data.path={tmp_path / 'graph.json'}", f"data.root={tmp_path}", "mask=hops", mask),
        *("model=gps", "model.block.dropout=0", "trainer.max_epochs=24", "callbacks.early_stopping=null"),
    )
