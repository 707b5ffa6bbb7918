"""A map, from its cells to its picture."""

import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gt.cli.arguments import arranged
from gt.cli.spectrum.grid import Cell
from gt.cli.spectrum.plan import CELLS, Plan, planned
from gt.cli.spectrum.pool import TRAIN, Run, run_all, termination
from gt.cli.spectrum.show import how_to_go_on, show
from gt.cli.sweep import keep_arguments
from gt.data.machine import cpus
from gt.errors import UserError
from gt.train.job import FAILURE, write_json

MOST = 8  # processes, unless more are asked for


def sweep(cfg: DictConfig, arguments: list[str]) -> None:
    """Run what is missing of a map, and show it.

    Args:
        cfg: composed, with Hydra's own section.
        arguments: of the command line that it was composed from.

    Raises:
        UserError: what was asked for is no map, see `planned`, or some cells failed.
    """
    flags = [flag for flag in arranged(arguments)[0] if flag not in ("-m", "--multirun")]
    plan, processes = planned(cfg, flags)
    folder = Path(cfg.hydra.sweep.dir)
    plan.keep(folder)
    keep_arguments(folder)
    missing = plan.missing(folder)
    print(f"{len(plan.cells)} cells, {len(missing)} to run, in {folder}", flush=True)
    if missing:
        prepare(plan, folder, missing[0])
    try:
        with termination():
            failed = fill(plan, folder, missing, processes or default_processes(cfg)) if missing else []
    finally:
        show(plan, folder)
    if failed:
        raise UserError(f"{len(failed)} of the cells failed; to try them again: {how_to_go_on(folder)}")


def default_processes(cfg: DictConfig) -> int:
    """One for each core; on a GPU one."""
    import torch  # takes a second

    on_gpu = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return 1 if on_gpu else min(MOST, cpus())


def fill(plan: Plan, folder: Path, cells: list[Cell], processes: int) -> list[str]:
    """Run cells; returns the names of those that failed."""
    for cell in cells:
        (folder / CELLS / cell.name / FAILURE).unlink(missing_ok=True)
    by_name = {cell.name: cell for cell in cells}
    failed: list[str] = []
    columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(), auto_refresh=False, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task("cells", total=len(cells))

        def look(ended: Run | None) -> None:
            if ended is not None:
                cell = by_name[ended.name]
                if ended.error:
                    failed.append(ended.name)
                    reason = {"overrides": cell.overrides(plan.axis), "reason": ended.error}
                    write_json(folder / CELLS / ended.name / FAILURE, reason)
                outcome = f"failed: {ended.error}" if ended.error else f"{ended.seconds:.0f} s"
                progress.advance(task)
                done = int(progress.tasks[0].completed)
                line = f"{done}/{len(cells)}  {ended.name}  {outcome}"
                progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
            progress.refresh()

        run_all([(cell.name, plan.command(folder, cell)) for cell in cells], processes, look)
    return failed


def prepare(plan: Plan, folder: Path, cell: Cell) -> None:
    """Build the data once, before several runs would wait for one another to do it.

    Raises:
        SystemExit: they cannot be built, as was said.
    """
    arguments = [*plan.arguments(cell, folder / "prepare"), "stage=prepare"]
    code = subprocess.run([sys.executable, str(TRAIN), *arguments], check=False).returncode
    if code:
        raise SystemExit(code if code > 0 else 128 - code)
