"""Show maps, as far as they are finished: tables, a CSV file, a picture and a one-sentence verdict."""

import csv
import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gt.cli.intervals import Estimate
from gt.cli.settings import failures
from gt.cli.spectrum.grid import Grid, Setting
from gt.cli.spectrum.picture import Map, figure_of, figure_of_several
from gt.cli.spectrum.plan import CELLS, Plan, read
from gt.cli.spectrum.scores import Scored, spread
from gt.cli.sweep import WIDE
from gt.cli.sweep_tables import failure_sheet
from gt.data.files import write_bytes
from gt.data.picture import write_picture
from gt.errors import UserError
from gt.schema import format_number


def show(plan: Plan, folder: Path) -> None:
    """Print and draw a map, and print the paths of its files."""
    console = Console(width=None if sys.stdout.isatty() else WIDE, markup=False, highlight=False)
    if failed := failures(folder / CELLS):
        console.print(failure_sheet(failed).rich())
    scored = map_scores(plan, folder)
    if scored is not None:
        console.print(grid_table(plan, scored), mark_table(plan, scored))
        write_csv(plan, scored, folder / "spectrum.csv")
        verdict = scored.verdict(plan.data, plan.axis)
        write_picture(folder / "spectrum.png", figure_of(Map(scored, Grid(**plan.grid), plan.axis, plan.data)))
        console.print(f"\n{verdict}\n", soft_wrap=True)
        print(f"table    {folder / 'spectrum.csv'}\npicture  {folder / 'spectrum.png'}")
    if missing := plan.missing(folder):
        print(
            f"{len(missing)} of {len(plan.cells)} cells are missing; resume with: {resume_command(folder)}",
            flush=True,
        )


def show_several(folders: Sequence[Path], picture: Path) -> None:
    """Print the verdict of each map, and draw their scores in one picture.

    Raises:
        UserError: one of them has no finished cell.
    """
    maps = []
    for folder in folders:
        plan = read(folder)
        if (scored := map_scores(plan, folder)) is None:
            raise UserError(f"no cell of {folder} is finished; resume with: {resume_command(folder)}")
        print(f"{scored.verdict(plan.data, plan.axis)}\n")
        maps.append(Map(scored, Grid(**plan.grid), plan.axis, plan.data))
    write_picture(picture, figure_of_several(maps))
    print(f"picture  {picture}")


def map_scores(plan: Plan, folder: Path) -> Scored | None:
    """The scores of a map so far; None if no cell is finished."""
    results = plan.results(folder)
    return Scored({(cell.setting, cell.seed): result for cell, result in results.items()}) if results else None


def resume_command(folder: Path) -> str:
    """The command that resumes a map."""
    return f"python -m gt.spectrum resume={shlex.quote(str(folder))}"


def grid_table(plan: Plan, scored: Scored) -> Table:
    """The final scores: a row for each radius, a column for each weight."""
    grid, best = Grid(**plan.grid), scored.best
    out = Table(title=f"{scored.split} {scored.criterion} ({scored.direction})")
    out.add_column(plan.axis.unit)
    for weight in grid.weights:
        out.add_column(f"blend {weight:g}", justify="right")
    for index, radius in enumerate(reversed(grid.radii)):
        row = []
        for weight in grid.weights:
            setting = Setting(weight, radius if weight else None)
            scores = scored.cells.get(setting)
            text = "-" if scores is None else f"{scores}{' *' if setting == best else ''}"
            row.append(text if weight or not index else '"')
        out.add_row(plan.axis.everyone if radius is None else str(radius), *row)
    return out


def mark_table(plan: Plan, scored: Scored) -> Table:
    """The best cell and the corners: scores, costs and the lead of the best cell."""
    best = scored.best
    out = Table(title="the best by validation, and the corners")
    for name in ("", "attends to"):
        out.add_column(name)
    for name in ("blend", "runs", "valid", scored.split, "best is better by", "batch, ms", "parameters"):
        out.add_column(name, justify="right")
    for setting, names in scored.marks.items():
        cell, lead = scored.cells[setting], scored.lead(setting)
        lead_text = f"{format_number(lead.mean)} {lead.interval()}" if lead and setting != best else ""
        out.add_row(
            ", ".join(names),
            plan.axis.describe(setting.radius) if setting.weight else "nobody",
            f"{setting.weight:g}",
            str(len(cell.final)),
            spread(cell.valid.values()),
            str(cell),
            lead_text,
            f"{1e3 * cell.seconds:.1f}",
            f"{cell.parameters:,}",
        )
    out.caption = "scores of the checkpoints that validation chose, ± their deviation; a lead with its 95 % interval"
    return out


def write_csv(plan: Plan, scored: Scored, path: Path) -> None:
    """Write a row for each finished cell. The radius is ``all`` without a limit, and empty without attention."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    values = [f"{split}_{statistic}" for split in ("selected", scored.split) for statistic in ("mean", "deviation")]
    out.writerow(["blend", "radius", "runs", *values, "seconds_per_batch", "parameters", "mark"])
    for setting in Grid(**plan.grid).settings:
        if (cell := scored.cells.get(setting)) is None:
            continue
        radius = ("all" if setting.radius is None else setting.radius) if setting.weight else ""
        estimates = [Estimate.of(list(values.values())) for values in (cell.valid, cell.final)]
        numbers = [value for estimate in estimates for value in (estimate.mean, estimate.deviation)]
        names = " ".join(scored.marks.get(setting, []))
        out.writerow([setting.weight, radius, len(cell.final), *numbers, cell.seconds, cell.parameters, names])
    write_bytes(path, text.getvalue().encode())
