"""The page that a run leaves behind: curves, predictions, blend weights and the reach of attention, in one file."""

import base64
import html
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gt.data.datamodule import DataModule
from gt.data.files import whole
from gt.inference.analysis import Reach, attention_reach, predictions
from gt.metrics import shown
from gt.schema import UNLABELLED, Schema
from gt.train.baseline import columns, loses
from gt.train.task import Task

ROWS = 20_000  # predictions shown at most
CELLS = 20_000_000  # numbers in them at most
MOST_CLASSES = 100  # of a confusion matrix that is drawn
BATCHES = 4  # batches whose attention is looked at

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: right }
td:first-child, th:first-child { text-align: left } th { border-bottom: 1px solid #999; font-weight: 600 }
img { max-width: 100% } p { max-width: 46rem } code { background: #f3f3f3; padding: 0 .25em }
"""


def history(folder: Path) -> pd.DataFrame:
    """All that was logged, one row a step; steps that a resumed run took again count once, as they were last."""
    parts: list[pd.DataFrame] = []
    for path in sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1])):
        part = pd.read_csv(path)
        if parts and len(part):
            parts[-1] = parts[-1][parts[-1]["step"] < part["step"].min()]
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"step": []})


def curves(log: pd.DataFrame, criterion: str, baseline: dict[str, float]) -> Figure | None:
    """Loss, the deciding metric and the learning rate over optimiser steps."""
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
            dots = {"marker": "o", "ms": 6 if len(points) == 1 else 3} if len(points) < 40 else {}
            axes.plot(points["step"], points[name], label=name, **dots)
        if key in baseline:
            axes.axhline(baseline[key], color="grey", ls="--", lw=1, label="trivial baseline")
        axes.set(title=title, xlabel="optimiser step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def confusion(schema: Schema, prediction: np.ndarray, target: np.ndarray) -> Figure:
    """Share of each true class that was predicted as each class."""
    classes = schema.outputs
    counts = np.bincount(target.reshape(-1) * classes + prediction.argmax(1), minlength=classes**2)
    counts = counts.reshape(classes, classes)
    share = counts / counts.sum(1, keepdims=True).clip(1)
    size = 2.5 + 0.55 * min(classes, 12)
    figure = Figure(figsize=(size + 1.2, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
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
    """A label that can be drawn: white space and control characters as escapes, no dollar that starts a formula."""
    return (name if name.isprintable() and name.strip() else repr(name)[1:-1]).replace("$", r"\$")


def scores(prediction: np.ndarray, target: np.ndarray) -> Figure:
    """Predicted probability of each yes/no task's labelled samples, by their true answer."""
    target = target.reshape(prediction.shape)
    known = ~np.isnan(target)
    chance = 1 / (1 + np.exp(-prediction[known]))
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(0, 1, 41).tolist()
    for answer, name in ((0, "truly no"), (1, "truly yes")):
        values = chance[target[known] == answer]
        if len(values):
            axes.hist(values, bins=bins, density=True, alpha=0.6, label=f"{name} ({len(values)})")
    axes.set(xlabel="predicted probability of yes", ylabel="density", yscale="log")
    axes.legend()
    return figure


def against_truth(prediction: np.ndarray, target: np.ndarray) -> Figure:
    """Predicted against true numbers."""
    target = target.reshape(prediction.shape)
    known = ~np.isnan(target)
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(target[known], prediction[known], s=6, alpha=0.4)
    ends = [np.min(target[known]), np.max(target[known])]
    axes.plot(ends, ends, color="grey", lw=1)
    axes.set(xlabel="true", ylabel="predicted")
    axes.grid(alpha=0.3)
    return figure


def blend_bars(weights: Sequence[float]) -> Figure:
    """The share of the global branch, layer by layer."""
    figure = Figure(figsize=(1.5 + 0.6 * len(weights), 3), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(weights)), weights, color="#4477aa")
    axes.axhline(0.5, color="grey", ls="--", lw=1)
    axes.set(xlabel="layer", ylabel="share of attention", ylim=(0, 1), xticks=range(len(weights)))
    return figure


def reach_maps(reach: Reach) -> Figure:
    """Where each head's attention goes, by hops; the last row is even attention under the same mask."""
    layers, heads, bins = reach.share.shape
    columns = min(layers, 2)
    rows = -(-layers // columns)
    figure = Figure(figsize=(3.9 * columns + 0.8, rows * (1.3 + 0.32 * heads)), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).reshape(-1)
    top = float(max(reach.share.max(), reach.even.max()))
    labels = [str(hop) for hop in range(bins - 1)] + [f">{bins - 2}"]
    for place, axes in enumerate(grid):
        if place >= layers:
            axes.axis("off")
            continue
        values = np.vstack([reach.share[place].numpy(), reach.even[place].numpy()[None]])
        axes.imshow(values, vmin=0, vmax=top, cmap="viridis", aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            axes.text(j, i, f"{value:.2f}"[1:] if value < 0.995 else "1", ha="center", va="center", fontsize=7,
                      color="white" if value < 0.6 * top else "black")  # fmt: skip
        axes.set_title(f"layer {place}", fontsize=9)
        axes.set_xticks(range(bins), labels, fontsize=8)
        axes.set_yticks(range(heads + 1), [f"head {h}" for h in range(heads)] + ["even"], fontsize=8)
        axes.set_xlabel("hops away", fontsize=8)
    return figure


def labelled_rows(schema: Schema, prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the rows that have no label at all; classes of several positions as a row each."""
    if schema.kind == "multiclass":
        prediction = prediction.reshape(-1, schema.outputs)
        target = target.reshape(-1) if schema.positions == 1 else target[:, : schema.positions].reshape(-1)
        known = target != UNLABELLED
    else:
        target = target.reshape(prediction.shape)
        known = ~np.isnan(target).all(1)
    return prediction[known], target[known]


def prediction_figure(schema: Schema, prediction: np.ndarray, target: np.ndarray) -> Figure | None:
    """The picture that suits the kind of target; None where there is nothing to see, or too many classes to draw."""
    if not len(target) or schema.pointer:  # whose classes mean something else in each graph
        return None
    if schema.kind == "multiclass":
        return confusion(schema, prediction, target) if schema.outputs <= MOST_CLASSES else None
    return (scores if schema.kind == "binary" else against_truth)(prediction, target)


def metric_table(result: dict[str, Any]) -> str:
    """The final scores beside those of the baselines."""
    models = columns(result)
    heads = "".join(f"<th>{name}</th>" for name in (result["split"], *models))
    rows = "".join(
        f"<tr><td>{name}</td>"
        + "".join(f"<td>{shown(of.get(name, float('nan')), result['undefined'])}</td>" for of in models.values())
        + "</tr>"
        for name in result["scores"]
    )
    scored, there = result["batches"]
    part = f"<p>Both on the first {scored} of {there} batches.</p>" if scored < there else ""
    lost = f"<p>This run {loses(result)}.</p>" if loses(result) else ""
    return f"<table><tr>{heads}</tr>{rows}</table>{part}{lost}"


def write_report(folder: Path, task: Task, data: DataModule, result: dict[str, Any], examples: str = "") -> Path:
    """Write ``report.html`` and its figures as PNG files into ``folder``; returns the page's path.

    Args:
        examples: what the network says of a few samples, see `gt.data.datamodule.DataModule.examples`.
    """
    task.eval()
    split = result["split"]
    rows = max(1, min(ROWS, CELLS // task.schema.outputs))
    scored = itertools.islice(data.loader(split), result["batches"][0])
    arrays = (values.numpy() for values in predictions(task.net, scored, rows))
    prediction, target = labelled_rows(task.schema, *arrays)
    loader = data.loader(split)  # sorted by size: batches from all along it
    reach = attention_reach(task.net, itertools.islice(loader, 0, None, -(-len(loader) // BATCHES)))
    weights: list[float] = getattr(task.net, "blend_weights", list)()
    sections = [
        ("curves", "Learning curves", curves(history(folder), result["criterion"], result["baseline"]),
         "Validation is measured after each epoch or interval; the dashed line is the best answer that ignores its "
         "input, learned on the training targets."),
        ("predictions", "Predictions", prediction_figure(task.schema, prediction, target),
         f"{len(target):,} targets of the {split} split, by the best checkpoint."),
        ("blend", "Blend", blend_bars(weights) if weights else None,
         "The weight of the global (attention) branch of each layer: 0 is a pure GNN, 1 a pure Transformer."),
        ("reach", "Reach of attention", reach_maps(reach) if reach else None,
         "The share of a node's attention that each head gives to nodes so many hops away, over a few batches. The "
         "last row is what even attention under the same mask would give: a head above it prefers that distance."),
    ]  # fmt: skip
    body = []
    for name, title, figure, text in sections:
        if figure is None:
            continue
        path = folder / f"{name}.png"
        with mpl.rc_context({"font.size": 9}):
            figure.savefig(path, dpi=130)
        picture = base64.b64encode(path.read_bytes()).decode()
        body.append(f'<h2>{title}</h2><p>{text}</p><img alt="{title.lower()}" src="data:image/png;base64,{picture}">')
    if examples:
        body.append(f"<h2>Examples</h2><pre>{html.escape(examples)}</pre>")
    name = html.escape(folder.name)
    overrides = html.escape(" ".join(result["overrides"]) or "none")
    parameters = sum(p.numel() for p in task.net.parameters())
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style>'
        f"<h1>{name}</h1><p>{parameters:,} parameters. Overrides: <code>{overrides}</code>. "
        f"Best checkpoint: <code>{html.escape(str(result['checkpoint']))}</code>.</p>"
        f"<h2>Result</h2>{metric_table(result)}{''.join(body)}</html>\n"
    )
    with whole(folder / "report.html") as file:
        file.write(page.encode())
    return folder / "report.html"
