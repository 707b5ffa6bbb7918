"""The pictures of a run's page."""

import pandas as pd
import pytest

from gt.train.figures import curves


def test_the_loss_is_drawn_once_whatever_decides() -> None:
    log = pd.DataFrame({"step": [1, 2], "train/loss": [2.0, 1.0], "valid/loss": [2.0, 1.5], "valid/auroc": [0.5, 0.6]})
    for criterion, titles in (("auroc", ["loss", "auroc"]), ("loss", ["loss"])):
        figure = curves(log, criterion, {"loss": 1.7, "auroc": 0.5})
        assert [axes.get_title() for axes in figure.axes] == titles
        for axes in figure.axes:
            assert "trivial baseline" in [line.get_label() for line in axes.get_lines()]


@pytest.mark.parametrize("count", [1, 2, 100])
def test_one_point_is_drawn_as_a_dot_and_the_rate_goes_by_its_name(count: int) -> None:
    names = ("train/loss", "lr-AdamW/pg1", "lr-AdamW/pg2")
    figure = curves(pd.DataFrame({"step": range(count)} | dict.fromkeys(names, 0.5)), "loss", {})
    for axes, label in zip(figure.axes, ("train/loss", "learning rate"), strict=True):
        (line,) = axes.get_lines()
        assert line.get_label() == label
        drawn = "None" if count == 100 else "o"
        assert line.get_marker() == drawn
        assert (line.get_markersize() > 5) == (count == 1) or count == 100
