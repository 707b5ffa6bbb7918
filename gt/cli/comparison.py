"""Several runs on one page: their curves over one another, their scores, and what set them apart."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gt.cli.run_list import Run
from gt.schema import number
from gt.train.page import page as html_page
from gt.train.page import picture, table
from gt.train.report import history

# where a run wrote, and what it is called, sets no runs apart
OWN = ("name", "resume", "figures", "logger.", "callbacks.", "hydra.", "state")
LEGEND = 20  # runs that are told apart by a legend


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The settings in which runs differ, by dotted key, with the value of each; empty where a run lacks one."""
    keys = list(dict.fromkeys(key for run in runs for key in run.about if not key.startswith(OWN)))
    values = {key: [run.about.get(key, "") for run in runs] for key in keys}
    return {key: each for key, each in values.items() if len(set(each)) > 1}


def curves(runs: Sequence[Run], names: Sequence[str]) -> Figure | None:
    """What was logged over optimiser steps: a panel a name that any of the runs logged, a line a run."""
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
            axes.plot(points["step"], points[name], lw=1.2, **_look(n), **marker)
        axes.set(title=name, xlabel="optimiser step")
        axes.grid(alpha=0.3)
    if len(runs) <= LEGEND:
        lines_of_all = [Line2D([], [], label=run.folder.name, **_look(n)) for n, run in enumerate(runs)]
        figure.legend(handles=lines_of_all, loc="outside lower center", ncols=min(4, len(runs)), fontsize=8)
    return figure


def _look(n: int) -> dict[str, Any]:
    """How the line of a run is drawn: ten colours, each whole and dashed."""
    return {"color": mpl.colormaps["tab10"](n % 10), "ls": ("-", "--")[n // 10 % 2]}


def page(runs: Sequence[Run], top: Path) -> str:
    """One HTML page.

    Args:
        top: the folder that run folders are named from.
    """
    criteria = list(dict.fromkeys(run.result["criterion"] for run in runs if run.result))
    names = ["train/loss", "valid/loss", *(f"valid/{name}" for name in criteria if name != "loss")]
    names += ["optim/gradient_norm", "optim/update_to_weight", "speed/graphs_per_s"]
    figure, apart = curves(runs, names), differences(runs)
    places, top = [run.folder.resolve() for run in runs], top.resolve()
    labels = [str(place.relative_to(top) if place.is_relative_to(top) else place) for place in places]
    parts = [f"<h2>Scores</h2>{scores(runs, labels)}"]
    if apart:
        settings = table(["", *labels], ([key, *values] for key, values in apart.items()), words=["", *labels])
        parts.append(f"<h2>What sets them apart</h2>{settings}")
    if figure is not None:
        parts.append(f"<h2>Curves</h2>{picture(figure, 'what was logged over optimiser steps')}")
    return html_page(f"{len(runs)} runs", "".join(parts))


def scores(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """An HTML table: a row a run, a column a metric of its test, the best in bold."""
    names = list(dict.fromkeys(name for run in runs for name in run.result.get("scores", {})))
    values = np.array([[run.result.get("scores", {}).get(name, np.nan) for name in names] for run in runs], float)
    modes = {run.result["criterion"]: run.result["mode"] for run in runs if run.result}
    alike = len({run.about.get("data") for run in runs}) == 1  # scores on other data are not compared
    best = set()
    for n, name in enumerate(names):
        mode = modes.get(name, "min" if name == "loss" else "") if alike else ""
        if (place := _best(values[:, n], mode)) is not None:
            best.add((place, n + 2))
    rows = []
    for run, label, scored in zip(runs, labels, values.tolist(), strict=True):
        shown = ("-" if np.isnan(value) else number(value) for value in scored)
        pace, size = run.result.get("seconds_per_batch"), run.result.get("parameters")
        costs = ["-" if size is None else f"{size:,}", "-" if pace is None else f"{1000 * pace:.1f}"]
        rows.append([label, run.state, *shown, *costs])
    return table(["run", "state", *names, "parameters", "ms a step"], rows, words=("run", "state"), bold=best)


def _best(values: np.ndarray, mode: str) -> int | None:
    if not mode or len(values) < 2 or np.isnan(values).all():
        return None
    return int(np.nanargmax(values) if mode == "max" else np.nanargmin(values))
