"""The warning that other processes compete for the CPU cores: when it is given, and that it is given once."""

from types import SimpleNamespace

import pytest
import torch

from gt.train.callbacks import contention
from tests.small_runs import train, write_graphs


@pytest.mark.parametrize(
    ("rate", "share", "threads", "lines"),
    [(40.0, 0.6, 2, 0), (60.0, 0.6, 2, 1), (60.0, 0.9, 2, 0), (40.0, 0.6, 16, 0), (400.0, 0.6, 1, 0)],
)
def test_warning_depends_on_preemptions_and_cpu_usage(rate, share, threads, lines, monkeypatch, capsys):
    now = SimpleNamespace(seconds=100.0)
    clocks = {"monotonic": lambda: now.seconds, "process_time": lambda: share * threads * now.seconds}
    monkeypatch.setattr(contention, "time", SimpleNamespace(**clocks))
    monkeypatch.setattr(contention, "_preemptions", lambda: int(rate * threads * now.seconds))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    trainer, module = SimpleNamespace(is_global_zero=True), SimpleNamespace(device=torch.device("cpu"))
    callback = contention.Contention()
    callback.on_train_start(trainer, module)
    for _ in range(100):
        now.seconds += 1.0
        callback.on_train_batch_end(trainer, module, None, None, 0)
    output = capsys.readouterr().out
    assert output.count("OMP_NUM_THREADS=1 ") == output.count("\n") == lines


def test_training_warns_of_contention_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(contention, "WINDOW", 0.0)
    monkeypatch.setattr(contention, "MAX_PREEMPTIONS", -1.0)
    monkeypatch.setattr(contention, "MIN_USAGE", 100.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    train(tmp_path / "run", *write_graphs(tmp_path, train=16), "trainer.max_epochs=2")
    assert capsys.readouterr().out.count("other processes compete for the same cores") == 1
