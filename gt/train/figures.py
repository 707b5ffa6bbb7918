"""The figures of a run's report: curves, predictions, blend weights and the reach of attention."""

import itertools
import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gt.inference.analysis import Profile, Reach
from gt.schema import Schema

MIN_SMOOTHED = 20  # points from which on a curve is smoothed
MAX_CLASSES = 100  # in a confusion matrix
MAX_TARGETS = 9  # regression targets plotted
TITLE_WIDTH = 44  # characters per line of a panel's title


def curves(log: pd.DataFrame, criterion: str, baseline: dict[str, float]) -> Figure | None:
    """Loss, criterion and learning rate over optimiser steps.

    Args:
        baseline: validation scores of the best constant prediction, by metric.
    """
    rate = next((name for name in log.columns if name.startswith("lr-")), None)
    log = log.rename(columns={rate: "learning rate"})
    panels: list[tuple[str, list[str], str | None]] = [("loss", ["train/loss", "valid/loss"], "loss")]
    if criterion != "loss":
        panels.append((criterion, [f"valid/{criterion}"], criterion))
    panels.append(("learning rate", ["learning rate"], None))
    panels = [(title, [n for n in names if n in log.columns], key) for title, names, key in panels]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return None
    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
    for axes, (title, names, key) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for name in names:
            points = log[["step", name]].dropna()
            if name == "train/loss" and len(points) >= MIN_SMOOTHED:  # noisy, as it is measured on single batches
                axes.plot(points["step"], points[name], color="C0", alpha=0.25, lw=0.8)
                window = len(points) // 10
                mean = points[name].rolling(window, min_periods=1, center=True).mean()
                axes.plot(points["step"], mean, color="C0", label=f"{name}, mean of {window} points")
                continue
            color = "C1" if name == "valid/loss" else "C0"
            dots = {"marker": "o", "ms": 6 if len(points) == 1 else 3} if len(points) < 40 else {}
            axes.plot(points["step"], points[name], label=name, color=color, **dots)
        if key in baseline:
            axes.axhline(baseline[key], color="grey", ls="--", lw=1, label="trivial baseline, validation")
        axes.set(title=title, xlabel="optimiser step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def confusion(schema: Schema, prediction: np.ndarray, target: np.ndarray) -> Figure:
    """Confusion matrix, normalised by the true class."""
    classes = schema.outputs
    counts = np.bincount(target.reshape(-1) * classes + prediction.argmax(1), minlength=classes**2)
    counts = counts.reshape(classes, classes)
    share = counts / counts.sum(1, keepdims=True).clip(1)
    size = 2.5 + 0.55 * min(classes, 12)
    figure = Figure(figsize=(size + 1.2, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axes, label="fraction of the true class", shrink=0.8)
    axes.set(xlabel="predicted", ylabel="true")
    names = [_visible(name) for name in schema.names] or [str(i) for i in range(classes)]
    axes.set_xticks(range(classes), names, rotation=90 if classes > 4 else 0, fontsize=8 if classes < 30 else 5)
    axes.set_yticks(range(classes), names, fontsize=8 if classes < 30 else 5)
    if classes <= 12:
        for i, j in itertools.product(range(classes), range(classes)):
            if counts[i, j]:
                dark = share[i, j] > 0.55
                axes.text(j, i, f"{share[i, j]:.2f}\n{counts[i, j]}", ha="center", va="center", fontsize=7,
                          color="white" if dark else "black")  # fmt: skip
    return figure


def _visible(name: str) -> str:
    """A printable label: white space and control characters as escapes, and dollars escaped against math mode."""
    return (name if name.isprintable() and name.strip() else repr(name)[1:-1]).replace("$", r"\$")


def scores(prediction: np.ndarray, target: np.ndarray) -> Figure:
    """Histograms of the predicted probabilities of yes/no tasks, by the true answer."""
    target = target.reshape(prediction.shape)
    labelled = ~np.isnan(target)
    probability = 1 / (1 + np.exp(-prediction[labelled]))
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(0, 1, 41).tolist()
    for answer, name in ((0, "truly no"), (1, "truly yes")):
        values = probability[target[labelled] == answer]
        if len(values):
            axes.hist(values, bins=bins, density=True, alpha=0.6, label=f"{name} ({len(values)})")
    axes.set(xlabel="predicted probability of yes", ylabel="density", yscale="log")
    axes.legend()
    return figure


def against_truth(schema: Schema, prediction: np.ndarray, target: np.ndarray) -> Figure:
    """Scatter plots of predicted against true numbers, a panel for each of up to `MAX_TARGETS` targets."""
    target = target.reshape(prediction.shape)
    labelled = np.flatnonzero(~np.isnan(target).all(0)).tolist()
    plotted = labelled[:MAX_TARGETS]
    columns = min(len(plotted), 3)
    rows = -(-len(plotted) // columns)
    size = (4.6, 4.4) if len(plotted) == 1 else (3.4 * columns, 3.3 * rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(plotted) :]:
        axes.axis("off")
    for axes, n in zip(grid, plotted, strict=False):
        valid = ~np.isnan(target[:, n])
        truth = target[valid, n]
        axes.scatter(truth, prediction[valid, n], s=6, alpha=0.4)
        ends = [np.min(truth), np.max(truth)]
        axes.plot(ends, ends, color="grey", lw=1)
        axes.set(xlabel="true", ylabel="predicted")
        axes.locator_params(nbins=5)
        axes.ticklabel_format(scilimits=(-3, 5))  # panels have no room for many zeros
        axes.grid(alpha=0.3)
        if schema.outputs > 1:
            name = _visible(schema.names[n]) if schema.names else f"target {n}"
            axes.set_title(textwrap.fill(name, TITLE_WIDTH), fontsize=9)
    if len(labelled) > len(plotted):
        figure.suptitle(
            f"The first {len(plotted)} of {len(labelled):,} targets; {len(labelled) - len(plotted):,} more not shown"
        )
    return figure


def blend_bars(weights: Sequence[float]) -> Figure:
    """The weight of the global branch in each layer."""
    figure = Figure(figsize=(1.5 + 0.6 * len(weights), 3), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(weights)), weights, color="#4477aa")
    axes.axhline(0.5, color="grey", ls="--", lw=1)
    axes.set(xlabel="layer", ylabel="share of attention", ylim=(0, 1), xticks=range(len(weights)))
    return figure


def reach_maps(reach: Reach) -> Figure:
    """Heat maps of each head's attention by hops; the last row is uniform attention under the same mask."""
    layers, heads, bins = len(reach.share), max(map(len, reach.share)), reach.even.shape[1]
    columns = min(layers, 2)
    rows = -(-layers // columns)
    figure = Figure(figsize=(3.9 * columns + 0.8, rows * (1.3 + 0.32 * heads)), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).reshape(-1)
    top = float(max(values.max() for values in (*reach.share, reach.even)))
    labels = [str(hop) for hop in range(bins - 1)] + [f">{bins - 2}"]
    for layer, axes in enumerate(grid):
        if layer >= layers:
            axes.axis("off")
            continue
        values = np.vstack([reach.share[layer].numpy(), reach.even[layer].numpy()[None]])
        axes.imshow(values, vmin=0, vmax=top, cmap="viridis", aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            axes.text(j, i, f"{value:.2f}"[1:] if value < 0.995 else "1", ha="center", va="center", fontsize=7,
                      color="white" if value < 0.6 * top else "black")  # fmt: skip
        axes.set_title(f"layer {layer}", fontsize=9)
        axes.set_xticks(range(bins), labels, fontsize=8)
        axes.set_yticks(range(len(values)), [f"head {h}" for h in range(len(values) - 1)] + ["even"], fontsize=8)
        axes.set_xlabel("hops away", fontsize=8)
    return figure


def distance_lines(profiles: Sequence[Profile]) -> Figure:
    """The bias that each head adds to the score of a node by its distance, a panel for each layer."""
    columns = min(len(profiles), 3)
    rows = -(-len(profiles) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.6, 2.7 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in grid[len(profiles) :]:
        axes.axis("off")
    for axes, profile in zip(grid, profiles, strict=False):
        heads = profile.score.shape[1]
        for head, score in enumerate(profile.score.T.tolist()):
            axes.plot(score, ".-", lw=1.2, color=mpl.colormaps["viridis"](0.9 * head / max(heads - 1, 1)),
                      label=f"head {head}")  # fmt: skip
        axes.set_title(profile.layers, fontsize=9)
        axes.set_xlabel(f"{profile.unit} away", fontsize=8)
        axes.grid(alpha=0.3)
        if heads <= 8:
            axes.legend(fontsize=7, ncols=2)
    for axes in grid[::columns]:
        axes.set_ylabel("added to the score", fontsize=8)
    return figure


def prediction_figure(schema: Schema, prediction: np.ndarray, target: np.ndarray) -> Figure | None:
    """The plot for the kind of target; None if there is nothing to plot, or there are too many classes."""
    if not len(target) or schema.pointer:  # with a pointer, classes have no fixed meaning across graphs
        return None
    if schema.kind == "multiclass":
        return confusion(schema, prediction, target) if schema.outputs <= MAX_CLASSES else None
    return scores(prediction, target) if schema.kind == "binary" else against_truth(schema, prediction, target)
