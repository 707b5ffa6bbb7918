"""Run the cells of a map and show it."""

import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gt.cli.arguments import split_flags
from gt.cli.spectrum.grid import Cell
from gt.cli.spectrum.plan import CELLS, Plan, plan_map
from gt.cli.spectrum.pool import TRAIN, Run, run_all, termination
from gt.cli.spectrum.show import resume_command, show
from gt.cli.sweep import keep_arguments
from gt.data.machine import cpus, has_gpu
from gt.errors import UserError
from gt.train.job import FAILURE, write_json

MAX_PROCESSES = 8  # by default


def sweep(cfg: DictConfig, arguments: list[str]) -> None:
    """Run the missing cells of a map, and show it.

    Args:
        cfg: the composed configuration, with Hydra's own section.
        arguments: the command line that it was composed from.

    Raises:
        UserError: the command does not describe a map, see `plan_map`, or some cells failed.
    """
    flags = [flag for flag in split_flags(arguments)[0] if flag not in ("-m", "--multirun")]
    plan, processes = plan_map(cfg, flags)
    folder = Path(cfg.hydra.sweep.dir)
    plan.save(folder)
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
        raise UserError(f"{len(failed)} of the cells failed; to retry them: {resume_command(folder)}")


def default_processes(cfg: DictConfig) -> int:
    """One for each core, at most `MAX_PROCESSES`; one on a GPU."""
    on_gpu = cfg.trainer.accelerator != "cpu" and has_gpu()
    return 1 if on_gpu else min(MAX_PROCESSES, cpus())


def fill(plan: Plan, folder: Path, cells: list[Cell], processes: int) -> list[str]:
    """Run cells; returns the names of the failed ones."""
    for cell in cells:
        (folder / CELLS / cell.name / FAILURE).unlink(missing_ok=True)
    by_name = {cell.name: cell for cell in cells}
    failed: list[str] = []
    columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(), auto_refresh=False, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task("cells", total=len(cells))

        def on_poll(ended: Run | None) -> None:
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

        run_all([(cell.name, plan.command(folder, cell)) for cell in cells], processes, on_poll)
    return failed


def prepare(plan: Plan, folder: Path, cell: Cell) -> None:
    """Build the data once, so that parallel runs need not wait for each other.

    Raises:
        SystemExit: they cannot be built; the error has been printed.
    """
    arguments = [*plan.arguments(cell, folder / "prepare"), "stage=prepare"]
    code = subprocess.run([sys.executable, str(TRAIN), *arguments], check=False).returncode
    if code:
        raise SystemExit(code if code > 0 else 128 - code)
