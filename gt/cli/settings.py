"""The jobs of a sweep by setting: those that differ in their seeds or folds alone repeat one, and share a row."""

import math
import shlex
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from gt.cli.arguments import parsed
from gt.cli.intervals import Estimate, difference
from gt.cli.seeds import is_repetition, key_of
from gt.errors import UserError, nearest
from gt.train.job import FAILURE, PRUNED, RESULT, read_json

Job = dict[str, Any]  # what its result.json holds, and its number
Settings = dict[tuple[str, ...], dict[tuple[str, ...], Job]]  # by `setting`, then by `repetition`


def job_results(folder: Path) -> list[Job]:
    """The results of every finished job of a sweep folder, in the order of their numbers."""
    return _jobs(folder.glob(f"*/{RESULT}"))


def failures(folder: Path, name: str = FAILURE) -> list[Job]:
    """Every job of a sweep folder that failed and has not finished since, with its overrides and the reason.

    Args:
        name: of the file that says so; ``PRUNED`` for those that were given up.
    """
    return _jobs(path for path in folder.glob(f"*/{name}") if not (path.parent / RESULT).exists())


def _jobs(paths: Iterable[Path]) -> list[Job]:
    return by_number(read_json(path) | {"job": path.parent.name} for path in paths)


def by_number(jobs: Iterable[Job]) -> list[Job]:
    """Jobs in the order of their numbers, which are texts: of trials such as ``3-1``."""
    return sorted(jobs, key=lambda job: (len(job["job"]), job["job"]))


def decisive(job: Job) -> float:
    """What a job is ranked by: its best validation value, or its final score where nothing was validated."""
    best = job["best_valid"]
    return final(job) if best is None else best


def final(job: Job) -> float:
    """The score of the best checkpoint, by the criterion."""
    return float(job["scores"][job["criterion"]])


def setting(job: Job) -> tuple[str, ...]:
    """The overrides of a job that say what is run, whatever its seed or fold."""
    return tuple(sorted(line for line in job["overrides"] if not is_repetition(line)))


def repetition(job: Job) -> tuple[str, ...]:
    """Which run of its setting a job is: jobs of two settings that share it make a pair."""
    return tuple(sorted(line.lstrip("+") for line in job["overrides"] if is_repetition(line)))


def by_setting(jobs: Iterable[Job]) -> Settings:
    """The jobs of each setting, by which run of it they are: the first of those that are the same."""
    settings: Settings = {}
    for job in jobs:
        settings.setdefault(setting(job), {}).setdefault(repetition(job), job)
    return settings


def given_up(jobs: Sequence[Job], pruned: Settings) -> int:
    """How many runs of the setting of some jobs are among those given up, and not finished by another trial of it."""
    return len(pruned.get(setting(jobs[0]), {}).keys() - set(map(repetition, jobs)))


def ranked(results: Iterable[Job], pruned: Iterable[Job] = ()) -> list[list[Job]]:
    """The jobs of each setting; best mean first, undefined last. A job that was run twice counts once.

    Settings that go by another criterion, as those of other data do, come after all of the first, by the loss at the
    end: their scores are not held against one another. One that was given up after some of its seeds comes after
    those that were not, for those seeds may be its luckiest.

    Args:
        pruned: the jobs that were given up.
    """
    every = [comparable(list(jobs.values())) for jobs in by_setting(results).values()]
    lost = by_setting(pruned)
    criteria = sorted(dict.fromkeys(jobs[0]["criterion"] for jobs in every), key=lambda name: name == "loss")

    def order(jobs: list[Job]) -> tuple[int, bool, bool, float]:
        value = fmean(map(decisive, jobs))
        by, sign = criteria.index(jobs[0]["criterion"]), -1 if jobs[0]["mode"] == "max" else 1
        return by, given_up(jobs, lost) > 0, math.isnan(value), sign * value

    return sorted(every, key=order)


def comparable(jobs: list[Job]) -> list[Job]:
    """Jobs of one setting, by one criterion: where validation left it undefined a job went by its loss instead."""
    wanted = next((job for job in jobs if job["criterion"] != "loss"), jobs[0])
    same = {name: wanted[name] for name in ("criterion", "mode")}
    return [job if job["criterion"] == same["criterion"] else job | same | {"best_valid": math.nan} for job in jobs]


def own(job: Job, shared: Collection[str]) -> str:
    """The overrides of a job that not all share, but for seeds and folds."""
    words = " ".join(line for line in job["overrides"] if line not in shared and not is_repetition(line))
    return words or "these runs"


def chosen(against: str, settings: Sequence[list[Job]]) -> list[Job] | None:
    """The jobs to compare with: of the best setting of another sweep's folder, or of the setting with these overrides.

    None where no job of it has finished.
    """
    if Path(against).is_dir():
        return next(iter(ranked(job_results(Path(against)), failures(Path(against), PRUNED))), None)
    wanted = {key_of(override): override.value() for override in parsed(shlex.split(against))}
    for jobs in settings:
        values: dict[str, Any] = {key_of(override): override.value() for override in parsed(list(setting(jobs[0])))}
        if all(key in values and values[key] == value for key, value in wanted.items()):
            return jobs
    return None


def check_chosen(against: str, jobs: Iterable[Job]) -> None:
    """Whether jobs can be compared with what `chosen` is to look for among them.

    Raises:
        UserError: no such folder, or no job has such an override.
    """
    if Path(against).is_dir():
        if not any(job_results(Path(against))):
            raise UserError(f"--against {against}: no job in it has finished")
        return
    if "=" not in against:
        raise UserError(f"--against {against}: there is no such folder, and it is no override (key=value)")
    lines: dict[str, dict[str, Any]] = {}
    for job in jobs:
        for override in parsed(list(setting(job))):
            lines.setdefault(key_of(override), {})[str(override.input_line)] = override.value()
    for override in parsed(shlex.split(against)):
        line, key = override.input_line, key_of(override)
        if key not in lines:
            raise UserError(f"--against {line}: no job sets '{key}': {nearest(key, lines)}")
        if override.value() not in lines[key].values():
            raise UserError(f"--against {line}: no job has it; there are {', '.join(sorted(lines[key]))}")


def gap(jobs: Sequence[Job], others: Sequence[Job]) -> Estimate | None:
    """By how much the final scores of jobs differ from others', in pairs; None where they share no seed or measure."""
    if len({(job["split"], job["criterion"]) for job in (*jobs, *others)}) > 1:
        return None
    ours, theirs = ({repetition(job): final(job) for job in each} for each in (jobs, others))
    return difference(ours, theirs)
