"""What a sweep came to, as tables: for the terminal, for a page and as CSV files."""

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

from gt.cli.intervals import Estimate, in_words
from gt.cli.settings import Job, Settings, by_number, by_setting, chosen, final, gap, given_up, own, repetition, setting
from gt.cli.sweep_keys import COSTS, cost, importance, values_by_key
from gt.data.files import write_bytes
from gt.schema import number
from gt.train.page import table

LEFT = ("job", "jobs", "overrides", "metric", "key", "reason", "difference")  # columns of words


@dataclass(frozen=True)
class Sheet:
    """A table of texts.

    Attributes:
        title: what it shows.
        names: of its columns.
        rows: a text for each column.
    """

    title: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> Table:
        """For the terminal."""
        out = Table(title=self.title)
        for name in self.names:
            out.add_column(name, overflow="fold", justify="left" if name in LEFT else "right")
        for row in self.rows:
            out.add_row(*row)
        return out

    def html(self) -> str:
        """For a page."""
        return f"<h2>{html.escape(self.title)}</h2>{table(self.names, self.rows, words=LEFT)}"


@dataclass(frozen=True)
class Outcome:
    """The finished jobs of a sweep, by setting, and what failed.

    Attributes:
        settings: the jobs of each, the best first.
        failed: the jobs that did not finish.
        pruned: those that were given up.
        against: what the settings are compared with, see `gt.cli.settings.chosen`; nothing for no comparison.
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
    def alike(self) -> list[list[Job]]:
        """The settings that go by the criterion of the best one: the first of all, see `gt.cli.settings.ranked`."""
        return [jobs for jobs in self.settings if jobs[0]["criterion"] == self.settings[0][0]["criterion"]]

    @property
    def ranks(self) -> list[int]:
        """The place of each setting among those of its criterion, counted from 1."""
        names = [jobs[0]["criterion"] for jobs in self.settings]
        return [names[: place + 1].count(name) for place, name in enumerate(names)]

    @property
    def metric(self) -> list[str]:
        """What the column is called that says by what a setting goes, where not all go by the same."""
        return ["metric"] if len(self.alike) < len(self.settings) else []

    @property
    def chosen_by(self) -> list[str]:
        """What the validation scores are called, where the final ones are others."""
        first = self.settings[0][0]
        return [] if first["split"] == "valid" else ["valid" if self.metric else f"valid {first['criterion']}"]

    @property
    def final_by(self) -> str:
        """What the final scores are called."""
        return str(self.settings[0][0]["split"]) if self.metric else self.measure

    @cached_property
    def shared(self) -> list[str]:
        """The overrides of all jobs, in the order of the first."""
        every = [*(jobs[0] for jobs in self.settings), *self.pruned, *self.failed]
        common = set.intersection(*(set(setting(job)) for job in every)) if every else set()
        return [line for line in every[0]["overrides"] if line in common] if every else []

    @property
    def labels(self) -> list[str]:
        """What tells each setting from the others."""
        return [own(jobs[0], self.shared) for jobs in self.settings]

    def given_up(self, jobs: Sequence[Job]) -> int:
        """How many runs of a setting were given up."""
        return given_up(jobs, self._pruned_by_setting)

    @cached_property
    def _pruned_by_setting(self) -> Settings:
        return by_setting(self.pruned)

    def failures_of(self, jobs: Sequence[Job]) -> int:
        """How many jobs of a setting failed."""
        return sum(setting(each) == setting(jobs[0]) for each in self.failed)

    def gaps(self) -> list[Estimate | None]:
        """For each setting, by how much its final scores differ from those it is compared with; None: not at all."""
        others = chosen(self.against, self.settings) if self.against else None
        return [None if others is None or jobs is others else gap(jobs, others) for jobs in self.settings]

    def sheets(self) -> list[Sheet]:
        """All that there is to say."""
        sheets = [self._runs()] if any(len(jobs) > 1 for jobs in self.settings) else []
        sheets += [self._settings()] if self.settings else []
        sheets += [self._differences()] if self.settings and self.against else []
        if shares := self.importance:
            values = values_by_key(self.alike)
            matter = [(key, f"{share:.0%}", values[key][0]) for key, share in shares.items()]
            sheets.append(Sheet("how much each key matters", ("key", "importance", "of the best"), matter))
        sheets += [failure_sheet(self.pruned, self.shared, "jobs that were given up")] if self.pruned else []
        return sheets + ([failure_sheet(self.failed, self.shared)] if self.failed else [])

    @cached_property
    def importance(self) -> dict[str, float]:
        """How much each key matters, see `gt.cli.sweep_keys.importance`."""
        return importance(self.alike)

    def _runs(self) -> Sheet:
        rows = []
        for job in by_number(job for jobs in self.settings for job in jobs):
            valid = [shown([job["best_valid"]])] if self.chosen_by else []
            metric = [job["criterion"]] if self.metric else []
            rows.append((job["job"], _beyond(self.shared, job), *metric, *valid, number(final(job))))
        return Sheet("runs", ("job", "overrides", *self.metric, *self.chosen_by, self.final_by), rows)

    def _settings(self) -> Sheet:
        repeats = any(len(jobs) > 1 for jobs in self.settings)
        names = ["rank", "jobs", "overrides", "runs", *self.metric, *self.chosen_by, self.final_by]
        names += ["95 % interval", "best"] if repeats else []
        names += ["trivial baseline"]
        is_classical = any(job.get("classical") for jobs in self.settings for job in jobs)
        names += ["classical baseline"] if is_classical else []
        costs = [name for name in COSTS if any(job.get(name) for jobs in self.settings for job in jobs)]
        names += [COSTS[name] for name in costs]
        rows = []
        for rank, jobs, label in zip(self.ranks, self.settings, self.labels, strict=True):
            row = [str(rank), " ".join(job["job"] for job in jobs), label]
            lost = {"failed": self.failures_of(jobs), "given up": self.given_up(jobs)}
            row += [", ".join([str(len(jobs)), *(f"{count} {how}" for how, count in lost.items() if count)])]
            row += [jobs[0]["criterion"]] if self.metric else []
            row += [shown([job["best_valid"] for job in jobs])] if self.chosen_by else []
            row += [shown([final(job) for job in jobs])]
            row += [Estimate.of([final(job) for job in jobs]).interval(), number(best(jobs))] if repeats else []
            row += [number(fmean(trivial(job) for job in jobs))]
            row += [shown([classical(job) for job in jobs])] if is_classical else []
            row += [f"{cost(jobs, name):{',.0f' if name == 'parameters' else ',.4g'}}" for name in costs]
            rows.append(row)
        return Sheet("settings by validation, best first", names, rows)

    def _differences(self) -> Sheet:
        others = chosen(self.against, self.settings)
        title = f"{self.measure} against {self.against}, in pairs of the same seed"
        if others is None:
            return Sheet(title, ("difference",), [("no run of it has finished",)])
        every = [job for jobs in (*self.settings, others) for job in jobs]
        seeds = all(line.lstrip("+").startswith("seed=") for job in every for line in repetition(job))
        rows = []
        for label, jobs, each in zip(self.labels, self.settings, self.gaps(), strict=True):
            if jobs is not others:
                words = "no seed and measure in common" if each is None else in_words(
                    each, jobs[0]["mode"], self.against, "seeds" if seeds else "runs"
                )  # fmt: skip
                rows.append((label, words))
        return Sheet(title, ("overrides", "difference"), rows)


def failure_sheet(failed: Sequence[Job], shared: Collection[str] = (), title: str = "jobs that failed") -> Sheet:
    """One row a job that failed: what was overridden, but for what all share, and what was wrong."""
    rows = [(job["job"], _beyond(shared, job), job["reason"]) for job in failed]
    return Sheet(title, ("job", "overrides", "reason"), rows)


def _beyond(shared: Collection[str], job: Job) -> str:
    """The overrides of a job but for those that all share."""
    return " ".join(line for line in job["overrides"] if line not in shared)


def best(jobs: Sequence[Job]) -> float:
    """The best final score among jobs."""
    return (max if jobs[0]["mode"] == "max" else min)(final(job) for job in jobs)


def trivial(job: Job) -> float:
    """What the best constant answer scores; NaN where none was learned from targets, nor could be."""
    return float(job["baseline"].get(job["criterion"], math.nan))


def classical(job: Job) -> float | None:
    """What the classical baseline scores; None without one."""
    return job["classical"]["scores"][job["criterion"]] if job.get("classical") else None


def shown(values: Sequence[float | None]) -> str:
    """A number, or the mean of several and their sample standard deviation."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return "-"
    if len(numbers) == 1:
        return number(numbers[0])
    every = Estimate.of(numbers)
    return f"{number(every.mean)} ± {number(every.deviation, every.mean)}"


