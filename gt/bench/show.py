"""Measurements as a table, a file and a picture, and their changes from an earlier result."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from rich.table import Table

from gt.bench.steps import PARTS, Row
from gt.data.picture import write_picture
from gt.errors import UserError, first_line
from gt.lottery.timing import ms
from gt.train.job import write_json


def table(rows: Sequence[Row]) -> Table:
    """One row per program."""
    out = Table(title="a training step; programs timed in turn; median ± half the interquartile range")
    for name in ("shape", "program"):
        out.add_column(name)
    for name in ("ms", "vs gt", "per second", *PARTS, "memory", "GFLOP", "of peak"):
        out.add_column(name, justify="right")
    ours = {row.shape: row.median for row in rows if row.program == "gt"}
    for row in rows:
        cells = [row.shape if row.program == "gt" else "", row.program, ms(row.times)]
        cells += [f"{row.median / ours[row.shape]:.2f}", f"{row.count / row.median:,.0f} {row.unit}"]
        cells += [f"{row.parts[part] / row.median:.0%}" if row.parts else "" for part in PARTS]
        cells += [f"{row.memory / 1e6:.0f} MB"] if row.memory is not None else [""]
        cells += [f"{row.flops / 1e9:.2f}", f"{row.reached:.0%}"] if row.flops is not None else []
        out.add_row(*cells)
    return out


def write(path: Path, rows: Sequence[Row], metadata: Mapping[str, object]) -> None:
    """Write the rows as JSON."""
    write_json(path, {"machine": metadata, "rows": [asdict(row) for row in rows]})


def read(path: Path) -> list[Row]:
    """Read a file of `write`.

    Raises:
        UserError: it is no such file.
    """
    try:
        return [Row(**row) for row in json.loads(path.read_text())["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a result of gt.bench: {first_line(error)}") from None


def changes(earlier: Sequence[Row], current: Sequence[Row]) -> list[str]:
    """One line per common program: the time of a step then and now."""
    old = {(row.shape, row.program): row for row in earlier}
    pairs = [(row, old[key]) for row in current if (key := (row.shape, row.program)) in old]
    return [
        f"{row.shape}, {row.program}: {1e3 * previous.median:.2f} -> {1e3 * row.median:.2f} ms, "
        f"x {row.median / previous.median:.2f}"
        for row, previous in pairs
    ]


def draw(path: Path, rows: Sequence[Row], title: str) -> None:
    """Bar chart of times, one group per shape, relative to the longest time of the group."""
    shapes = list(dict.fromkeys(row.shape for row in rows))
    figure = Figure(figsize=(9, 0.4 * len(rows) + 0.5 * len(shapes) + 1), layout="constrained")
    axes = figure.subplots()
    position, ticks = 0.0, []
    for shape in shapes:
        axes.text(0.0, position - 0.65, shape, fontweight="bold", fontsize=9, transform=axes.get_yaxis_transform())
        group = [row for row in rows if row.shape == shape]
        longest = max(row.median for row in group)
        for number, row in enumerate(group):
            axes.barh(position, row.median / longest, color=mpl.colormaps["tab10"](min(number, 2)), height=0.8)
            axes.text(row.median / longest, position, f" {1e3 * row.median:.3g} ms", va="center", fontsize=8)
            ticks.append((position, row.program))
            position += 1
        position += 1
    axes.set_yticks([position for position, _ in ticks], [name for _, name in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("time of a training step, relative to the longest of its group")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    write_picture(path, figure)
