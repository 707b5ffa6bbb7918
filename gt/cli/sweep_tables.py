"""The outcome of a sweep as tables: for the terminal, for an HTML page and as CSV files."""

import csv
import html
import io
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from gt.cli.intervals import Estimate, describe_gap
from gt.cli.settings import (
    Job,
    JobsBySetting,
    by_number,
    by_setting,
    final,
    gap,
    label_of,
    pruned_count,
    reference,
    repetition,
    setting,
)
from gt.cli.sweep_keys import COSTS, cost, importance, values_by_key
from gt.data.files import write_bytes
from gt.schema import format_number
from gt.train.page import table

LEFT_ALIGNED = ("job", "jobs", "overrides", "metric", "key", "reason", "difference")  # text columns


@dataclass(frozen=True)
class Sheet:
    """A table of texts.

    Attributes:
        title: table title.
        names: column names.
        rows: rows of one text per column.
    """

    title: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> Table:
        """Render for the terminal."""
        out = Table(title=self.title)
        for name in self.names:
            out.add_column(name, overflow="fold", justify="left" if name in LEFT_ALIGNED else "right")
        for row in self.rows:
            out.add_row(*row)
        return out

    def html(self) -> str:
        """Render as HTML."""
        return f"<h2>{html.escape(self.title)}</h2>{table(self.names, self.rows, words=LEFT_ALIGNED)}"


