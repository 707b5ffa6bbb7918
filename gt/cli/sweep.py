"""A sweep: one job's failure is not the end of the others; the last word is a table of the jobs, ranked."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from gt.cli.settings import Job, failures, job_results, ranked
from gt.cli.sweep_tables import Outcome, write_tables
from gt.errors import UserError

WIDE = 160  # columns of a file or a pipe


class Ranking(Callback):
    """Prints the ranked jobs when a multirun ends, and keeps tables and a page as ``ranking.*`` in the sweep's folder.

    Hydra does not tell its callbacks of a sweep that a failed job or Ctrl-C ends: `ranking` then has the last word.

    Args:
        against: what the settings are compared with, see `gt.cli.settings.chosen`.
    """

    folder: ClassVar[Path | None] = None  # of the sweep that is running
    compared: ClassVar[str] = ""  # with what

    def __init__(self, against: str = "") -> None:
        self.against = against

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Ranking.folder, Ranking.compared = Path(config.hydra.sweep.dir), self.against


@contextmanager
def ranking() -> Iterator[None]:
    """Around the whole program: however a sweep ends, its jobs are ranked.

    Raises:
        UserError: some of its jobs failed.
    """
    Ranking.folder, stopped = None, None
    failed: list[Job] = []
    try:
        yield
    except Exception as error:  # Hydra raises what the first failed job raised when the last one is done
        stopped = error
    finally:
        if Ranking.folder:
            failed = show(Ranking.folder, Ranking.compared)
    if failed:
        raise UserError(f"{len(failed)} of the jobs failed: {', '.join(each['job'] for each in failed)}") from stopped
    if stopped:
        raise stopped


def show(folder: Path, against: str = "") -> list[Job]:
    """Print and keep the ranking of a sweep folder; returns its failed jobs."""
    outcome = Outcome(ranked(job_results(folder)), failures(folder), against)
    if sheets := outcome.sheets():
        tables = [f"all jobs: {' '.join(outcome.shared)}", *(sheet.rich() for sheet in sheets)]
        wide = None if sys.stdout.isatty() else WIDE
        Console(width=wide, markup=False).print(*tables)  # encoding=[rwse] is no markup
        with open(folder / "ranking.txt", "w") as handle:
            Console(file=handle, width=WIDE, markup=False).print(*tables)
        print(f"sweep folder  {folder}\nranking       {folder / 'ranking.txt'}", flush=True)
    if outcome.settings:
        from gt.cli.sweep_report import write_page  # late: --help and a typo answer at once

        written = " ".join(map(str, write_tables(folder, outcome)))
        print(f"as CSV        {written}\nreport        {write_page(folder, outcome)}", flush=True)
    return list(outcome.failed)
