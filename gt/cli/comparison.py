"""Several runs on one page: their curves over one another, their scores, and what set them apart."""

import base64
import html
import io
import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gt.cli.run_list import Run
from gt.schema import number
from gt.train.report import STYLE, history

# where a run wrote, and what it is called, sets no runs apart
OWN = ("name", "resume", "logger.", "callbacks.", "hydra.", "state")
SHADES = mpl.colormaps["tab10"]
LEGEND = 12  # runs that are told apart by a legend


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
            axes.plot(points["step"], points[name], color=SHADES(n % 10), lw=1.2, label=runs[n].folder.name, **marker)
        axes.set(title=name, xlabel="optimiser step")
        axes.grid(alpha=0.3)
    if len(runs) <= LEGEND:
        lines_of_all = [Line2D([], [], color=SHADES(n % 10), label=run.folder.name) for n, run in enumerate(runs)]
        figure.legend(handles=lines_of_all, loc="outside lower center", ncols=min(4, len(runs)), fontsize=8)
    return figure


def page(runs: Sequence[Run], top: Path) -> str:
    """One HTML page.

    Args:
        top: the folder that run folders are named from.
    """
    criteria = list(dict.fromkeys(run.result["criterion"] for run in runs if run.result))
    names = ["train/loss", "valid/loss", *(f"valid/{name}" for name in criteria if name != "loss")]
    names += ["optim/gradient_norm", "optim/update_to_weight", "speed/graphs_per_s"]
    figure, apart = curves(runs, names), differences(runs)
    labels = [str(run.folder.relative_to(top)) if run.folder.is_relative_to(top) else str(run.folder) for run in runs]
    parts = [f"<h1>{len(runs)} runs</h1><h2>Scores</h2>{scores(runs, labels)}"]
    if apart:
        heads = "".join(f"<th>{html.escape(label)}</th>" for label in labels)
        rows = "".join(
            f"<tr><td>{html.escape(key)}</td>{''.join(f'<td>{html.escape(value)}</td>' for value in values)}</tr>"
            for key, values in apart.items()
        )
        parts.append(f"<h2>What sets them apart</h2><table><tr><th></th>{heads}</tr>{rows}</table>")
    if figure is not None:
        file = io.BytesIO()
        with mpl.rc_context({"font.size": 9}):
            figure.savefig(file, dpi=130, format="png")
        source = base64.b64encode(file.getvalue()).decode()
        least = f"min-width:{figure.get_figwidth() * 55:.0f}px"
        parts.append(
            f'<h2>Curves</h2><div class="wide"><img alt="" style="{least}" src="data:image/png;base64,{source}"></div>'
        )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{len(runs)} runs</title><style>{STYLE}</style>{''.join(parts)}</html>\n"
    )


def scores(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """An HTML table: a row a run, a column a metric of its test, the best in bold."""
    names = list(dict.fromkeys(name for run in runs for name in run.result.get("scores", {})))
    table = np.array([[run.result.get("scores", {}).get(name, np.nan) for name in names] for run in runs], float)
    modes = {run.result["criterion"]: run.result["mode"] for run in runs if run.result}
    alike = len({run.about.get("data") for run in runs}) == 1  # scores on other data are not compared
    best = [
        _best(table[:, n], modes.get(name, "min" if name == "loss" else "") if alike else "")
        for n, name in enumerate(names)
    ]
    rows = []
    for n, (run, label) in enumerate(zip(runs, labels, strict=True)):
        shown = ("-" if np.isnan(value) else number(float(value)) for value in table[n])
        cells = "".join(f"<td>{f'<b>{text}</b>' if n == best[k] else text}</td>" for k, text in enumerate(shown))
        pace, size = run.result.get("seconds_per_batch"), run.result.get("parameters")
        cells += (
            f"<td>{'-' if size is None else f'{size:,}'}</td><td>{'-' if pace is None else f'{1000 * pace:.1f}'}</td>"
        )
        rows.append(f"<tr><td>{html.escape(label)}</td><td>{run.state}</td>{cells}</tr>")
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in (*names, "parameters", "ms a step"))
    return f"<table><tr><th>run</th><th>state</th>{heads}</tr>{''.join(rows)}</table>"


def _best(values: np.ndarray, mode: str) -> int | None:
    if not mode or len(values) < 2 or np.isnan(values).all():
        return None
    return int(np.nanargmax(values) if mode == "max" else np.nanargmin(values))
