"""What the finished cells of a map say: scores and costs, the best of them, and whether that is more than noise."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from gt.cli.intervals import Estimate, difference
from gt.cli.settings import comparable, decisive
from gt.cli.spectrum.grid import Axis, Setting
from gt.schema import number


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
    of_all = Estimate.of(list(values))
    return number(of_all.mean) + (f" ± {number(of_all.deviation, of_all.mean)}" if of_all.n > 1 else "")


def sentence(lead: Estimate, other: str) -> str:
    """By how much one cell is better than another, with the 95 % interval, and whether that is more than noise."""
    if lead.mean == 0:
        return f"the same as the {other}"
    better, word = (lead, "better") if lead.mean > 0 else (lead.negative(), "worse")
    than = f"{word} than the {other}"
    if lead.n == 1:
        return f"{number(better.mean)} {than} (one seed: whether that is more than noise cannot be said)"
    if not better.error:
        return f"{number(better.mean)} {than}, with each of {lead.n} seeds"
    errors = f"{better.mean / better.error:.1f} standard errors, {lead.n} seeds"
    verdict = "is not" if lead.is_noise else "is"
    return f"{number(better.mean)} {better.interval()} {than}, which {verdict} more than noise ({errors})"


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

    def lead(self, setting: Setting) -> Estimate | None:
        """By how much the best cell's final score is better, seed by seed; None where they share no seed."""
        gap = difference(self.cells[self.best].final, self.cells[setting].final)
        return gap if gap is None or self.mode == "max" else gap.negative()

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

    @property
    def scale(self) -> str:
        """What the numbers are."""
        return f"{self.split} {self.criterion}"

    @property
    def runs(self) -> str:
        """Of how many runs they are a mean."""
        counts = sorted({len(cell.final) for cell in self.cells.values()})
        return "one seed" if counts == [1] else f"mean of {' to '.join(map(str, counts[:1] + counts[1:][-1:]))} seeds"

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
        scored = f"{name}: {self.place(axis)}, {self.scale} {self.cells[best]} ({chosen})"
        leads = {corner: self.lead(setting) for corner, setting in rivals.items()}
        return "; ".join([scored, *(sentence(lead, corner) for corner, lead in leads.items() if lead)]) + "."
