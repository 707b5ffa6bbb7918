"""The HTML report of a run and its figures."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import gt.train.report
from gt.train.figures import curves
from gt.train.page import render, table
from tests.small_runs import train, write_graphs


def test_loss_is_drawn_once_whatever_the_criterion() -> None:
    log = pd.DataFrame({"step": [1, 2], "train/loss": [2.0, 1.0], "valid/loss": [2.0, 1.5], "valid/auroc": [0.5, 0.6]})
    for criterion, titles in (("auroc", ["loss", "auroc"]), ("loss", ["loss"])):
        figure = curves(log, criterion, {"loss": 1.7, "auroc": 0.5})
        assert [axes.get_title() for axes in figure.axes] == titles
        for axes in figure.axes:
            assert len({line.get_color() for line in axes.get_lines()}) == len(axes.get_lines())
            assert "trivial baseline, validation" in [line.get_label() for line in axes.get_lines()]


@pytest.mark.parametrize("count", [1, 2, 100])
def test_markers_and_labels_of_loss_and_learning_rate(count: int) -> None:
    names = ("train/loss", "lr-AdamW/pg1", "lr-AdamW/pg2")
    figure = curves(pd.DataFrame({"step": range(count)} | dict.fromkeys(names, 0.5)), "loss", {})
    for axes, label in zip(figure.axes, ("train/loss", "learning rate"), strict=True):
        *raw, line = axes.get_lines()
        assert line.get_label() == label + (", mean of 10 points" if raw else "")
        assert bool(raw) == (count == 100 and label == "train/loss")  # single batches are faint, behind their means
        marker = "None" if count == 100 else "o"
        assert line.get_marker() == marker
        assert (line.get_markersize() > 5) == (count == 1) or count == 100


def test_smoothed_loss_is_a_moving_mean():
    loss = np.random.default_rng(0).random(40)
    figure = curves(pd.DataFrame({"step": range(40), "train/loss": loss}), "loss", {})
    raw, mean = figure.axes[0].get_lines()
    assert raw.get_color() == mean.get_color()
    np.testing.assert_allclose(raw.get_ydata(), loss)
    np.testing.assert_allclose(mean.get_ydata()[20], loss[18:22].mean())
    assert len(mean.get_ydata()) == 40


def test_plotted_baseline_is_scored_on_validation(tmp_path, monkeypatch):
    plotted = {}
    monkeypatch.setattr(gt.train.report, "curves", lambda log, criterion, scores: plotted.update(scores))
    train(tmp_path / "run", *write_graphs(tmp_path, train=40, valid=30, test=9), "trainer.max_epochs=1")
    labels = {}
    for line in (tmp_path / "graphs.jsonl").read_text().splitlines():
        attributes = json.loads(line)["graph"]
        labels.setdefault(attributes["split"], []).append(attributes["y"])
    majority = np.bincount(labels["train"]).argmax()
    valid_accuracy, test_accuracy = (np.mean(np.equal(labels[split], majority)) for split in ("valid", "test"))
    assert abs(valid_accuracy - test_accuracy) > 0.01
    assert plotted["accuracy"] == pytest.approx(valid_accuracy)


def test_figures_are_saved_in_requested_formats(tmp_path):
    run = tmp_path / "run"
    train(run, *write_graphs(tmp_path, train=8, valid=8, test=8), "trainer.max_epochs=1", "figures=[pdf,svg]")
    saved = {path.name: path.read_bytes() for path in (run / "figures").iterdir()}
    assert saved.keys() == {f"{path.stem}.{kind}" for path in run.glob("*.png") for kind in ("pdf", "svg")}
    assert {"curves.pdf", "predictions.svg"} <= saved.keys()
    for name, content in saved.items():
        assert content.startswith(b"%PDF" if name.endswith("pdf") else b"<?xml")
        assert b"/Type3" not in content  # fonts that many journals reject


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_missing_glyphs_cause_no_warnings(kind):
    figure = Figure()
    figure.text(0.5, 0.5, "正面 \N{GIRL}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert render(figure, kind)


def test_table_aligns_columns_and_escapes_html():
    text = table(("name", "score"), [("<b>", "0.5"), (50 * "a", "1")], words=["name"], bold=[(1, 1)])
    assert text == (
        '<table><tr><th class="words">name</th><th>score</th></tr>'
        '<tr><td class="words">&lt;b&gt;</td><td>0.5</td></tr>'
        f'<tr><td class="words long">{50 * "a"}</td><td><b>1</b></td></tr></table>'
    )
