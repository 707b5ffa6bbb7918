"""The report of a run, a single HTML file: curves, predictions, blend weights and the reach of attention."""

import html
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from gt.data.datamodule import DataModule
from gt.data.files import write_bytes
from gt.inference.analysis import attention_reach, distance_profiles, predictions
from gt.losses import align, format_score
from gt.schema import UNLABELLED, format_number
from gt.train.baseline import classical_verdict, score_columns
from gt.train.breakdown import Breakdown
from gt.train.extremes import Sample
from gt.train.extremes import page as shown_samples
from gt.train.figures import MAX_CLASSES, blend_bars, curves, distance_lines, prediction_figure, reach_maps
from gt.train.metadata import METADATA_KEYS
from gt.train.page import page, picture, render, table
from gt.train.task import Task

MAX_ROWS = 20_000  # predictions plotted
MAX_CELLS = 20_000_000  # numbers in them
BATCHES = 4  # number of batches whose attention is analysed


def history(folder: Path) -> pd.DataFrame:
    """All logged values by step; for steps that a resumed run repeated, the latest values.

    If the run resumed with a validation, only that was measured again at the first step.
    """
    parts: list[pd.DataFrame] = []
    for path in sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1])):
        part = pd.read_csv(path)
        if parts and len(part):
            before, first = parts[-1], part["step"].min()
            repeated = part[part["step"] == first].dropna(axis=1, how="all").columns.drop("step")
            remaining = before[before["step"] == first].drop(columns=repeated, errors="ignore")
            parts[-1] = pd.concat([before[before["step"] < first], remaining], ignore_index=True)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"step": []})


def metric_table(result: dict[str, Any]) -> str:
    """An HTML table of the final scores and those of the baselines."""
    models, reason = score_columns(result), result["undefined"]
    rows = [
        [n, *(format_score(row[n], reason) if n in row else "-" for row in models.values())] for n in result["scores"]
    ]
    scored, total = result["batches"]
    partial = f"<p>Both on the first {scored} of {total} batches.</p>" if scored < total else ""
    verdict = f"<p>This run {classical_verdict(result)}.</p>" if classical_verdict(result) else ""
    return f"{table([result['split'], *models], rows, words=[result['split']])}{partial}{verdict}"


def errors(breakdown: Breakdown, split: str) -> str:
    """HTML tables of the errors by class, target and size; a table with a single row is left out."""
    schema, parts = breakdown.schema, []

    def cell(value: float) -> str:
        return "-" if math.isnan(value) else format_number(value)

    of_class = breakdown.classes()
    if len(of_class) and of_class["targets"].sum():
        frequent = of_class.sort_values("targets", ascending=False, kind="stable").head(MAX_CLASSES)
        cut = f" The {MAX_CLASSES} most frequent of {len(of_class):,}." if len(of_class) > MAX_CLASSES else ""
        label = "answer yes" if schema.kind == "binary" and schema.outputs > 1 else "class"
        rows = [[name, f"{count:,}", cell(recall), cell(precision)]
                for name, count, recall, precision in frequent.itertuples(index=False)]  # fmt: skip
        parts.append(
            f"<h2>Errors by class</h2><p>All targets of the {split} split. Recall is the fraction of a class's targets "
            f"that are predicted as such, precision the fraction of its predictions that are correct.{cut}</p>"
            + table((label, "targets", "recall", "precision"), rows, words=[label])
        )
    of_target = breakdown.targets()
    if len(of_target):
        rows = [[name, f"{count:,}", cell(mae), cell(rmse)]
                for name, count, mae, rmse in of_target.itertuples(index=False)]  # fmt: skip
        parts.append(
            f"<h2>Errors by target</h2><p>All targets of the {split} split, each in its own unit: mean absolute error "
            "and root mean squared error.</p>" + table(("target", "targets", "mae", "rmse"), rows, words=["target"])
        )
    of_size = breakdown.sizes()
    if len(of_size) > 1:
        label = "tokens" if schema.tokenizer else "nodes"
        scores = list(of_size.columns[3:])
        rows = [[f"{low}" if low == high else f"{low} to {high}", f"{count:,}", *map(cell, values)]
                for low, high, count, *values in of_size.itertuples(index=False)]  # fmt: skip
        unit = "tokens before the predicted one" if schema.is_language_model else f"{label} of the graph"
        nats = f"mean cross-entropy in nats{', without class weights' if schema.weights else ''}"
        measure = "mean absolute error" if schema.kind == "regression" else f"accuracy, and {nats}"
        if len(of_target) and schema.scale:
            measure += ", each target in units of its standard deviation" + (" in logarithms" if schema.log else "")
        parts.append(
            f"<h2>Errors by size</h2><p>All targets of the {split} split, by the number of {unit}: {measure}.</p>"
            + table((label, "targets", *scores), rows)
        )
    return "".join(parts)


