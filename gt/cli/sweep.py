"""A sweep: one job's failure is not the end of the others; the last word is a table of the jobs, ranked.

Jobs that differ in their seeds or folds alone repeat one setting: they share a row, with mean and deviation.
"""

import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean as mean
from statistics import stdev
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from gt.errors import UserError
from gt.schema import number
from gt.train.job import FAILURE, RESULT

REPEATED = ("seed", "data.source.split_seed", "data.source.fold")  # what tells the runs of one setting apart
WIDE = 160  # columns of a file or a pipe


def job_results(folder: Path) -> list[dict[str, Any]]:
    """The results of every finished job of a sweep folder, in the order of their numbers."""
    results = [json.loads(path.read_text()) | {"job": path.parent.name} for path in folder.glob(f"*/{RESULT}")]
    return sorted(results, key=lambda result: (len(result["job"]), result["job"]))


def decisive(result: dict[str, Any]) -> float:
    """What a job is ranked by: its best validation value, or its final score where nothing was validated."""
    best = result["best_valid"]
    return result["scores"][result["criterion"]] if best is None else best


def repetition(override: str) -> bool:
    """Whether an override repeats a run, by another seed or fold, rather than changing what is run."""
    return override.lstrip("+").partition("=")[0] in REPEATED


def ranked(results: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The jobs of each setting, those that differ in their seeds and folds alone; best mean first, undefined last."""
    settings: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for result in results:
        setting = tuple(sorted(line for line in result["overrides"] if not repetition(line)))
        settings.setdefault(setting, []).append(result)

    def order(jobs: list[dict[str, Any]]) -> tuple[bool, float]:
        value = mean(map(decisive, jobs))
        return math.isnan(value), -value if jobs[0]["mode"] == "max" else value

    return sorted(map(comparable, settings.values()), key=order)


def comparable(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Jobs of one setting, by one criterion: where validation left it undefined a job went by its loss instead."""
    wanted = next((job for job in jobs if job["criterion"] != "loss"), jobs[0])
    same = {name: wanted[name] for name in ("criterion", "mode")}
    return [job if job["criterion"] == same["criterion"] else job | same | {"best_valid": math.nan} for job in jobs]


def failures(folder: Path) -> list[dict[str, Any]]:
    """Every job of a sweep folder that failed and has not finished since, with its overrides and the reason."""
    paths = [path for path in folder.glob(f"*/{FAILURE}") if not (path.parent / RESULT).exists()]
    return sorted((json.loads(p.read_text()) | {"job": p.parent.name} for p in paths), key=lambda f: f["job"])


def shown(values: list[float | None]) -> str:
    """A number, or the mean of several and their sample standard deviation."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return "-"
    if len(numbers) == 1:
        return number(numbers[0])
    deviation = math.nan if any(map(math.isnan, numbers)) else stdev(numbers)
    return f"{number(mean(numbers))} ± {number(deviation, mean(numbers))}"


def table(settings: list[list[dict[str, Any]]]) -> Table:
    """One row a setting: rank, jobs, what was overridden, its validation values, final scores and trivial baseline."""
    criterion, split = settings[0][0]["criterion"], settings[0][0]["split"]
    out = Table(title="settings by validation, best first")
    for name in ("rank", "jobs", "overrides", "runs", f"valid {criterion}", f"{split} {criterion}", "trivial baseline"):
        out.add_column(name, overflow="fold", justify="left" if name == "overrides" else "right")
    for rank, jobs in enumerate(settings, 1):
        overrides = " ".join(line for line in jobs[0]["overrides"] if not repetition(line))
        out.add_row(
            str(rank),
            " ".join(job["job"] for job in jobs),
            overrides,
            str(len(jobs)),
            shown([job["best_valid"] for job in jobs]),
            shown([job["scores"][criterion] for job in jobs]),
            number(mean(job["baseline"][criterion] for job in jobs)),
        )
    return out


def run_table(results: list[dict[str, Any]]) -> Table:
    """One row a job, in their order: what was overridden, its validation value and its final score."""
    criterion, split = results[0]["criterion"], results[0]["split"]
    out = Table(title="runs")
    for name in ("job", "overrides", f"valid {criterion}", f"{split} {criterion}"):
        out.add_column(name, overflow="fold", justify="left" if name == "overrides" else "right")
    for job in results:
        values = ([job["best_valid"]], [job["scores"][criterion]])
        out.add_row(job["job"], " ".join(job["overrides"]), *map(shown, values))
    return out


def failure_table(failed: list[dict[str, Any]]) -> Table:
    """One row a job that failed: what was overridden and what was wrong."""
    out = Table(title="jobs that failed")
    out.add_column("job", justify="right")
    out.add_column("overrides", overflow="fold")
    out.add_column("reason", overflow="fold")
    for each in failed:
        out.add_row(each["job"], " ".join(each["overrides"]), each["reason"])
    return out


class Ranking(Callback):
    """Prints the ranked jobs when a multirun ends, and keeps the tables as ``ranking.txt`` in the sweep's folder.

    Hydra does not tell its callbacks of a sweep that a failed job or Ctrl-C ends: `ranking` then has the last word.
    """

    folder: ClassVar[Path | None] = None  # of the sweep that is running

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Ranking.folder = Path(config.hydra.sweep.dir)


@contextmanager
def ranking() -> Iterator[None]:
    """Around the whole program: however a sweep ends, its jobs are ranked.

    Raises:
        UserError: some of its jobs failed.
    """
    Ranking.folder, stopped = None, None
    failed: list[dict[str, Any]] = []
    try:
        yield
    except Exception as error:  # Hydra raises what the first failed job raised when the last one is done
        stopped = error
    finally:
        if Ranking.folder:
            failed = show(Ranking.folder)
    if failed:
        raise UserError(f"{len(failed)} of the jobs failed: {', '.join(each['job'] for each in failed)}") from stopped
    if stopped:
        raise stopped


def show(folder: Path) -> list[dict[str, Any]]:
    """Print and keep the ranking of a sweep folder; returns its failed jobs."""
    results, failed = job_results(folder), failures(folder)
    settings = ranked(results)
    tables = [run_table(results)] if len(settings) < len(results) else []
    tables += [table(settings)] if results else []
    tables += [failure_table(failed)] if failed else []
    if tables:
        wide = None if sys.stdout.isatty() else WIDE
        Console(width=wide, markup=False).print(*tables)  # encoding=[rwse] is no markup
        with open(folder / "ranking.txt", "w") as handle:
            Console(file=handle, width=WIDE, markup=False).print(*tables)
        print(f"sweep folder  {folder}\nranking       {folder / 'ranking.txt'}", flush=True)
    return failed
