"""A sweep: one job's failure is not the end of the others; the last word is a table of the jobs, ranked."""

import fcntl
import io
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from gt.cli.arguments import arranged
from gt.cli.run_folders import OF_FOLDER
from gt.cli.settings import Job, decisive, failures, job_results, ranked
from gt.cli.sweep_tables import Outcome, write_tables
from gt.data.files import discard, write_bytes
from gt.errors import UserError
from gt.train.job import CLAIMS, LOCK, PLAN, PRUNED, SWEEP, read_json, write_json
from gt.train.study import file_in

WIDE = 160  # columns of a file or a pipe


class Ranking(Callback):
    """Prints the ranked jobs when a multirun ends, and keeps tables and a page as ``ranking.*`` in the sweep's folder.

    Hydra does not tell its callbacks of a sweep that a failed job or Ctrl-C ends: `ranking` then has the last word.

    It also keeps the arguments of the command, by which the sweep goes on: ``resume=FOLDER``. A folder that has such
    is that of another sweep, perhaps begun in the same second: its runs would be overwritten.

    Args:
        against: what the settings are compared with, see `gt.cli.settings.chosen`.
        resumes: whether the sweep goes on: jobs that have finished are kept.
    """

    folder: ClassVar[Path | None] = None  # of the sweep that is running
    compared: ClassVar[str] = ""  # with what

    def __init__(self, against: str = "", resumes: bool = False) -> None:
        self.against, self.resumes = against, resumes

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / LOCK, "w") as file:
            with suppress(OSError):  # not every file system can lock
                fcntl.lockf(file, fcntl.LOCK_EX)
            if (folder / SWEEP).exists() and not (self.resumes or (folder / PLAN).exists()):  # a map takes more cells
                instead = f"go on with it by {how_to_go_on(folder)}, or choose another hydra.sweep.dir"
                print(f"error: {folder} holds a sweep already: {instead}", file=sys.stderr)
                raise SystemExit(1)  # Hydra makes a mere warning of an Exception in a callback
            if not (folder / PLAN).exists():  # else it may be a map of other settings, which is refused
                keep_arguments(folder)
        Ranking.folder, Ranking.compared = folder, self.against


def keep_arguments(folder: Path) -> None:
    """Keep those of this command as the ones by which the sweep of a folder goes on."""
    write_json(folder / SWEEP, {"arguments": [word for word in sys.argv[1:] if not word.startswith(OF_FOLDER)]})


@contextmanager
def ranking() -> Iterator[None]:
    """Around the whole program: however a sweep ends, its jobs are ranked. One that is refused leaves no folder.

    Raises:
        UserError: some of its jobs failed.
    """
    Ranking.folder, stopped = None, None
    failed: list[Job] = []
    try:
        yield
    except Exception as error:  # Hydra raises what the first failed job raised when the last one is done
        stopped = error
    except BaseException:
        if Ranking.folder and began(Ranking.folder):
            print(f"stopped; the sweep goes on with: {how_to_go_on(Ranking.folder)}", flush=True)
        raise
    finally:
        if Ranking.folder and began(Ranking.folder):
            failed = show(Ranking.folder, Ranking.compared) or []
        elif Ranking.folder:
            discard(Ranking.folder)
    if failed:
        jobs = ", ".join(each["job"] for each in failed)
        again = how_to_go_on(Ranking.folder)
        advice = f"to try them again: {again}"
        if Ranking.folder and file_in(Ranking.folder):  # Optuna has them as failed, and a sampler goes by that
            advice = f"a failed trial is not tried again; further ones: {again} sweep.trials=NUMBER"
        raise UserError(f"{len(failed)} of the jobs failed: {jobs}; {advice}") from stopped
    if stopped:
        raise stopped


def began(folder: Path) -> bool:
    """Whether there is more in the folder of a sweep than what it was asked for."""
    return any(path.name not in (SWEEP, CLAIMS, PLAN, LOCK) for path in folder.iterdir())


def how_to_go_on(folder: Path | None) -> str:
    """The command that runs what is missing of a sweep."""
    return f"python train.py -m resume={shlex.quote(str(folder))}"


def best_again(folder: Path, outcome: Outcome) -> str:
    """The command that runs the best job of a sweep folder again: of the best setting, the best by validation."""
    jobs = outcome.settings[0]
    job = (max if jobs[0]["mode"] == "max" else min)(jobs, key=decisive)
    kept = read_json(folder / SWEEP)["arguments"] if (folder / SWEEP).exists() else []
    flags = [flag for flag in arranged(kept)[0] if flag not in ("-m", "--multirun")]
    alone = ["--run"] if any(line.startswith("sweep=") for line in job["overrides"]) else []
    return shlex.join(["python", "train.py", *flags, *alone, *job["overrides"]])


def show(folder: Path, against: str = "") -> list[Job] | None:
    """Print and keep the ranking of a sweep folder; returns its failed jobs, None where none has ended."""
    pruned = failures(folder, PRUNED)
    outcome = Outcome(ranked(job_results(folder), pruned), failures(folder), against, pruned)
    if sheets := outcome.sheets():
        tables = [f"all jobs: {' '.join(outcome.shared)}", *(sheet.rich() for sheet in sheets)]
        wide = None if sys.stdout.isatty() else WIDE
        Console(width=wide, markup=False).print(*tables)  # encoding=[rwse] is no markup
        text = io.StringIO()
        Console(file=text, width=WIDE, markup=False).print(*tables)
        write_bytes(folder / "ranking.txt", text.getvalue().encode())
        print(f"sweep folder  {folder}\nranking       {folder / 'ranking.txt'}", flush=True)
    if outcome.settings:
        from gt.cli.sweep_report import write_page  # late: --help and a typo answer at once

        written, again = " ".join(map(str, write_tables(folder, outcome))), best_again(folder, outcome)
        print(f"as CSV        {written}\nreport        {write_page(folder, outcome, again)}", flush=True)
        print(f"the best again by\n  {again}", flush=True)
    return list(outcome.failed) if sheets else None
