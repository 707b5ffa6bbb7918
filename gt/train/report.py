"""The page that a run leaves behind: curves, predictions, blend weights and the reach of attention, in one file."""

import base64
import html
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from gt.data.datamodule import DataModule
from gt.data.files import whole
from gt.inference.analysis import attention_reach, predictions
from gt.metrics import shown
from gt.schema import UNLABELLED, Schema
from gt.train.baseline import columns, loses
from gt.train.extremes import Sample
from gt.train.extremes import page as page_of
from gt.train.facts import BESIDE
from gt.train.figures import blend_bars, curves, prediction_figure, reach_maps
from gt.train.task import Task

ROWS = 20_000  # predictions shown at most
CELLS = 20_000_000  # numbers in them at most
BATCHES = 4  # batches whose attention is looked at

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#999, #666); --code: light-dark(#f3f3f3, #2a2a2a) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: light-dark(#222, #ddd); background: light-dark(#fff, #161616); overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; display: block; overflow-x: auto; overflow-wrap: normal }
td, th { padding: .2rem .9rem .2rem 0; text-align: right; vertical-align: top }
td:first-child, th:first-child, .texts td:nth-child(2), .texts th:nth-child(2) { text-align: left }
.texts td:nth-child(2) { min-width: 14rem }
th { border-bottom: 1px solid var(--line); font-weight: 600 }
img { max-width: 100%; background: #fff } p { max-width: 46rem } code { background: var(--code); padding: 0 .25em }
pre, .wide { overflow-x: auto } .cards { display: flex; flex-wrap: wrap; gap: 1rem }
dt { font-weight: 600 } dd { margin: 0 0 .4rem 1rem } summary { cursor: pointer }
figure { margin: 0; width: 9.5rem; font-size: .85rem } figure img { width: 100%; border-radius: 4px }
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


def answers(task: Task, data: DataModule, result: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and targets of the rows of the split that are labelled, of `ROWS` and `CELLS` at most."""
    task.eval()
    rows = max(1, min(ROWS, CELLS // task.schema.outputs))
    scored = itertools.islice(data.loader(result["split"]), result["batches"][0])
    return labelled_rows(task.schema, *(values.numpy() for values in predictions(task.net, scored, rows)))


def write_report(
    folder: Path,
    task: Task,
    data: DataModule,
    result: dict[str, Any],
    rows: tuple[np.ndarray, np.ndarray],
    facts: Mapping[str, Any],
    worst_best: tuple[list[Sample], list[Sample]] | None = None,
    examples: str = "",
) -> Path:
    """Write ``report.html`` and its figures as PNG files into ``folder``; returns the page's path.

    Args:
        rows: see `answers`.
        facts: of the run, see `gt.train.facts.run_facts`.
        worst_best: samples that are shown, see `gt.train.extremes`.
        examples: what the network says of a few samples, see `gt.data.datamodule.DataModule.examples`.
    """
    task.eval()
    split, (prediction, target) = result["split"], rows
    loader = data.loader(split)  # sorted by size: batches from all along it
    reach = attention_reach(task.net, itertools.islice(loader, 0, None, -(-len(loader) // BATCHES)))
    weights: list[float] = getattr(task.net, "blend_weights", list)()
    sections = [
        ("curves", "Learning curves", curves(history(folder), result["criterion"], result["baseline"]),
         "Validation is measured after each epoch or interval; the dashed line is the best answer that ignores its "
         f"input, learned on the training targets and scored on the {split} split, as the table above has it."),
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
        least = f"min-width:{figure.get_figwidth() * 55:.0f}px"  # where its text can be read; a narrow page scrolls
        source = f'style="{least}" src="data:image/png;base64,{picture}"'
        body.append(f'<h2>{title}</h2><p>{text}</p><div class="wide"><img alt="{title.lower()}" {source}></div>')
    for title, samples in zip(("Worst predictions", "Best predictions"), worst_best or (), strict=False):
        body.append(f"<h2>{title}</h2>{page_of(samples)}")
    if examples:
        body.append(f"<h2>Examples</h2><pre>{html.escape(examples)}</pre>")
    name = html.escape(folder.name)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}</style><h1>{name}</h1>"
        f"<h2>Result</h2>{metric_table(result)}{''.join(body)}<h2>This run</h2>{_about(facts, result)}</html>\n"
    )
    with whole(folder / "report.html") as file:
        file.write(page.encode())
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
