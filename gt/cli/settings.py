"""The jobs of a sweep grouped by setting: jobs that differ only in their seeds or folds repeat one setting."""

import math
import shlex
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from gt.cli.arguments import parse_overrides
from gt.cli.intervals import Estimate, difference
from gt.cli.seeds import is_repetition, key_of
from gt.errors import UserError, nearest
from gt.train.job import FAILURE, PRUNED, RESULT, read_json

Job = dict[str, Any]  # the content of its result.json, and its number
JobsBySetting = dict[tuple[str, ...], dict[tuple[str, ...], Job]]  # by `setting`, then by `repetition`


def job_results(folder: Path) -> list[Job]:
    """The results of the finished jobs of a sweep folder, by number."""
    return _jobs(folder.glob(f"*/{RESULT}"))


def failures(folder: Path, name: str = FAILURE) -> list[Job]:
    """The jobs of a sweep folder that failed and have not finished since, with their overrides and the reason.

    Args:
        name: the file that records it; ``PRUNED`` for pruned jobs.
    """
    return _jobs(path for path in folder.glob(f"*/{name}") if not (path.parent / RESULT).exists())


def _jobs(paths: Iterable[Path]) -> list[Job]:
    return by_number(read_json(path) | {"job": path.parent.name} for path in paths)


def by_number(jobs: Iterable[Job]) -> list[Job]:
    """Jobs sorted by number; numbers are texts, such as ``3-1`` in trials."""
    return sorted(jobs, key=lambda job: (len(job["job"]), job["job"]))


def ranking_score(job: Job) -> float:
    """What a job is ranked by: its best validation value, or its final score without validation."""
    best = job["best_valid"]
    return final(job) if best is None else best


def final(job: Job) -> float:
    """The score of the best checkpoint, by the criterion."""
    return float(job["scores"][job["criterion"]])


def setting(job: Job) -> tuple[str, ...]:
    """The overrides of a job, except for its seed and fold."""
    return tuple(sorted(line for line in job["overrides"] if not is_repetition(line)))


def repetition(job: Job) -> tuple[str, ...]:
    """The seed and fold of a job: jobs of two settings with the same ones are paired."""
    return tuple(sorted(line.lstrip("+") for line in job["overrides"] if is_repetition(line)))


def by_setting(jobs: Iterable[Job]) -> JobsBySetting:
    """The jobs of each setting by repetition; the first of duplicates is kept."""
    settings: JobsBySetting = {}
    for job in jobs:
        settings.setdefault(setting(job), {}).setdefault(repetition(job), job)
    return settings


def pruned_count(jobs: Sequence[Job], pruned: JobsBySetting) -> int:
    """How many runs of the setting of these jobs were pruned and not finished by another trial of it."""
    return len(pruned.get(setting(jobs[0]), {}).keys() - set(map(repetition, jobs)))


def ranked(results: Iterable[Job], pruned: Iterable[Job] = ()) -> list[list[Job]]:
    """The jobs of each setting, best mean first, undefined means last. A job that ran twice counts once.

    Settings with different criteria, as on different data, are not compared: they are grouped by criterion, with the
    loss last. Settings pruned after some of their seeds come after the others, as those may be their luckiest seeds.

    Args:
        pruned: the pruned jobs.
    """
    groups = [comparable(list(jobs.values())) for jobs in by_setting(results).values()]
    pruned_by_setting = by_setting(pruned)
    criteria = sorted(dict.fromkeys(jobs[0]["criterion"] for jobs in groups), key=lambda name: name == "loss")

    def order(jobs: list[Job]) -> tuple[int, bool, bool, float]:
        value = fmean(map(ranking_score, jobs))
        rank, sign = criteria.index(jobs[0]["criterion"]), -1 if jobs[0]["mode"] == "max" else 1
        return rank, pruned_count(jobs, pruned_by_setting) > 0, math.isnan(value), sign * value

    return sorted(groups, key=order)


def comparable(jobs: list[Job]) -> list[Job]:
    """Jobs of one setting by one criterion; jobs that fell back to the loss get NaN, as it was undefined for them."""
    reference_job = next((job for job in jobs if job["criterion"] != "loss"), jobs[0])
    measure = {name: reference_job[name] for name in ("criterion", "mode")}
    return [
        job if job["criterion"] == measure["criterion"] else job | measure | {"best_valid": math.nan} for job in jobs
    ]


def label_of(job: Job, shared: Collection[str]) -> str:
    """The overrides of a job that not all jobs share, without seeds and folds."""
    text = " ".join(line for line in job["overrides"] if line not in shared and not is_repetition(line))
    return text or "these runs"


def reference(against: str, settings: Sequence[list[Job]]) -> list[Job] | None:
    """The jobs to compare with: the best setting of another sweep's folder, or the setting with these overrides.

    None if no job of it has finished.
    """
    if Path(against).is_dir():
        return next(iter(ranked(job_results(Path(against)), failures(Path(against), PRUNED))), None)
    target = {key_of(override): override.value() for override in parse_overrides(shlex.split(against))}
    for jobs in settings:
        values: dict[str, Any] = {
            key_of(override): override.value() for override in parse_overrides(list(setting(jobs[0])))
        }
        if all(key in values and values[key] == value for key, value in target.items()):
            return jobs
    return None


def check_reference(against: str, jobs: Iterable[Job]) -> None:
    """Check that `reference` can find its setting among these jobs.

    Raises:
        UserError: there is no such folder, or no job has such an override.
    """
    if Path(against).is_dir():
        if not any(job_results(Path(against))):
            raise UserError(f"--against {against}: no job in it has finished")
        return
    if "=" not in against:
        raise UserError(f"--against {against}: there is no such folder, and it is not an override (key=value)")
    lines: dict[str, dict[str, Any]] = {}
    for job in jobs:
        for override in parse_overrides(list(setting(job))):
            lines.setdefault(key_of(override), {})[str(override.input_line)] = override.value()
    for override in parse_overrides(shlex.split(against)):
        line, key = override.input_line, key_of(override)
        if key not in lines:
            raise UserError(f"--against {line}: no job sets '{key}': {nearest(key, lines)}")
        if override.value() not in lines[key].values():
            raise UserError(f"--against {line}: no job has it; choose among {', '.join(sorted(lines[key]))}")


def gap(jobs: Sequence[Job], others: Sequence[Job]) -> Estimate | None:
    """The paired difference of the final scores of two settings; None if they share no seed or measure."""
    if len({(job["split"], job["criterion"]) for job in (*jobs, *others)}) > 1:
        return None
    ours, theirs = ({repetition(job): final(job) for job in group} for group in (jobs, others))
    return difference(ours, theirs)