@dataclass(frozen=True)
class Outcome:
    """The finished jobs of a sweep, by setting, and those that did not finish.

    Attributes:
        settings: the jobs of each setting, the best first.
        failed: the failed jobs.
        pruned: the pruned jobs.
        against: what the settings are compared with, see `gt.cli.settings.reference`; empty for no comparison.
    """

    settings: Sequence[list[Job]]
    failed: Sequence[Job]
    against: str = ""
    pruned: Sequence[Job] = ()

    @property
    def measure(self) -> str:
        """Split and criterion of the final scores of the best setting."""
        first = self.settings[0][0]
        return f"{first['split']} {first['criterion']}"

    @property
    def same_criterion(self) -> list[list[Job]]:
        """The settings with the same criterion as the best one, which come first, see `gt.cli.settings.ranked`."""
        return [jobs for jobs in self.settings if jobs[0]["criterion"] == self.settings[0][0]["criterion"]]

    @property
    def ranks(self) -> list[int]:
        """The rank of each setting, from 1, among those with the same criterion."""
        names = [jobs[0]["criterion"] for jobs in self.settings]
        return [names[: index + 1].count(name) for index, name in enumerate(names)]

    @property
    def metric_column(self) -> list[str]:
        """The name of the column for the criterion of each setting; empty if all have the same."""
        return ["metric"] if len(self.same_criterion) < len(self.settings) else []

    @property
    def valid_column(self) -> list[str]:
        """The name of the column of validation scores; empty if the final scores are the validation scores."""
        first = self.settings[0][0]
        return [] if first["split"] == "valid" else ["valid" if self.metric_column else f"valid {first['criterion']}"]

    @property
    def final_column(self) -> str:
        """The name of the column of final scores."""
        return str(self.settings[0][0]["split"]) if self.metric_column else self.measure

    @cached_property
    def shared(self) -> list[str]:
        """The overrides that all jobs share, in the order of the first job."""
        first_jobs = [*(jobs[0] for jobs in self.settings), *self.pruned, *self.failed]
        common = set.intersection(*(set(setting(job)) for job in first_jobs)) if first_jobs else set()
        return [line for line in first_jobs[0]["overrides"] if line in common] if first_jobs else []

    @property
    def labels(self) -> list[str]:
        """The overrides in which each setting differs from the others."""
        return [label_of(jobs[0], self.shared) for jobs in self.settings]

    def pruned_count(self, jobs: Sequence[Job]) -> int:
        """How many runs of a setting were pruned."""
        return pruned_count(jobs, self._pruned_by_setting)

    @cached_property
    def _pruned_by_setting(self) -> JobsBySetting:
        return by_setting(self.pruned)

    def failures_of(self, jobs: Sequence[Job]) -> int:
        """How many jobs of a setting failed."""
        return sum(setting(job) == setting(jobs[0]) for job in self.failed)

    def gaps(self) -> list[Estimate | None]:
        """For each setting the paired difference of its final scores from the reference; None without one."""
        others = reference(self.against, self.settings) if self.against else None
        return [None if others is None or jobs is others else gap(jobs, others) for jobs in self.settings]

    def sheets(self) -> list[Sheet]:
        """All tables."""
        sheets = [self._run_sheet()] if any(len(jobs) > 1 for jobs in self.settings) else []
        sheets += [self._setting_sheet()] if self.settings else []
        sheets += [self._gap_sheet()] if self.settings and self.against else []
        if shares := self.importance:
            values = values_by_key(self.same_criterion)
            rows = [(key, f"{share:.0%}", values[key][0]) for key, share in shares.items()]
            sheets.append(Sheet("importance of each key", ("key", "importance", "best value"), rows))
        sheets += [failure_sheet(self.pruned, self.shared, "pruned jobs")] if self.pruned else []
        return sheets + ([failure_sheet(self.failed, self.shared)] if self.failed else [])

    @cached_property
    def importance(self) -> dict[str, float]:
        """The importance of each key, see `gt.cli.sweep_keys.importance`."""
        return importance(self.same_criterion)

    def _run_sheet(self) -> Sheet:
        rows = []
        for job in by_number(job for jobs in self.settings for job in jobs):
            valid = [mean_text([job["best_valid"]])] if self.valid_column else []
            metric = [job["criterion"]] if self.metric_column else []
            rows.append((job["job"], _distinct_overrides(self.shared, job), *metric, *valid, format_number(final(job))))
        return Sheet("runs", ("job", "overrides", *self.metric_column, *self.valid_column, self.final_column), rows)

    def _setting_sheet(self) -> Sheet:
        repeats = any(len(jobs) > 1 for jobs in self.settings)
        names = ["rank", "jobs", "overrides", "runs", *self.metric_column, *self.valid_column, self.final_column]
        names += ["95 % interval", "best"] if repeats else []
        names += ["trivial baseline"]
        is_classical = any(job.get("classical") for jobs in self.settings for job in jobs)
        names += ["classical baseline"] if is_classical else []
        costs = [name for name in COSTS if any(job.get(name) for jobs in self.settings for job in jobs)]
        names += [COSTS[name] for name in costs]
        rows = []
        for rank, jobs, label in zip(self.ranks, self.settings, self.labels, strict=True):
            row = [str(rank), " ".join(job["job"] for job in jobs), label]
            unfinished = {"failed": self.failures_of(jobs), "pruned": self.pruned_count(jobs)}
            row += [
                ", ".join([str(len(jobs)), *(f"{count} {outcome}" for outcome, count in unfinished.items() if count)])
            ]
            row += [jobs[0]["criterion"]] if self.metric_column else []
            row += [mean_text([job["best_valid"] for job in jobs])] if self.valid_column else []
            row += [mean_text([final(job) for job in jobs])]
            row += [Estimate.of([final(job) for job in jobs]).interval(), format_number(best(jobs))] if repeats else []
            row += [format_number(fmean(trivial(job) for job in jobs))]
            row += [mean_text([classical(job) for job in jobs])] if is_classical else []
            row += [f"{cost(jobs, name):{',.0f' if name == 'parameters' else ',.4g'}}" for name in costs]
            rows.append(row)
        return Sheet("settings by validation, best first", names, rows)

    def _gap_sheet(self) -> Sheet:
        others = reference(self.against, self.settings)
        title = f"{self.measure} compared with {self.against}, paired by seed"
        if others is None:
            return Sheet(title, ("difference",), [("no run of the reference has finished",)])
        all_jobs = [job for jobs in (*self.settings, others) for job in jobs]
        seeds = all(line.lstrip("+").startswith("seed=") for job in all_jobs for line in repetition(job))
        rows = []
        for label, jobs, difference in zip(self.labels, self.settings, self.gaps(), strict=True):
            if jobs is not others:
                text = "no seed and measure in common" if difference is None else describe_gap(
                    difference, jobs[0]["mode"], self.against, "seeds" if seeds else "runs"
                )  # fmt: skip
                rows.append((label, text))
        return Sheet(title, ("overrides", "difference"), rows)


