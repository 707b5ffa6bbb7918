"""Sweeps: a failed job does not stop the others; at the end the jobs are ranked in a table."""

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

from gt.cli.arguments import split_flags
from gt.cli.run_folders import FOLDER_OVERRIDES
from gt.cli.settings import Job, failures, job_results, ranked, ranking_score
from gt.cli.sweep_tables import Outcome, write_tables
from gt.data.files import discard, write_bytes
from gt.errors import UserError
from gt.train.job import CLAIMS, LOCK, PLAN, PRUNED, SWEEP, read_json, write_json
from gt.train.study import file_in

WIDE = 160  # console width for files and pipes


class Ranking(Callback):
    """Prepares the folder of a sweep for `ranking`, which prints the ranked jobs and writes ``ranking.*`` at the end.

    Hydra does not notify its callbacks of a sweep that is ended by a failed job or Ctrl-C, but `ranking` always runs.

    The arguments of the command are saved for ``resume=FOLDER``. A folder that already has some holds another sweep,
    perhaps started in the same second, and is refused, as its runs would be overwritten.

    Args:
        against: what the settings are compared with, see `gt.cli.settings.reference`.
        resumes: whether the sweep is resumed: finished jobs are kept.
    """

    folder: ClassVar[Path | None] = None  # of the running sweep
    compared: ClassVar[str] = ""  # its ``against``

    def __init__(self, against: str = "", resumes: bool = False) -> None:
        self.against, self.resumes = against, resumes

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / LOCK, "w") as file:
            with suppress(OSError):  # not every file system can lock
                fcntl.lockf(file, fcntl.LOCK_EX)
            if (folder / SWEEP).exists() and not (self.resumes or (folder / PLAN).exists()):  # a map may grow
                advice = f"continue it with {resume_command(folder)}, or choose another hydra.sweep.dir"
                print(f"error: {folder} already holds a sweep: {advice}", file=sys.stderr)
                raise SystemExit(1)  # Hydra turns an Exception in a callback into a warning
            if not (folder / PLAN).exists():  # otherwise it may be a map of other settings, which is refused
                keep_arguments(folder)
        Ranking.folder, Ranking.compared = folder, self.against


def keep_arguments(folder: Path) -> None:
    """Save the arguments of this command in the folder of its sweep, for resuming it."""
    write_json(folder / SWEEP, {"arguments": [word for word in sys.argv[1:] if not word.startswith(FOLDER_OVERRIDES)]})


@contextmanager
def ranking() -> Iterator[None]:
    """Rank the jobs of a sweep, however it ends; wraps the whole program. A refused sweep leaves no folder.

    Raises:
        UserError: some of its jobs failed.
    """
    Ranking.folder, stopped = None, None
    failed: list[Job] = []
    try:
        yield
    except Exception as error:  # Hydra reraises the error of the first failed job after the last job
        stopped = error
    except BaseException:
        if Ranking.folder and has_started(Ranking.folder):
            print(f"stopped; resume the sweep with: {resume_command(Ranking.folder)}", flush=True)
        raise
    finally:
        if Ranking.folder and has_started(Ranking.folder):
            failed = show(Ranking.folder, Ranking.compared) or []
        elif Ranking.folder:
            discard(Ranking.folder)
    if failed:
        jobs = ", ".join(job["job"] for job in failed)
        resume = resume_command(Ranking.folder)
        advice = f"to retry them: {resume}"
        if Ranking.folder and file_in(Ranking.folder):  # recorded as failed by Optuna, whose sampler relies on that
            advice = f"failed trials are not retried; for further ones: {resume} sweep.trials=NUMBER"
        raise UserError(f"{len(failed)} of the jobs failed: {jobs}; {advice}") from stopped
    if stopped:
        raise stopped


def has_started(folder: Path) -> bool:
    """Whether the folder of a sweep holds more than its own bookkeeping files."""
    return any(path.name not in (SWEEP, CLAIMS, PLAN, LOCK) for path in folder.iterdir())


def resume_command(folder: Path | None) -> str:
    """The command that resumes a sweep."""
    return f"python train.py -m resume={shlex.quote(str(folder))}"


def rerun_command(folder: Path, outcome: Outcome) -> str:
    """The command that reruns the best job of a sweep: of the best setting, the best by validation."""
    jobs = outcome.settings[0]
    job = (max if jobs[0]["mode"] == "max" else min)(jobs, key=ranking_score)
    arguments = read_json(folder / SWEEP)["arguments"] if (folder / SWEEP).exists() else []
    flags = [flag for flag in split_flags(arguments)[0] if flag not in ("-m", "--multirun")]
    run_flag = ["--run"] if any(line.startswith("sweep=") for line in job["overrides"]) else []
    return shlex.join(["python", "train.py", *flags, *run_flag, *job["overrides"]])


def show(folder: Path, against: str = "") -> list[Job] | None:
    """Print and save the ranking of a sweep; returns its failed jobs, or None if no job has ended."""
    pruned = failures(folder, PRUNED)
    outcome = Outcome(ranked(job_results(folder), pruned), failures(folder), against, pruned)
    if sheets := outcome.sheets():
        tables = [f"all jobs: {' '.join(outcome.shared)}", *(sheet.rich() for sheet in sheets)]
        width = None if sys.stdout.isatty() else WIDE
        Console(width=width, markup=False).print(*tables)  # encoding=[rwse] is not markup
        text = io.StringIO()
        Console(file=text, width=WIDE, markup=False).print(*tables)
        write_bytes(folder / "ranking.txt", text.getvalue().encode())
        print(f"sweep folder  {folder}\nranking       {folder / 'ranking.txt'}", flush=True)
    if outcome.settings:
        from gt.cli.sweep_report import write_page  # late: --help and a typo answer at once

        written, command = " ".join(map(str, write_tables(folder, outcome))), rerun_command(folder, outcome)
        print(f"as CSV        {written}\nreport        {write_page(folder, outcome, command)}", flush=True)
        print(f"to rerun the best\n  {command}", flush=True)
    return list(outcome.failed) if sheets else None
