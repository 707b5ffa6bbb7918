"""Maps as pictures: scores and costs of one side by side, or the scores of several; corners and best cell marked."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gt.cli.spectrum.grid import Axis, Grid, Setting
from gt.cli.spectrum.scores import Scored
from gt.schema import number

SMALL = mpl.rc_context({"font.size": 9})
WIDE_RANGE = 4.0  # largest over smallest cost from which colours go by the logarithm


class Map(NamedTuple):
    """What is drawn of a map: how it came out, what it goes over, what its radius is, the name of the data."""

    scored: Scored
    grid: Grid
    axis: Axis
    name: str

    @property
    def size(self) -> tuple[float, float]:
        """Of one panel, in inches."""
        return 1.25 * len(self.grid.weights) + 1.6, 0.85 * len(self.grid.radii) + 1.2


@SMALL
def figure_of(each: Map) -> Figure:
    """Two heat maps over blend weight and radius: the mean scores with their deviations, and the seconds of a batch."""
    scored, (width, height) = each.scored, each.size
    figure = Figure(figsize=(2 * width, height + 0.5), layout="constrained")
    figure.suptitle(f"{each.name}: {scored.place(each.axis)}", fontsize=12)
    left, right = figure.subplots(1, 2)
    trivial = f"trivial baseline {number(scored.baseline)}"
    left.set_title(f"{scored.scale}, {scored.runs} ({scored.better}; {trivial})", fontsize=10)
    scores(left, each)

    right.set_title("milliseconds a training batch", fontsize=10)
    costs = {setting: 1e3 * cell.seconds for setting, cell in scored.cells.items()}
    heat(right, costs, {setting: f"{cost:.3g} ms" for setting, cost in costs.items()}, each, "Blues", logarithmic=True)
    return figure


@SMALL
def figure_of_several(maps: Sequence[Map], columns: int = 3) -> Figure:
    """The scores of several maps, each in its own colours."""
    columns = min(columns, len(maps))
    rows = math.ceil(len(maps) / columns)
    width, height = (max(sides) for sides in zip(*(each.size for each in maps), strict=True))
    figure = Figure(figsize=(columns * width, rows * (height + 0.5)), layout="constrained")
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    for axes, each in zip(panels, maps, strict=False):
        scored = each.scored
        axes.set_title(f"{each.name}\n{scored.place(each.axis)}\n{scored.scale}, {scored.runs}, {scored.better}")
        scores(axes, each)
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    return figure


def scores(axes: Axes, each: Map) -> None:
    """The heat map of the scores, light where they are good."""
    means = {setting: cell.mean for setting, cell in each.scored.cells.items()}
    texts = {setting: str(cell).replace(" ± ", "\n± ") for setting, cell in each.scored.cells.items()}
    heat(axes, means, texts, each, "viridis" if each.scored.mode == "max" else "viridis_r")


def heat(
    axes: Axes,
    values: Mapping[Setting, float],
    texts: Mapping[Setting, str],
    each: Map,
    colours: str,
    logarithmic: bool = False,
) -> None:
    """A box for each cell, hatched where there is no value. That without attention counts for every radius.

    Args:
        logarithmic: colours go by the logarithm where values are far apart.
    """
    scored, grid = each.scored, each.grid
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
    axes.set_xlim(-0.5, len(grid.weights) - 0.5)
    axes.set_ylim(-0.5, len(grid.radii) - 0.5)
    axes.set_xticks(range(len(grid.weights)), [f"{weight:g}" for weight in grid.weights])
    axes.set_yticks(range(len(grid.radii)), [each.axis.everyone if r is None else str(r) for r in grid.radii])
    axes.set_xlabel("blend weight: 0 message passing alone, 1 attention alone")
    axes.set_ylabel(f"whom a node attends to: {each.axis.unit}")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
