"""The pictures of a run's page."""

import pandas as pd

from gt.train.report import curves


def test_the_loss_is_drawn_once_whatever_decides() -> None:
    log = pd.DataFrame({"step": [1, 2], "train/loss": [2.0, 1.0], "valid/loss": [2.0, 1.5], "valid/auroc": [0.5, 0.6]})
    for criterion, titles in (("auroc", ["loss", "auroc"]), ("loss", ["loss"])):
        figure = curves(log, criterion, {"loss": 1.7, "auroc": 0.5})
        assert [axes.get_title() for axes in figure.axes] == titles
        for axes in figure.axes:
            assert "trivial baseline" in [line.get_label() for line in axes.get_lines()]
