"""A page that compares runs: overlaid curves, scores and differing settings."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gt.cli.run_list import Run
from gt.schema import format_number
from gt.train.page import page as html_page
from gt.train.page import picture, table
from gt.train.report import history

# names and output locations, which are no differences between runs
IGNORED = ("name", "resume", "figures", "logger.", "callbacks.", "hydra.", "state")
MAX_LEGEND = 20  # more runs get no legend


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The settings in which runs differ: the value of each run by dotted key, empty if a run lacks the key."""
    keys = list(dict.fromkeys(key for run in runs for key in run.settings if not key.startswith(IGNORED)))
    values = {key: [run.settings.get(key, "") for run in runs] for key in keys}
    return {key: each for key, each in values.items() if len(set(each)) > 1}


def curves(runs: Sequence[Run], names: Sequence[str]) -> Figure | None:
    """Logged values over optimiser steps: a panel for each name that a run logged, a line for each run."""
    logs = [history(run.folder) for run in runs]
    panels = [(name, lines) for name in names if (lines := [n for n, log in enumerate(logs) if name in log.columns])]
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in itertools.zip_longest(grid, panels):
        if panel is None:
            axes.axis("off")
            continue
        name, lines = panel
        for n in lines:
            points = logs[n][["step", name]].dropna()
            marker = {"marker": "o", "ms": 3} if len(points) < 40 else {}
            axes.plot(points["step"], points[name], lw=1.2, **_line_style(n), **marker)
        axes.set(title=name, xlabel="optimiser step")
        axes.grid(alpha=0.3)
    if len(runs) <= MAX_LEGEND:
        lines_of_all = [Line2D([], [], label=run.folder.name, **_line_style(n)) for n, run in enumerate(runs)]
        figure.legend(handles=lines_of_all, loc="outside lower center", ncols=min(4, len(runs)), fontsize=8)
    return figure


def _line_style(n: int) -> dict[str, Any]:
    """The line style of a run: ten colours, solid and dashed."""
    return {"color": mpl.colormaps["tab10"](n % 10), "ls": ("-", "--")[n // 10 % 2]}


def page(runs: Sequence[Run], top: Path) -> str:
    """Render the HTML page.

    Args:
        top: the folder relative to which run folders are named.
    """
    criteria = list(dict.fromkeys(run.result["criterion"] for run in runs if run.result))
    names = ["train/loss", "valid/loss", *(f"valid/{name}" for name in criteria if name != "loss")]
    names += ["optim/gradient_norm", "optim/update_to_weight", "speed/graphs_per_s"]
    figure, differing = curves(runs, names), differences(runs)
    folders, top = [run.folder.resolve() for run in runs], top.resolve()
    labels = [str(folder.relative_to(top) if folder.is_relative_to(top) else folder) for folder in folders]
    parts = [f"<h2>Scores</h2>{scores(runs, labels)}"]
    if differing:
        settings = table(["", *labels], ([key, *values] for key, values in differing.items()), words=["", *labels])
        parts.append(f"<h2>Differing settings</h2>{settings}")
    if figure is not None:
        parts.append(f"<h2>Curves</h2>{picture(figure, 'logged values over optimiser steps')}")
    return html_page(f"{len(runs)} runs", "".join(parts))


def scores(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """An HTML table with a row for each run and a column for each test metric, the best in bold."""
    names = list(dict.fromkeys(name for run in runs for name in run.result.get("scores", {})))
    values = np.array([[run.result.get("scores", {}).get(name, np.nan) for name in names] for run in runs], float)
    modes = {run.result["criterion"]: run.result["mode"] for run in runs if run.result}
    same_data = len({run.settings.get("data") for run in runs}) == 1  # scores on different data are not comparable
    best = set()
    for n, name in enumerate(names):
        mode = modes.get(name, "min" if name == "loss" else "") if same_data else ""
        if (row_of_best := _best(values[:, n], mode)) is not None:
            best.add((row_of_best, n + 2))
    rows = []
    for run, label, row_values in zip(runs, labels, values.tolist(), strict=True):
        cells = ("-" if np.isnan(value) else format_number(value) for value in row_values)
        seconds, size = run.result.get("seconds_per_batch"), run.result.get("parameters")
        costs = ["-" if size is None else f"{size:,}", "-" if seconds is None else f"{1000 * seconds:.1f}"]
        rows.append([label, run.state, *cells, *costs])
    return table(["run", "state", *names, "parameters", "ms a step"], rows, words=("run", "state"), bold=best)


def _best(values: np.ndarray, mode: str) -> int | None:
    if not mode or len(values) < 2 or np.isnan(values).all():
        return None
    return int(np.nanargmax(values) if mode == "max" else np.nanargmin(values))
