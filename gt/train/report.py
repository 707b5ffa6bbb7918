"""The page that a run leaves behind: curves, predictions, blend weights and the reach of attention, in one file."""

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
from gt.losses import aligned, shown
from gt.schema import UNLABELLED, number
from gt.train.baseline import columns, loses
from gt.train.breakdown import Breakdown
from gt.train.extremes import Sample
from gt.train.extremes import page as shown_samples
from gt.train.facts import BESIDE
from gt.train.figures import MOST_CLASSES, blend_bars, curves, distance_lines, prediction_figure, reach_maps
from gt.train.page import drawn, page, picture, table
from gt.train.task import Task

ROWS = 20_000  # predictions shown at most
CELLS = 20_000_000  # numbers in them at most
BATCHES = 4  # batches whose attention is looked at


def history(folder: Path) -> pd.DataFrame:
    """All that was logged, by step; steps that a resumed run took again count once, as they were last.

    Of the step at which it went on with a validation, that alone was measured again.
    """
    parts: list[pd.DataFrame] = []
    for path in sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1])):
        part = pd.read_csv(path)
        if parts and len(part):
            before, first = parts[-1], part["step"].min()
            again = part[part["step"] == first].dropna(axis=1, how="all").columns.drop("step")
            there = before[before["step"] == first].drop(columns=again, errors="ignore")
            parts[-1] = pd.concat([before[before["step"] < first], there], ignore_index=True)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"step": []})


def metric_table(result: dict[str, Any]) -> str:
    """The final scores beside those of the baselines."""
    models, why = columns(result), result["undefined"]
    rows = [[n, *(shown(of[n], why) if n in of else "-" for of in models.values())] for n in result["scores"]]
    scored, there = result["batches"]
    part = f"<p>Both on the first {scored} of {there} batches.</p>" if scored < there else ""
    lost = f"<p>This run {loses(result)}.</p>" if loses(result) else ""
    return f"{table([result['split'], *models], rows, words=[result['split']])}{part}{lost}"


def errors(breakdown: Breakdown, split: str) -> str:
    """Where the network errs, by class, target and size, as HTML; nothing of what there is but one of."""
    schema, parts = breakdown.schema, []

    def told(value: float) -> str:
        return "-" if math.isnan(value) else number(value)

    of_class = breakdown.classes()
    if len(of_class) and of_class["targets"].sum():
        most = of_class.sort_values("targets", ascending=False, kind="stable").head(MOST_CLASSES)
        cut = f" The {MOST_CLASSES} most frequent of {len(of_class):,}." if len(of_class) > MOST_CLASSES else ""
        what = "answer yes" if schema.kind == "binary" and schema.outputs > 1 else "class"
        rows = [[name, f"{count:,}", told(recall), told(precision)]
                for name, count, recall, precision in most.itertuples(index=False)]  # fmt: skip
        parts.append(
            f"<h2>Errors by class</h2><p>Of all targets of the {split} split. Recall is the share of a class's targets "
            f"that are found, precision the share of its predictions that are right.{cut}</p>"
            + table((what, "targets", "recall", "precision"), rows, words=[what])
        )
    of_target = breakdown.targets()
    if len(of_target):
        rows = [[name, f"{count:,}", told(mae), told(rmse)]
                for name, count, mae, rmse in of_target.itertuples(index=False)]  # fmt: skip
        parts.append(
            f"<h2>Errors by target</h2><p>Of all targets of the {split} split, each in its own unit: the mean absolute "
            "error and the root of the mean squared one.</p>"
            + table(("target", "targets", "mae", "rmse"), rows, words=["target"])
        )
    of_size = breakdown.sizes()
    if len(of_size) > 1:
        what = "tokens" if schema.tokenizer else "nodes"
        scores = list(of_size.columns[3:])
        rows = [[f"{low}" if low == high else f"{low} to {high}", f"{count:,}", *map(told, each)]
                for low, high, count, *each in of_size.itertuples(index=False)]  # fmt: skip
        by = "tokens that come before what is predicted" if schema.is_language_model else f"{what} of the graph"
        nats = f"the mean cross-entropy in nats{', without the weights of classes' if schema.weights else ''}"
        measure = "the mean absolute error" if schema.kind == "regression" else f"accuracy, and {nats}"
        if len(of_target) and schema.scale:
            measure += ", each target in units of its deviation" + (" in logarithms" if schema.log else "")
        parts.append(
            f"<h2>Errors by size</h2><p>Of all targets of the {split} split, by the number of {by}: {measure}.</p>"
            + table((what, "targets", *scores), rows)
        )
    return "".join(parts)


