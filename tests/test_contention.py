"""A run that other processes slow down says so, once."""

from types import SimpleNamespace

import pytest
import torch

from gt.train.callbacks import contention
from tests.small_runs import train, write_graphs


@pytest.mark.parametrize(("rate", "threads", "lines"), [(40.0, 2, 0), (60.0, 2, 1), (400.0, 16, 0), (400.0, 1, 0)])
def test_it_goes_by_how_often_each_thread_loses_its_core(rate, threads, lines, monkeypatch, capsys):
    """Rates are a second and thread, but of sixteen threads altogether: so often they do alone."""
    lost = rate if threads > 2 else rate * threads
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(contention, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    monkeypatch.setattr(contention, "_cores_lost", lambda: int(lost * now.seconds))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    trainer, module = SimpleNamespace(is_global_zero=True), SimpleNamespace(device=torch.device("cpu"))
    callback = contention.Contention()
    callback.on_train_start(trainer, module)
    for _ in range(100):
        now.seconds += 1.0
        callback.on_train_batch_end(trainer, module, None, None, 0)
    said = capsys.readouterr().out
    assert said.count("OMP_NUM_THREADS=1 ") == said.count("\n") == lines


def test_every_run_looks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(contention, "WINDOW", 0.0)
    monkeypatch.setattr(contention, "OFTEN", -1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    train(tmp_path / "run", *write_graphs(tmp_path, train=16), "trainer.max_epochs=2")
    assert capsys.readouterr().out.count("other processes want the same cores") == 1
