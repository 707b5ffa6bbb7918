"""Pictures of maps: scores and costs of one map, or the scores of several, with corners and best cell marked."""

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
from gt.schema import format_number

SMALL = mpl.rc_context({"font.size": 9})
WIDE_RANGE = 4.0  # ratio of the largest to the smallest cost above which the colour scale is logarithmic


class Map(NamedTuple):
    """A map to draw: its scores, its grid, the meaning of its radius and the name of the data."""

    scored: Scored
    grid: Grid
    axis: Axis
    name: str

    @property
    def size(self) -> tuple[float, float]:
        """The size of one panel, in inches."""
        return 1.25 * len(self.grid.weights) + 1.6, 0.85 * len(self.grid.radii) + 1.2


@SMALL
def figure_of(map_: Map) -> Figure:
    """Draw two heat maps over blend weight and radius: mean scores with deviations, and time per batch."""
    scored, (width, height) = map_.scored, map_.size
    figure = Figure(figsize=(2 * width, height + 0.5), layout="constrained")
    figure.suptitle(f"{map_.name}: {scored.location(map_.axis)}", fontsize=12)
    left, right = figure.subplots(1, 2)
    trivial = f"trivial baseline {format_number(scored.baseline)}"
    left.set_title(f"{scored.measure}, {scored.seed_note} ({scored.direction}; {trivial})", fontsize=10)
    scores(left, map_)

    right.set_title("milliseconds per training batch", fontsize=10)
    costs = {setting: 1e3 * cell.seconds for setting, cell in scored.cells.items()}
    heat(right, costs, {setting: f"{cost:.3g} ms" for setting, cost in costs.items()}, map_, "Blues", logarithmic=True)
    return figure


@SMALL
def figure_of_several(maps: Sequence[Map], columns: int = 3) -> Figure:
    """Draw the scores of several maps, each with its own colour scale."""
    columns = min(columns, len(maps))
    rows = math.ceil(len(maps) / columns)
    width, height = (max(sides) for sides in zip(*(one.size for one in maps), strict=True))
    figure = Figure(figsize=(columns * width, rows * (height + 0.5)), layout="constrained")
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    for axes, one in zip(panels, maps, strict=False):
        scored = one.scored
        axes.set_title(
            f"{one.name}\n{scored.location(one.axis)}\n{scored.measure}, {scored.seed_note}, {scored.direction}"
        )
        scores(axes, one)
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    return figure


def scores(axes: Axes, map_: Map) -> None:
    """Draw the heat map of the scores; lighter is better."""
    means = {setting: cell.mean for setting, cell in map_.scored.cells.items()}
    texts = {setting: str(cell).replace(" ± ", "\n± ") for setting, cell in map_.scored.cells.items()}
    heat(axes, means, texts, map_, "viridis" if map_.scored.mode == "max" else "viridis_r")


def heat(
    axes: Axes,
    values: Mapping[Setting, float],
    texts: Mapping[Setting, str],
    map_: Map,
    colours: str,
    logarithmic: bool = False,
) -> None:
    """Draw a box for each cell, hatched if it has no value. The cell without attention spans all radii.

    Args:
        logarithmic: use a logarithmic colour scale if the values are far apart.
    """
    scored, grid = map_.scored, map_.grid
    finite = [value for value in values.values() if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
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
    if isinstance(norm, LogNorm):  # plain numbers instead of powers of ten
        for ticks in (bar.ax.yaxis.set_major_formatter, bar.ax.yaxis.set_minor_formatter):
            ticks("{x:g}")
    axes.set_xlim(-0.5, len(grid.weights) - 0.5)
    axes.set_ylim(-0.5, len(grid.radii) - 0.5)
    axes.set_xticks(range(len(grid.weights)), [f"{weight:g}" for weight in grid.weights])
    axes.set_yticks(range(len(grid.radii)), [map_.axis.everyone if r is None else str(r) for r in grid.radii])
    axes.set_xlabel("blend weight: 0 message passing alone, 1 attention alone")
    axes.set_ylabel(f"nodes attended to: {map_.axis.unit}")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