def answers(task: Task, data: DataModule, result: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and targets of the rows of the split that have a label, of `ROWS` and `CELLS` at most.

    Of classes at several positions each is a row.
    """
    task.eval()
    schema = task.schema
    rows = max(1, min(ROWS, CELLS // schema.outputs))
    scored = itertools.islice(data.loader(result["split"]), result["batches"][0])
    prediction, target = aligned(schema, *predictions(task.net, scored, rows))
    known = target != UNLABELLED if schema.kind == "multiclass" else ~target.isnan().all(1)
    return prediction[known].numpy(), target[known].numpy()


def write_report(
    folder: Path,
    task: Task,
    data: DataModule,
    result: dict[str, Any],
    rows: tuple[np.ndarray, np.ndarray] | None,
    facts: Mapping[str, Any],
    breakdown: Breakdown,
    worst_best: tuple[list[Sample], list[Sample]] | None = None,
    examples: str = "",
) -> Path:
    """Write ``report.html`` and its figures into ``folder``; returns the page's path.

    Figures are PNG files there, and in its folder ``figures`` of each format that ``figures`` of the run's settings
    names.

    Args:
        rows: see `answers`; None where there are none.
        facts: of the run, see `gt.train.facts.run_facts`.
        breakdown: of the test.
        worst_best: samples that are shown, see `gt.train.extremes`.
        examples: what the network says of a few samples, see `gt.data.datamodule.DataModule.examples`.
    """
    task.eval()
    split = result["split"]
    loader = data.loader(split)  # sorted by size: batches from all along it
    reach = attention_reach(task.net, itertools.islice(loader, 0, None, -(-len(loader) // BATCHES)))
    profiles = distance_profiles(task.net)
    weights: list[float] = getattr(task.net, "blend_weights", list)()
    sections = [
        ("curves", "Learning curves", curves(history(folder), result["criterion"], result["baseline_valid"]),
         "Validation is measured after each epoch or interval; the dashed line is the best answer that ignores its "
         "input, learned on the training targets and scored on validation, as the curves are."),
        ("predictions", "Predictions", prediction_figure(task.schema, *rows) if rows else None,
         f"{len(rows[1]) if rows else 0:,} targets of the {split} split, by the best checkpoint."),
        ("blend", "Blend", blend_bars(weights) if weights else None,
         "The weight of the global (attention) branch of each layer: 0 is a pure GNN, 1 a pure Transformer."),
        ("reach", "Reach of attention", reach_maps(reach) if reach else None,
         "The share of a node's attention that each head gives to nodes so many hops away, over a few batches. The "
         "last row is what even attention under the same mask would give: a head above it prefers that distance."),
        ("distance", "Learned distance", distance_lines(profiles) if profiles else None,
         "What each head has learned to add to the score of a node by its distance alone: 1 less is 0.37 times the "
         "weight."),
    ]  # fmt: skip
    body = []
    for name, title, figure, text in sections:
        if figure is None:
            continue
        png = drawn(figure)
        files = {folder / f"{name}.png": png}
        files |= {folder / "figures" / f"{name}.{kind}": drawn(figure, kind) for kind in facts.get("figures") or ()}
        for path, content in files.items():
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, content)
        body.append(f"<h2>{title}</h2><p>{text}</p>{picture(figure, title.lower(), png)}")
    body.append(errors(breakdown, split))
    for title, samples in zip(("Worst predictions", "Best predictions"), worst_best or (), strict=False):
        body.append(f"<h2>{title}</h2>{shown_samples(samples)}")
    if examples:
        body.append(f"<h2>Examples</h2><pre>{html.escape(examples)}</pre>")
    body = [f"<h2>Result</h2>{metric_table(result)}", *body, f"<h2>This run</h2>{_about(facts, result)}"]
    write_bytes(folder / "report.html", page(folder.name, "".join(body)).encode())
    return folder / "report.html"


def _about(facts: Mapping[str, Any], result: dict[str, Any]) -> str:
    """What the run was, and how to run it again."""
    samples = ", ".join(f"{count:,} {split}" for split, count in facts["dataset"]["samples"].items())
    pace = result["seconds_per_batch"]
    rows = {
        "command": facts["command"],
        "checkpoint": result["checkpoint"] or "none",
        "commit": facts["commit"] or "unknown",
        "samples": samples,
        "parameters": f"{facts['parameters']:,}",
        "training step": "unknown" if pace is None else f"{1000 * pace:.1f} ms, with the loading of its batch",
        "machine": ", ".join(f"{name} {value}" for name, value in facts["machine"].items()),
        "versions": ", ".join(f"{name} {value}" for name, value in facts["versions"].items()),
    }
    cells = (f"<dt>{name}</dt><dd><code>{html.escape(str(value))}</code></dd>" for name, value in rows.items())
    config = OmegaConf.to_yaml({name: value for name, value in facts.items() if name not in BESIDE})
    return (
        f"<dl>{''.join(cells)}</dl><details><summary>whole configuration</summary><pre>{html.escape(config)}</pre>"
        "</details>"
    )