def failure_sheet(failed: Sequence[Job], shared: Collection[str] = (), title: str = "failed jobs") -> Sheet:
    """A row for each failed job: its overrides, without the shared ones, and the reason."""
    rows = [(job["job"], _distinct_overrides(shared, job), job["reason"]) for job in failed]
    return Sheet(title, ("job", "overrides", "reason"), rows)


def _distinct_overrides(shared: Collection[str], job: Job) -> str:
    """The overrides of a job, without the shared ones."""
    return " ".join(line for line in job["overrides"] if line not in shared)


def best(jobs: Sequence[Job]) -> float:
    """The best final score of some jobs."""
    return (max if jobs[0]["mode"] == "max" else min)(final(job) for job in jobs)


def trivial(job: Job) -> float:
    """The score of the best constant prediction; NaN if there is none."""
    return float(job["baseline"].get(job["criterion"], math.nan))


def classical(job: Job) -> float | None:
    """The score of the classical baseline; None without one."""
    return job["classical"]["scores"][job["criterion"]] if job.get("classical") else None


def mean_text(values: Sequence[float | None]) -> str:
    """Format one number, or the mean of several with their sample standard deviation."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return "-"
    if len(numbers) == 1:
        return format_number(numbers[0])
    estimate = Estimate.of(numbers)
    return f"{format_number(estimate.mean)} ± {format_number(estimate.deviation, estimate.mean)}"


def write_tables(folder: Path, outcome: Outcome) -> list[Path]:
    """Write ``runs.csv``, a row for each job, and ``ranking.csv``, a row for each setting; returns their paths."""
    jobs = [job for jobs in outcome.settings for job in jobs]
    runs = [
        {"job": job["job"], "overrides": " ".join(job["overrides"]), "split": job["split"], "valid": job["best_valid"]}
        | job["scores"]
        | {f"trivial {name}": value for name, value in job["baseline"].items()}
        | {f"classical {name}": value for name, value in ((job.get("classical") or {}).get("scores") or {}).items()}
        for job in by_number(jobs)
    ]
    settings = []
    for rank, jobs, difference in zip(outcome.ranks, outcome.settings, outcome.gaps(), strict=True):
        valid = [math.nan if job["best_valid"] is None else job["best_valid"] for job in jobs]
        row: dict[str, Any] = {"rank": rank, "overrides": " ".join(setting(jobs[0])), "runs": len(jobs)}
        row |= {"failed": outcome.failures_of(jobs), "pruned": outcome.pruned_count(jobs)}
        row |= {"criterion": jobs[0]["criterion"], "split": jobs[0]["split"]}
        row |= _columns("valid", Estimate.of(valid)) | _columns("final", Estimate.of([final(job) for job in jobs]))
        row |= {"final best": best(jobs)} | {name: cost(jobs, name) for name in COSTS}
        row |= {"trivial": fmean(trivial(job) for job in jobs)}
        if None not in (scores := [classical(job) for job in jobs]):
            row |= _columns("classical", Estimate.of(scores))  # type: ignore[arg-type]
        if difference is not None:
            row |= {"against": outcome.against, "pairs": difference.n} | _columns("difference", difference)
        settings.append(row)
    paths = []
    for name, rows in (("ranking.csv", settings), ("runs.csv", runs)):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(dict.fromkeys(column for row in rows for column in row)))
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(folder / name, text.getvalue().encode())
        paths.append(folder / name)
    return paths


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {f"{name} {part}": getattr(estimate, part) for part in ("mean", "deviation", "error", "low", "high")}
