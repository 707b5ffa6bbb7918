"""How often the progress bar reads what a device computes."""

from types import SimpleNamespace

import pytest
from pytorch_lightning.callbacks import RichProgressBar

from gt.train.callbacks import Progress, progress


@pytest.mark.parametrize(("refresh", "readings"), [(0.0, 5), (60.0, 1)])
def test_metrics_are_read_at_intervals_rather_than_after_every_batch(refresh, readings, monkeypatch):
    """To read one is to wait for the GPU."""
    read = []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(progress, "REFRESH", refresh)
    monkeypatch.setattr(RichProgressBar, "get_metrics", lambda *arguments: read.append(arguments) or {})
    monkeypatch.setattr(RichProgressBar, "_update", lambda *arguments: None)
    bar = Progress()
    bar.enable()
    bar.train_progress_bar_id, bar._metric_component = 0, SimpleNamespace(update=len)
    for index in range(5):
        RichProgressBar.on_train_batch_end(bar, None, None, None, None, index)
    assert len(read) == readings
