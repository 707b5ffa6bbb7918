"""Scores and costs of the finished cells of a map, the best cell, and whether its lead exceeds the noise."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from gt.cli.intervals import Estimate, difference
from gt.cli.settings import comparable, ranking_score
from gt.cli.spectrum.grid import Axis, Setting
from gt.schema import format_number


@dataclass(frozen=True)
class Scores:
    """The finished runs of one cell.

    Attributes:
        valid, final: by seed, the validation score that selected the checkpoint, and its score on the test split.
        seconds: time per training batch, the median over runs; NaN if unknown.
        parameters: number of parameters of the network.
    """

    valid: Mapping[int, float]
    final: Mapping[int, float]
    seconds: float
    parameters: int

    @property
    def mean(self) -> float:
        """Mean of the final scores."""
        return fmean(self.final.values())

    def __str__(self) -> str:
        return spread(self.final.values())


def spread(values: Iterable[float]) -> str:
    """A mean with its sample standard deviation, if there are several values."""
    estimate = Estimate.of(list(values))
    return format_number(estimate.mean) + (
        f" ± {format_number(estimate.deviation, estimate.mean)}" if estimate.n > 1 else ""
    )


def sentence(lead: Estimate, other: str) -> str:
    """Describe the lead of one cell over another, with its 95 % interval and whether it exceeds the noise."""
    if lead.mean == 0:
        return f"the same as the {other}"
    better, word = (lead, "better") if lead.mean > 0 else (lead.negative(), "worse")
    than = f"{word} than the {other}"
    if lead.n == 1:
        return f"{format_number(better.mean)} {than} (one seed: whether this exceeds the noise is unknown)"
    if not better.error:
        return f"{format_number(better.mean)} {than}, with each of {lead.n} seeds"
    errors = f"{better.mean / better.error:.1f} standard errors, {lead.n} seeds"
    verdict = "is not" if lead.is_noise else "is"
    return f"{format_number(better.mean)} {better.interval()} {than}, which {verdict} more than noise ({errors})"


class Scored:
    """The scores of a map, as far as it is finished.

    Args:
        results: the results of runs, as `gt.train.run` writes them, by setting and seed.

    Attributes:
        cells: the cells with a finished run; split, criterion, mode: of the scores, see `gt.train.run`.
        baseline: the score of the best constant prediction.
    """

    def __init__(self, results: Mapping[tuple[Setting, int], dict[str, Any]]) -> None:
        comparable_runs = dict(zip(results, comparable(list(results.values())), strict=True))
        first = next(iter(comparable_runs.values()))
        self.split, self.criterion, self.mode = first["split"], first["criterion"], first["mode"]
        self.baseline = float(first["baseline"].get(self.criterion, math.nan))
        self.cells: dict[Setting, Scores] = {}
        for setting in dict.fromkeys(setting for setting, _ in comparable_runs):
            runs = {seed: result for (cell, seed), result in comparable_runs.items() if cell == setting}
            seconds = [run["seconds_per_batch"] for run in runs.values() if run["seconds_per_batch"] is not None]
            self.cells[setting] = Scores(
                {seed: ranking_score(run) for seed, run in runs.items()},
                {seed: run["scores"][self.criterion] for seed, run in runs.items()},
                median(seconds) if seconds else math.nan,
                next(iter(runs.values()))["parameters"],
            )

    @property
    def best(self) -> Setting:
        """The cell with the best mean in validation; undefined means come last."""
        sign = -1 if self.mode == "max" else 1

        def order(setting: Setting) -> tuple[bool, float]:
            value = sign * fmean(self.cells[setting].valid.values())
            return math.isnan(value), value

        return min(self.cells, key=order)

    @property
    def corners(self) -> dict[str, Setting]:
        """The finished corner cells of the map, by the name of the model that they are."""
        corners = {
            "GNN": Setting(0.0, None),
            "set": Setting(1.0, 0),
            "Transformer": Setting(1.0, None),
        }
        return {name: setting for name, setting in corners.items() if setting in self.cells}

    def lead(self, setting: Setting) -> Estimate | None:
        """The lead of the best cell in final score, paired by seed; None if they share no seed."""
        gap = difference(self.cells[self.best].final, self.cells[setting].final)
        return gap if gap is None or self.mode == "max" else gap.negative()

    @property
    def marks(self) -> dict[Setting, list[str]]:
        """The labels of cells: ``best`` and the names of corners."""
        labels: dict[Setting, list[str]] = {self.best: ["best"]}
        for name, setting in self.corners.items():
            labels.setdefault(setting, []).append(name)
        return labels

    @property
    def direction(self) -> str:
        """Whether higher or lower scores are better."""
        return "higher is better" if self.mode == "max" else "lower is better"

    @property
    def measure(self) -> str:
        """Split and criterion of the scores."""
        return f"{self.split} {self.criterion}"

    @property
    def seed_note(self) -> str:
        """The number of seeds behind each mean, in words."""
        counts = sorted({len(cell.final) for cell in self.cells.values()})
        return "one seed" if counts == [1] else f"mean of {' to '.join(map(str, counts[:1] + counts[1:][-1:]))} seeds"

    def location(self, axis: Axis) -> str:
        """The location of the best cell, in words."""
        best = self.best
        if corner := next((name for name, setting in self.corners.items() if setting == best), ""):
            return f"best in the {corner} corner"
        share = "attention alone" if best.weight == 1 else f"a share of {best.weight:g} of attention"
        return f"best with {share}, to {axis.describe(best.radius)}"

    def verdict(self, name: str, axis: Axis) -> str:
        """One sentence: the best cell for a dataset, and its lead over the corners."""
        best = self.best
        rivals = {corner: setting for corner, setting in self.corners.items() if setting != best}
        selection = "chosen by validation" if self.split != "valid" else "the split used for selection"
        summary = f"{name}: {self.location(axis)}, {self.measure} {self.cells[best]} ({selection})"
        leads = {corner: self.lead(setting) for corner, setting in rivals.items()}
        return "; ".join([summary, *(sentence(lead, corner) for corner, lead in leads.items() if lead)]) + "."