def write_tables(folder: Path, outcome: Outcome) -> list[Path]:
    """Write ``runs.csv``, a row a job, and ``ranking.csv``, a row a setting; returns their paths."""
    jobs = [job for jobs in outcome.settings for job in jobs]
    runs = [
        {"job": job["job"], "overrides": " ".join(job["overrides"]), "split": job["split"], "valid": job["best_valid"]}
        | job["scores"]
        | {f"trivial {name}": value for name, value in job["baseline"].items()}
        | {f"classical {name}": value for name, value in ((job.get("classical") or {}).get("scores") or {}).items()}
        for job in by_number(jobs)
    ]
    settings = []
    for rank, jobs, each in zip(outcome.ranks, outcome.settings, outcome.gaps(), strict=True):
        valid = [math.nan if job["best_valid"] is None else job["best_valid"] for job in jobs]
        row: dict[str, Any] = {"rank": rank, "overrides": " ".join(setting(jobs[0])), "runs": len(jobs)}
        row |= {"failed": outcome.failures_of(jobs), "given up": outcome.given_up(jobs)}
        row |= {"criterion": jobs[0]["criterion"], "split": jobs[0]["split"]}
        row |= _columns("valid", Estimate.of(valid)) | _columns("final", Estimate.of([final(job) for job in jobs]))
        row |= {"final best": best(jobs)} | {name: cost(jobs, name) for name in COSTS}
        row |= {"trivial": fmean(trivial(job) for job in jobs)}
        if None not in (scores := [classical(job) for job in jobs]):
            row |= _columns("classical", Estimate.of(scores))  # type: ignore[arg-type]
        if each is not None:
            row |= {"against": outcome.against, "pairs": each.n} | _columns("difference", each)
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
