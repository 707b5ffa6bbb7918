"""Pictures of what the keys of a sweep did: parallel coordinates, slices, score against cost."""

import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gt.cli.settings import Job
from gt.cli.sweep_keys import COSTS, cost, finite, front, positions, scores, values_by_key
from gt.schema import number

KEYS, COLUMNS = 8, 4  # drawn at most, those that matter most; in a row of panels
LONGEST = 14  # letters of a value
NEAR = 0.1  # of an axis: closer marks would be printed over one another


def pictures(settings: Sequence[list[Job]], shares: dict[str, float]) -> dict[str, Figure]:
    """Those that there is something to see in, by their titles.

    Args:
        settings: the jobs of each, the best first.
        shares: the importance of each key.
    """
    kept = finite(settings)
    columns = values_by_key(kept)
    columns = {key: columns[key] for key in ([key for key in shares if key in columns] or list(columns))[:KEYS]}
    drawn = {}
    if len(kept) > 2 and len(columns) > 1:
        drawn["settings, a line each"] = parallel(kept, columns)
    if len(kept) > 2 and columns:
        drawn["score by key"] = slices(kept, columns)
    for name, words in COSTS.items():
        if len({value for jobs in kept if math.isfinite(value := cost(jobs, name))}) > 1:
            drawn[f"score against {words}"] = pareto(kept, name)
    return drawn


def _measure(settings: Sequence[list[Job]]) -> str:
    return f"valid {settings[0][0]['criterion']}"


def short(text: str, longest: int = LONGEST) -> str:
    """A text for a picture, cut where it is long, keys first; a dollar sign would begin a formula."""
    if len(text) > longest:
        text = re.sub(r"(?:[\w/]+\.)+(\w+)=", r"\1=", text)
    return (text if len(text) <= longest else f"{text[: longest - 3]}...").replace("$", r"\$")


def _name(key: str) -> str:
    return key if len(key) <= 24 else f"...{key[-21:]}"


def _ticks(values: Sequence[str]) -> tuple[list[float], list[str]]:
    """Where an axis is marked, and by what."""
    places, names = positions(values)
    if names:
        return [float(place) for place in range(len(names))], [short(name) for name in names]
    exact = dict(zip(places, values, strict=True))
    apart = np.diff(sorted(exact)).min(initial=math.inf)
    if len(exact) <= 6 and apart >= NEAR * (max(exact) - min(exact)):
        return list(exact), [short(f"{float(value):.4g}") for value in exact.values()]
    ends = np.linspace(min(places), max(places), 4)
    is_log = not math.isclose(max(places), max(map(float, values)))
    return list(ends), [f"{10**end if is_log else end:.3g}" for end in ends]


def parallel(settings: Sequence[list[Job]], columns: dict[str, list[str]]) -> Figure:
    """An axis a key and one of the score; a line is a setting, coloured by its score, the best one thick."""
    score = np.array(scores(settings))
    figure = Figure(figsize=(max(5.0, 1.5 * (len(columns) + 1)), 3.8), layout="constrained")
    axes = figure.subplots()
    marks: list[Any] = [_ticks(column) for column in columns.values()]
    heights = np.linspace(score.min(), score.max(), 4).tolist()
    marks.append((heights, list(map(number, heights))))
    raw = [np.array(positions(column)[0]) for column in columns.values()] + [score]
    lines = np.stack([(p - p.min()) / (np.ptp(p) or 1.0) for p in raw], axis=1)  # (settings, axes)
    shades = mpl.colormaps["viridis"]((score - score.min()) / (np.ptp(score) or 1.0))
    for place in reversed(range(1, len(settings))):
        axes.plot(lines[place], color=shades[place], lw=1.1, alpha=0.75)
    axes.plot(lines[0], color="#cc3311", lw=2.6)
    for place, (p, (ticks, names)) in enumerate(zip(raw, marks, strict=True)):
        axes.axvline(place, color="#888888", lw=0.8, zorder=0)
        for tick, name in zip(ticks, names, strict=True):
            height = (tick - p.min()) / (np.ptp(p) or 1.0)
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
            axes.text(place + 0.03, height, name, fontsize=7.5, va="center", bbox=box)
    labels = [*map(_name, columns), _measure(settings)]
    axes.set_xticks(range(len(labels)), labels, rotation=18, ha="right", fontsize=8.5)
    axes.set(yticks=[], xlim=(-0.1, len(labels) - 0.55))
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(f"{len(settings)} settings, a line each; the best one by validation red", fontsize=9)
    return figure


def slices(settings: Sequence[list[Job]], columns: dict[str, list[str]]) -> Figure:
    """A panel a key: its values and the scores."""
    wide = min(COLUMNS, len(columns))
    high = math.ceil(len(columns) / wide)
    figure = Figure(figsize=(max(4.5, 2.5 * wide), 0.5 + 2.3 * high), layout="constrained")
    panels = figure.subplots(high, wide, sharey=True, squeeze=False).ravel()
    score = scores(settings)
    for axes, (key, column) in zip(panels, columns.items(), strict=False):
        places, _ = positions(column)
        axes.plot(places, score, "o", ms=5, alpha=0.55, mew=0, color="#4477aa")
        axes.plot(places[0], score[0], "o", ms=7, color="#cc3311", mew=0)
        ticks, names = _ticks(column)
        crowded = len(names) > 4 or max(map(len, names)) > 5
        axes.set_xticks(ticks, names, rotation=35 if crowded else 0, ha="right" if crowded else "center", fontsize=7.5)
        axes.set_xlabel(_name(key), fontsize=8.5)
        axes.margins(x=0.12)
        axes.grid(alpha=0.3)
    for axes in panels[len(columns) :]:
        axes.set_visible(False)
    for axes in panels[::wide]:
        axes.set_ylabel(_measure(settings), fontsize=8.5)
    figure.suptitle("a dot is a setting; the best one red", fontsize=9)
    return figure


def pareto(settings: Sequence[list[Job]], name: str) -> Figure:
    """Each setting's score and cost; those that no other one beats in both, with their ranks, are joined."""
    costs, score = [cost(jobs, name) for jobs in settings], scores(settings)
    best = sorted(front(settings, name), key=lambda place: costs[place])
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(costs, score, "o", ms=5, alpha=0.5, mew=0, color="#4477aa", label="a setting")
    step = [[costs[place] for place in best], [score[place] for place in best]]
    axes.plot(
        *step, "o-", ms=6, color="#cc3311", drawstyle="steps-post", lw=1.2, label="no other is as good and as cheap"
    )
    for place in best:
        axes.annotate(str(place + 1), (costs[place], score[place]), (4, 5), textcoords="offset points", fontsize=8)
    axes.set(xlabel=COSTS[name], ylabel=_measure(settings))
    axes.grid(alpha=0.3)
    axes.margins(0.1)
    axes.legend(fontsize=8, frameon=False, loc="best")
    axes.set_title("a number is a setting's rank by validation", fontsize=9)
    return figure
