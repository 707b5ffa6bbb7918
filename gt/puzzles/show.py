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

WIDE = 160  # columns of a file or a pipe
Results = Mapping[Cell, Result]


def of(results: Results, row: Row, setting: Setting) -> list[Result]:
    """One result for each seed."""
    return [result for cell, result in results.items() if (cell.row, cell.setting) == (row, setting)]


def verdict(each: Sequence[Result]) -> str:
    """Whether the trainings of a cell solved the puzzle."""
    solved = sum(result.solved for result in each)
    return "solved" if solved == len(each) else "failed" if not solved else f"solved {solved} of {len(each)}"


def table(rows: Sequence[Row], results: Results) -> Table:
    """Accuracy, verdict and seconds of each cell, a mean where there are several seeds."""
    tokens = ", ".join(row.data for row in rows if row.causal)
    reads = f"all: the complete graph{f'; in {tokens} what came before' if tokens else ''}"
    out = Table(title=f"test accuracy; solved: {SOLVED:g} or more", caption=reads, show_lines=True)
    out.add_column("puzzle, and what it takes", max_width=32)
    out.add_column("encoding")
    out.add_column("chance", justify="right")
    for setting in SETTINGS:
        out.add_column(setting.name, justify="right")
    for row in rows:
        cells = []
        for each in (of(results, row, setting) for setting in SETTINGS):
            colour = "green" if all(result.solved for result in each) else "red"
            accuracy, seconds = (fmean(getattr(result, name) for result in each) for name in ("accuracy", "seconds"))
            cells.append(f"{accuracy:.3f} [dim]{seconds:3.0f} s[/]\n[{colour}]{verdict(each)}[/]")
        chance = of(results, row, SETTINGS[0])[0].chance
        out.add_row(f"[bold]{row.data}[/]\n{row.needs}", row.encoding_name, f"{chance:.3f}", *cells)
    return out


def write(path: Path, results: Results) -> None:
    """A row for each training, with the command that repeats it."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["puzzle", "setting", "seed", "accuracy", "chance", "solved", "epochs", "seconds", "command"])
    for cell, result in results.items():
        facts = [
            f"{result.accuracy:.4f}",
            f"{result.chance:.4f}",
            result.solved,
            result.epochs,
            f"{result.seconds:.1f}",
        ]
        setting = cell.setting.name.replace("\n", ", ")
        command = f"python train.py {shlex.join(cell.overrides)}"
        writer.writerow([cell.row.data, setting, cell.seed, *facts, command])
    write_bytes(path, text.getvalue().encode())


def show(rows: Sequence[Row], results: Results, folder: Path) -> None:
    """Print the table, write both files and name them."""
    Console(width=None if sys.stdout.isatty() else WIDE).print(table(rows, results))
    paths = {"table": folder / "puzzles.csv", "picture": folder / "puzzles.png"}
    write(paths["table"], results)
    shown = {(row, setting): of(results, row, setting) for row in rows for setting in SETTINGS}
    draw(paths["picture"], rows, shown)
    for name, path in paths.items():
        print(f"{name:<8} {path}")
