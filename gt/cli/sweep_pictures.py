"""Pictures of the effect of each key of a sweep: parallel coordinates, slices, score against cost."""

import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gt.cli.settings import Job
from gt.cli.sweep_keys import COSTS, cost, finite, front, positions, scores, values_by_key
from gt.schema import format_number

MAX_KEYS, COLUMNS = 8, 4  # the most important keys; panels per row
MAX_VALUE = 14  # characters
MIN_SPACING = 0.1  # of an axis; closer tick labels would overlap


def pictures(settings: Sequence[list[Job]], shares: dict[str, float]) -> dict[str, Figure]:
    """The pictures that have something to show, by title.

    Args:
        settings: the jobs of each setting, the best first.
        shares: the importance of each key.
    """
    defined = finite(settings)
    columns = values_by_key(defined)
    columns = {key: columns[key] for key in ([key for key in shares if key in columns] or list(columns))[:MAX_KEYS]}
    figures = {}
    if len(defined) > 2 and len(columns) > 1:
        figures["settings, one line each"] = parallel(defined, columns)
    if len(defined) > 2 and columns:
        figures["score by key"] = slices(defined, columns)
    for name, title in COSTS.items():
        if len({value for jobs in defined if math.isfinite(value := cost(jobs, name))}) > 1:
            figures[f"score against {title}"] = pareto(defined, name)
    return figures


def _measure(settings: Sequence[list[Job]]) -> str:
    return f"valid {settings[0][0]['criterion']}"


def short(text: str, limit: int = MAX_VALUE) -> str:
    """Shorten a label for a picture, keys first, and escape dollar signs, which would start a formula."""
    if len(text) > limit:
        text = re.sub(r"(?:[\w/]+\.)+(\w+)=", r"\1=", text)
    return (text if len(text) <= limit else f"{text[: limit - 3]}...").replace("$", r"\$")


def _name(key: str) -> str:
    return key if len(key) <= 24 else f"...{key[-21:]}"


def _ticks(values: Sequence[str]) -> tuple[list[float], list[str]]:
    """The tick positions and labels of an axis."""
    coordinates, names = positions(values)
    if names:
        return [float(tick) for tick in range(len(names))], [short(name) for name in names]
    exact = dict(zip(coordinates, values, strict=True))
    spacing = np.diff(sorted(exact)).min(initial=math.inf)
    if len(exact) <= 6 and spacing >= MIN_SPACING * (max(exact) - min(exact)):
        return list(exact), [short(f"{float(value):.4g}") for value in exact.values()]
    ends = np.linspace(min(coordinates), max(coordinates), 4)
    is_log = not math.isclose(max(coordinates), max(map(float, values)))
    return list(ends), [f"{10**end if is_log else end:.3g}" for end in ends]


def parallel(settings: Sequence[list[Job]], columns: dict[str, list[str]]) -> Figure:
    """Parallel coordinates of keys and score; a line is a setting, coloured by score, the best one thick and red."""
    score = np.array(scores(settings))
    figure = Figure(figsize=(max(5.0, 1.5 * (len(columns) + 1)), 3.8), layout="constrained")
    axes = figure.subplots()
    axis_ticks: list[Any] = [_ticks(column) for column in columns.values()]
    heights = np.linspace(score.min(), score.max(), 4).tolist()
    axis_ticks.append((heights, list(map(format_number, heights))))
    raw = [np.array(positions(column)[0]) for column in columns.values()] + [score]
    lines = np.stack([(p - p.min()) / (np.ptp(p) or 1.0) for p in raw], axis=1)  # (settings, axes)
    shades = mpl.colormaps["viridis"]((score - score.min()) / (np.ptp(score) or 1.0))
    for index in reversed(range(1, len(settings))):
        axes.plot(lines[index], color=shades[index], lw=1.1, alpha=0.75)
    axes.plot(lines[0], color="#cc3311", lw=2.6)
    for index, (p, (ticks, names)) in enumerate(zip(raw, axis_ticks, strict=True)):
        axes.axvline(index, color="#888888", lw=0.8, zorder=0)
        for tick, name in zip(ticks, names, strict=True):
            height = (tick - p.min()) / (np.ptp(p) or 1.0)
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
            axes.text(index + 0.03, height, name, fontsize=7.5, va="center", bbox=box)
    labels = [*map(_name, columns), _measure(settings)]
    axes.set_xticks(range(len(labels)), labels, rotation=18, ha="right", fontsize=8.5)
    axes.set(yticks=[], xlim=(-0.1, len(labels) - 0.55))
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(f"{len(settings)} settings, one line each; the best one by validation is red", fontsize=9)
    return figure


def slices(settings: Sequence[list[Job]], columns: dict[str, list[str]]) -> Figure:
    """A panel for each key: score against value."""
    across = min(COLUMNS, len(columns))
    rows = math.ceil(len(columns) / across)
    figure = Figure(figsize=(max(4.5, 2.5 * across), 0.5 + 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, across, sharey=True, squeeze=False).ravel()
    score = scores(settings)
    for axes, (key, column) in zip(panels, columns.items(), strict=False):
        coordinates, _ = positions(column)
        axes.plot(coordinates, score, "o", ms=5, alpha=0.55, mew=0, color="#4477aa")
        axes.plot(coordinates[0], score[0], "o", ms=7, color="#cc3311", mew=0)
        ticks, names = _ticks(column)
        crowded = len(names) > 4 or max(map(len, names)) > 5
        axes.set_xticks(ticks, names, rotation=35 if crowded else 0, ha="right" if crowded else "center", fontsize=7.5)
        axes.set_xlabel(_name(key), fontsize=8.5)
        axes.margins(x=0.12)
        axes.grid(alpha=0.3)
    for axes in panels[len(columns) :]:
        axes.set_visible(False)
    for axes in panels[::across]:
        axes.set_ylabel(_measure(settings), fontsize=8.5)
    figure.suptitle("a dot is a setting; the best one is red", fontsize=9)
    return figure


def pareto(settings: Sequence[list[Job]], name: str) -> Figure:
    """Score against cost of each setting; the Pareto front is joined and labelled with ranks."""
    costs, score = [cost(jobs, name) for jobs in settings], scores(settings)
    best = sorted(front(settings, name), key=lambda index: costs[index])
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(costs, score, "o", ms=5, alpha=0.5, mew=0, color="#4477aa", label="a setting")
    step = [[costs[index] for index in best], [score[index] for index in best]]
    axes.plot(*step, "o-", ms=6, color="#cc3311", drawstyle="steps-post", lw=1.2, label="Pareto front")
    for index in best:
        axes.annotate(str(index + 1), (costs[index], score[index]), (4, 5), textcoords="offset points", fontsize=8)
    axes.set(xlabel=COSTS[name], ylabel=_measure(settings))
    axes.grid(alpha=0.3)
    axes.margins(0.1)
    axes.legend(fontsize=8, frameon=False, loc="best")
    axes.set_title("a number is a setting's rank by validation", fontsize=9)
    return figure
