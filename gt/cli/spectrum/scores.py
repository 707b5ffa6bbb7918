"""What the finished cells of a map say: scores and costs, the best of them, and whether that is more than noise."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from scipy.stats import t

from gt.cli.settings import comparable, decisive
from gt.cli.spectrum.grid import Axis, Setting
from gt.schema import number

LEVEL = 0.95  # of the interval outside which a difference is more than noise


@dataclass(frozen=True)
class Scores:
    """The finished runs of one cell.

    Attributes:
        valid, final: by seed, what validation chose the checkpoint by, and what that scored on the test split.
        seconds: a training batch, the median over the runs; NaN where none says.
        parameters: of the network.
    """

    valid: Mapping[int, float]
    final: Mapping[int, float]
    seconds: float
    parameters: int

    @property
    def mean(self) -> float:
        """Of the final scores."""
        return fmean(self.final.values())

    def __str__(self) -> str:
        return spread(self.final.values())


def spread(values: Iterable[float]) -> str:
    """A mean with its sample standard deviation, where there is one."""
    values = list(values)
    mean = fmean(values)
    return number(mean) + (f" ± {number(deviation(values), mean)}" if len(values) > 1 else "")


def deviation(values: list[float]) -> float:
    """The sample standard deviation; NaN of one value, and where some value is."""
    return math.nan if len(values) < 2 or any(map(math.isnan, values)) else stdev(values)


@dataclass(frozen=True)
class Difference:
    """By how much one cell's score is better than another's, over the seeds that both have.

    Attributes:
        mean: of the differences seed by seed; above 0 is better.
        error: its standard error; NaN with one seed.
        seeds: how many.
    """

    mean: float
    error: float
    seeds: int

    @property
    def errors(self) -> float:
        """The difference in standard errors."""
        return abs(self.mean) / self.error if self.error else math.inf if self.mean else 0.0

    @property
    def needed(self) -> float:
        """Standard errors beyond which it is more than noise: the 95 % point of Student's t for so few differences."""
        return float(t.ppf((1 + LEVEL) / 2, self.seeds - 1))

    def sentence(self, other: str) -> str:
        """What it is, in words."""
        if self.mean == 0:
            return f"the same as the {other}"
        size = f"{number(abs(self.mean))} {'better' if self.mean > 0 else 'worse'} than"
        if self.seeds < 2:
            return f"{size} the {other} (one seed: whether that is more than noise cannot be said)"
        verdict = "is" if self.errors > self.needed else "is not"
        errors = f"{self.errors:.1f} standard errors, {self.seeds} seeds need {self.needed:.1f}"
        return f"{size} the {other}, which {verdict} more than noise ({errors})"


class Scored:
    """A map as far as it is finished.

    Args:
        results: of the runs, as `gt.train.run` leaves them, each with its setting and its seed.

    Attributes:
        cells: those with a finished run; split, criterion, mode: of what is scored, see `gt.train.run`.
        baseline: what the best answer that ignores its input scores.
    """

    def __init__(self, results: Mapping[tuple[Setting, int], dict[str, Any]]) -> None:
        alike = dict(zip(results, comparable(list(results.values())), strict=True))
        first = next(iter(alike.values()))
        self.split, self.criterion, self.mode = first["split"], first["criterion"], first["mode"]
        self.baseline = float(first["baseline"].get(self.criterion, math.nan))
        self.cells: dict[Setting, Scores] = {}
        for setting in dict.fromkeys(setting for setting, _ in alike):
            runs = {seed: result for (cell, seed), result in alike.items() if cell == setting}
            paces = [run["seconds_per_batch"] for run in runs.values() if run["seconds_per_batch"] is not None]
            self.cells[setting] = Scores(
                {seed: decisive(run) for seed, run in runs.items()},
                {seed: run["scores"][self.criterion] for seed, run in runs.items()},
                median(paces) if paces else math.nan,
                next(iter(runs.values()))["parameters"],
            )

    @property
    def best(self) -> Setting:
        """The cell of the best mean in validation; undefined ones come last."""
        sign = -1 if self.mode == "max" else 1

        def order(setting: Setting) -> tuple[bool, float]:
            value = sign * fmean(self.cells[setting].valid.values())
            return math.isnan(value), value

        return min(self.cells, key=order)

    @property
    def corners(self) -> dict[str, Setting]:
        """The models that the map goes between, as far as they are on it and finished."""
        named = {
            "GNN": Setting(0.0, None),
            "set": Setting(1.0, 0),
            "Transformer": Setting(1.0, None),
        }
        return {name: setting for name, setting in named.items() if setting in self.cells}

    def difference(self, setting: Setting, other: Setting) -> Difference:
        """By how much one cell's final score is better than another's, seed by seed."""
        first, second = self.cells[setting].final, self.cells[other].final
        sign = 1 if self.mode == "max" else -1
        values = [sign * (first[seed] - second[seed]) for seed in first if seed in second]
        if not values:
            return Difference(math.nan, math.nan, 0)
        return Difference(fmean(values), deviation(values) / math.sqrt(len(values)), len(values))

    @property
    def marks(self) -> dict[Setting, list[str]]:
        """What is said of a cell: that it is the best, and which corner."""
        named: dict[Setting, list[str]] = {self.best: ["best"]}
        for name, setting in self.corners.items():
            named.setdefault(setting, []).append(name)
        return named

    @property
    def better(self) -> str:
        """Which way is up."""
        return "higher is better" if self.mode == "max" else "lower is better"

    def place(self, axis: Axis) -> str:
        """Where the best cell is, in words."""
        best = self.best
        if corner := next((name for name, setting in self.corners.items() if setting == best), ""):
            return f"best in the {corner} corner"
        share = "attention alone" if best.weight == 1 else f"a share of {best.weight:g} of attention"
        return f"best with {share}, to {axis.words(best.radius)}"

    def verdict(self, name: str, axis: Axis) -> str:
        """One sentence: where a dataset lies on the map, and whether the corners differ by more than noise."""
        best = self.best
        rivals = {corner: setting for corner, setting in self.corners.items() if setting != best}
        chosen = "chosen by validation" if self.split != "valid" else "the split that it was chosen by"
        scored = f"{name}: {self.place(axis)}, {self.split} {self.criterion} {self.cells[best]} ({chosen})"
        leads = (self.difference(best, setting).sentence(corner) for corner, setting in rivals.items())
        return "; ".join([scored, *leads]) + "."
