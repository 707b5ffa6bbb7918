"""The map as a picture: scores and costs side by side, the corners and the best cell marked."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gt.cli.spectrum.grid import Axis, Grid, Setting
from gt.cli.spectrum.scores import Scored
from gt.data.files import whole
from gt.schema import number

WIDE_RANGE = 4.0  # largest over smallest cost from which colours go by the logarithm


def draw(path: Path, scored: Scored, grid: Grid, axis: Axis, name: str) -> None:
    """Write the picture of a map, a PNG file."""
    with mpl.rc_context({"font.size": 9}), whole(path) as file:
        figure_of(scored, grid, axis, name).savefig(file, dpi=130, format="png")


def figure_of(scored: Scored, grid: Grid, axis: Axis, name: str) -> Figure:
    """Two heat maps over blend weight and radius: the mean scores with their deviations, and the seconds of a batch."""
    size = (2 * (1.25 * len(grid.weights) + 1.6), 0.85 * len(grid.radii) + 1.7)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"{name}: {scored.place(axis)}", fontsize=12)
    left, right = figure.subplots(1, 2)

    counts = sorted({len(cell.final) for cell in scored.cells.values()})
    of_seeds = f"mean of {' to '.join(map(str, counts[:1] + counts[1:][-1:]))} seeds" if counts != [1] else "one seed"
    trivial = f"trivial baseline {number(scored.baseline)}"
    left.set_title(f"{scored.split} {scored.criterion}, {of_seeds} ({scored.better}; {trivial})", fontsize=10)
    means = {setting: cell.mean for setting, cell in scored.cells.items()}
    texts = {setting: str(cell).replace(" ± ", "\n± ") for setting, cell in scored.cells.items()}
    heat(left, means, texts, scored, grid, "viridis" if scored.mode == "max" else "viridis_r")

    right.set_title("milliseconds a training batch", fontsize=10)
    costs = {setting: 1e3 * cell.seconds for setting, cell in scored.cells.items()}
    texts = {setting: f"{cost:.3g} ms" for setting, cost in costs.items()}
    heat(right, costs, texts, scored, grid, "Blues", logarithmic=True)

    for axes in (left, right):
        axes.set_xlim(-0.5, len(grid.weights) - 0.5)
        axes.set_ylim(-0.5, len(grid.radii) - 0.5)
        axes.set_xticks(range(len(grid.weights)), [f"{weight:g}" for weight in grid.weights])
        axes.set_yticks(range(len(grid.radii)), [axis.everyone if r is None else str(r) for r in grid.radii])
        axes.set_xlabel("blend weight: 0 message passing alone, 1 attention alone")
        axes.set_ylabel(f"whom a node attends to: {axis.unit}")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def heat(
    axes: Axes,
    values: Mapping[Setting, float],
    texts: Mapping[Setting, str],
    scored: Scored,
    grid: Grid,
    colours: str,
    logarithmic: bool = False,
) -> None:
    """A box for each cell, hatched where there is no value. That without attention counts for every radius.

    Args:
        logarithmic: colours go by the logarithm where values are far apart.
    """
    known = [value for value in values.values() if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    norm = LogNorm(low, high) if logarithmic and high > WIDE_RANGE * low > 0 else Normalize(low, high)
    colour_map = mpl.colormaps[colours]
    for setting in grid.settings:
        column = grid.weights.index(setting.weight)
        row, height = (grid.radii.index(setting.radius), 1) if setting.weight else (0, len(grid.radii))
        corner = (column - 0.5, row - 0.5)
        if not math.isfinite(value := values.get(setting, math.nan)):
            axes.add_patch(Rectangle(corner, 1, height, facecolor="0.93", edgecolor="white", hatch="//"))
            continue
        red, green, blue, _ = face = colour_map(norm(value))
        axes.add_patch(Rectangle(corner, 1, height, facecolor=face, edgecolor="white", linewidth=1.5))
        ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        middle, names = row + (height - 1) / 2, scored.marks.get(setting, [])
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": ink, "fontsize": 8}
        axes.text(column, middle - (0.12 if names else 0), texts[setting], **style)
        axes.text(column, middle + 0.33, ", ".join(names), fontweight="bold", **style)
        if setting == scored.best:
            inner = (column - 0.47, row - 0.47)
            frame = Rectangle(inner, 0.94, height - 0.06, fill=False, edgecolor="red", linewidth=2.5, zorder=3)
            axes.add_patch(frame)
    bar = axes.figure.colorbar(ScalarMappable(norm, colour_map), ax=axes, shrink=0.8, pad=0.02)
    if isinstance(norm, LogNorm):  # in plain numbers, no powers of ten
        for ticks in (bar.ax.yaxis.set_major_formatter, bar.ax.yaxis.set_minor_formatter):
            ticks("{x:g}")
