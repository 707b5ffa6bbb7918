"""What was measured, as a table, a file and a picture, and what a change did."""

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
    """A row for each program."""
    out = Table(title="a training step; the programs of a shape in turn, median, half the spread between quartiles")
    for name in ("shape", "program"):
        out.add_column(name)
    for name in ("ms", "of gt", "a second", *PARTS, "memory", "GFLOP", "of peak"):
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


def write(path: Path, rows: Sequence[Row], facts: Mapping[str, object]) -> None:
    """As JSON."""
    write_json(path, {"machine": facts, "rows": [asdict(row) for row in rows]})


def read(path: Path) -> list[Row]:
    """What `write` has written.

    Raises:
        UserError: it has not.
    """
    try:
        return [Row(**row) for row in json.loads(path.read_text())["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no result of gt.bench: {first_line(error)}") from None


def changes(before: Sequence[Row], now: Sequence[Row]) -> list[str]:
    """A line for each program that both have: what a step takes now, of what it took."""
    old = {(row.shape, row.program): row for row in before}
    pairs = [(row, old[key]) for row in now if (key := (row.shape, row.program)) in old]
    return [
        f"{row.shape}, {row.program}: {1e3 * was.median:.2f} -> {1e3 * row.median:.2f} ms, "
        f"x {row.median / was.median:.2f}"
        for row, was in pairs
    ]


def draw(path: Path, rows: Sequence[Row], about: str) -> None:
    """Times of each program, a group of bars a shape, in units of the longest of the group: bars begin at 0."""
    shapes = list(dict.fromkeys(row.shape for row in rows))
    figure = Figure(figsize=(9, 0.4 * len(rows) + 0.5 * len(shapes) + 1), layout="constrained")
    axes = figure.subplots()
    at, ticks = 0.0, []
    for shape in shapes:
        axes.text(0.0, at - 0.65, shape, fontweight="bold", fontsize=9, transform=axes.get_yaxis_transform())
        group = [row for row in rows if row.shape == shape]
        longest = max(row.median for row in group)
        for number, row in enumerate(group):
            axes.barh(at, row.median / longest, color=mpl.colormaps["tab10"](min(number, 2)), height=0.8)
            axes.text(row.median / longest, at, f" {1e3 * row.median:.3g} ms", va="center", fontsize=8)
            ticks.append((at, row.program))
            at += 1
        at += 1
    axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("time of a training step, in units of the longest of its group")
    axes.set_title(about, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    write_picture(path, figure)