def answers(task: Task, data: DataModule, result: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and targets of the labelled rows of the split, up to `MAX_ROWS` and `MAX_CELLS`.

    Each position of a sequence of classes is a row.
    """
    task.eval()
    schema = task.schema
    rows = max(1, min(MAX_ROWS, MAX_CELLS // schema.outputs))
    scored = itertools.islice(data.loader(result["split"]), result["batches"][0])
    prediction, target = align(schema, *predictions(task.net, scored, rows))
    labelled = target != UNLABELLED if schema.kind == "multiclass" else ~target.isnan().all(1)
    return prediction[labelled].numpy(), target[labelled].numpy()


def write_report(
    folder: Path,
    task: Task,
    data: DataModule,
    result: dict[str, Any],
    rows: tuple[np.ndarray, np.ndarray] | None,
    metadata: Mapping[str, Any],
    breakdown: Breakdown,
    worst_best: tuple[list[Sample], list[Sample]] | None = None,
    examples: str = "",
) -> Path:
    """Write ``report.html`` and its figures into ``folder``; returns the page's path.

    Figures are saved there as PNG, and in its folder ``figures`` in each format listed under the setting ``figures``.

    Args:
        rows: see `answers`; None if there are none.
        metadata: of the run, see `gt.train.metadata.run_metadata`.
        breakdown: of the test.
        worst_best: samples to show, see `gt.train.extremes`.
        examples: predictions for a few samples, see `gt.data.datamodule.DataModule.examples`.
    """
    task.eval()
    split = result["split"]
    loader = data.loader(split)  # sorted by size: take evenly spaced batches
    reach = attention_reach(task.net, itertools.islice(loader, 0, None, -(-len(loader) // BATCHES)))
    profiles = distance_profiles(task.net)
    weights: list[float] = getattr(task.net, "blend_weights", list)()
    sections = [
        ("curves", "Learning curves", curves(history(folder), result["criterion"], result["baseline_valid"]),
         "Validation is measured after each epoch or interval; the dashed line is the best constant prediction, fitted "
         "to the training targets and scored on validation like the curves."),
        ("predictions", "Predictions", prediction_figure(task.schema, *rows) if rows else None,
         f"{len(rows[1]) if rows else 0:,} targets of the {split} split, predicted by the best checkpoint."),
        ("blend", "Blend", blend_bars(weights) if weights else None,
         "The weight of the global (attention) branch of each layer: 0 is a pure GNN, 1 a pure Transformer."),
        ("reach", "Reach of attention", reach_maps(reach) if reach else None,
         "The fraction of a node's attention that each head pays to nodes at a given number of hops, over a few "
         "batches. The last row is uniform attention under the same mask: a head above it prefers that distance."),
        ("distance", "Learned distance", distance_lines(profiles) if profiles else None,
         "The learned bias that each head adds to the score of a node by its distance: 1 less multiplies the weight "
         "by 0.37."),
    ]  # fmt: skip
    body = []
    for name, title, figure, text in sections:
        if figure is None:
            continue
        png = render(figure)
        files = {folder / f"{name}.png": png}
        files |= {folder / "figures" / f"{name}.{kind}": render(figure, kind) for kind in metadata.get("figures") or ()}
        for path, content in files.items():
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, content)
        body.append(f"<h2>{title}</h2><p>{text}</p>{picture(figure, title.lower(), png)}")
    body.append(errors(breakdown, split))
    for title, samples in zip(("Worst predictions", "Best predictions"), worst_best or (), strict=False):
        body.append(f"<h2>{title}</h2>{shown_samples(samples)}")
    if examples:
        body.append(f"<h2>Examples</h2><pre>{html.escape(examples)}</pre>")
    body = [f"<h2>Result</h2>{metric_table(result)}", *body, f"<h2>This run</h2>{_metadata(metadata, result)}"]
    write_bytes(folder / "report.html", page(folder.name, "".join(body)).encode())
    return folder / "report.html"


def _metadata(metadata: Mapping[str, Any], result: dict[str, Any]) -> str:
    """The metadata of the run, and how to repeat it."""
    samples = ", ".join(f"{count:,} {split}" for split, count in metadata["dataset"]["samples"].items())
    pace = result["seconds_per_batch"]
    rows = {
        "command": metadata["command"],
        "checkpoint": result["checkpoint"] or "none",
        "commit": metadata["commit"] or "unknown",
        "samples": samples,
        "parameters": f"{metadata['parameters']:,}",
        "training step": "unknown" if pace is None else f"{1000 * pace:.1f} ms, with the loading of its batch",
        "machine": ", ".join(f"{name} {value}" for name, value in metadata["machine"].items()),
        "versions": ", ".join(f"{name} {value}" for name, value in metadata["versions"].items()),
    }
    cells = (f"<dt>{name}</dt><dd><code>{html.escape(str(value))}</code></dd>" for name, value in rows.items())
    config = OmegaConf.to_yaml({name: value for name, value in metadata.items() if name not in METADATA_KEYS})
    return (
        f"<dl>{''.join(cells)}</dl><details><summary>whole configuration</summary><pre>{html.escape(config)}</pre>"
        "</details>"
    )
