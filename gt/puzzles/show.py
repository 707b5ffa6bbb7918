"""The grid as a table on the terminal, a CSV file and a picture."""

import csv
import io
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from gt.data.files import write_bytes
from gt.puzzles.cells import SOLVED, Result
from gt.puzzles.grid import SETTINGS, Cell, Row, Setting
from gt.puzzles.picture import draw

PIPE_WIDTH = 160  # columns when the output is not a terminal
Results = Mapping[Cell, Result]


def cell_results(results: Results, row: Row, setting: Setting) -> list[Result]:
    """The results of a cell's seeds."""
    return [result for cell, result in results.items() if (cell.row, cell.setting) == (row, setting)]


def verdict(runs: Sequence[Result]) -> str:
    """Whether the runs of a cell solved the puzzle."""
    solved = sum(result.solved for result in runs)
    return "solved" if solved == len(runs) else "failed" if not solved else f"solved {solved} of {len(runs)}"


def table(rows: Sequence[Row], results: Results) -> Table:
    """Accuracy, verdict and seconds of each cell, averaged over seeds."""
    tokens = ", ".join(row.data for row in rows if row.causal)
    reads = f"all: the complete graph{f'; in {tokens} all previous tokens' if tokens else ''}"
    grid_table = Table(title=f"test accuracy; solved: {SOLVED:g} or more", caption=reads, show_lines=True)
    grid_table.add_column("puzzle, and what it requires", max_width=32)
    grid_table.add_column("encoding")
    grid_table.add_column("chance", justify="right")
    for setting in SETTINGS:
        grid_table.add_column(setting.name, justify="right")
    for row in rows:
        cells = []
        for runs in (cell_results(results, row, setting) for setting in SETTINGS):
            colour = "green" if all(result.solved for result in runs) else "red"
            accuracy, seconds = (fmean(getattr(result, name) for result in runs) for name in ("accuracy", "seconds"))
            cells.append(f"{accuracy:.3f} [dim]{seconds:3.0f} s[/]\n[{colour}]{verdict(runs)}[/]")
        chance = cell_results(results, row, SETTINGS[0])[0].chance
        grid_table.add_row(f"[bold]{row.data}[/]\n{row.needs}", row.encoding_name, f"{chance:.3f}", *cells)
    return grid_table


def write(path: Path, results: Results) -> None:
    """Write one row per run, with the command that repeats it."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["puzzle", "setting", "seed", "accuracy", "chance", "solved", "epochs", "seconds", "command"])
    for cell, result in results.items():
        values = [
            f"{result.accuracy:.4f}",
            f"{result.chance:.4f}",
            result.solved,
            result.epochs,
            f"{result.seconds:.1f}",
        ]
        setting = cell.setting.name.replace("\n", ", ")
        command = f"python train.py {shlex.join(cell.overrides)}"
        writer.writerow([cell.row.data, setting, cell.seed, *values, command])
    write_bytes(path, text.getvalue().encode())


def show(rows: Sequence[Row], results: Results, folder: Path) -> None:
    """Print the table, write both files and print their paths."""
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table(rows, results))
    paths = {"table": folder / "puzzles.csv", "picture": folder / "puzzles.png"}
    write(paths["table"], results)
    by_cell = {(row, setting): cell_results(results, row, setting) for row in rows for setting in SETTINGS}
    draw(paths["picture"], rows, by_cell)
    for name, path in paths.items():
        print(f"{name:<8} {path}")
