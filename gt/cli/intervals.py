"""Means of runs and paired differences between runs, with 95 % confidence intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from gt.schema import format_number

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """The mean of n independent, identically distributed numbers.

    NaN if one of them is NaN; all but the mean are NaN if n is 1 or one is infinite.

    Attributes:
        n: how many numbers.
        mean: their mean.
        deviation: sample standard deviation (n - 1).
        error: standard error of the mean.
        low, high: 95 % confidence interval of the mean, by Student's t with n - 1 degrees of freedom.
    """

    n: int
    mean: float
    deviation: float
    error: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """The estimate from numbers; raises ValueError if there are none."""
        from scipy.special import stdtrit  # late: --help and a typo answer at once

        n, finite = len(values), all(map(math.isfinite, values))
        mean = fmean(values) if finite else sum(values) / n
        deviation = stdev(values) if n > 1 and finite else math.nan
        error = deviation / math.sqrt(n)
        half_width = error * float(stdtrit(n - 1, (1 + LEVEL) / 2)) if n > 1 else math.nan
        return cls(n, mean, deviation, error, mean - half_width, mean + half_width)

    @property
    def is_noise(self) -> bool:
        """Whether the interval contains 0 or does not exist."""
        return not (self.low > 0 or self.high < 0)

    def negative(self) -> "Estimate":
        """The estimate for the negated numbers."""
        return Estimate(self.n, -self.mean, self.deviation, self.error, -self.high, -self.low)

    def interval(self) -> str:
        """The interval as text; ``-`` if there is none."""
        low, high = (format_number(end, self.mean) for end in (self.low, self.high))
        return "-" if math.isnan(self.low) else f"[{low}, {high}]"


def difference(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> Estimate | None:
    """Ours minus theirs, over the runs that share a key, such as a seed; None if none do."""
    pairs = [value - theirs[key] for key, value in ours.items() if key in theirs]
    return Estimate.of(pairs) if pairs else None


def describe_gap(gap: Estimate, mode: Literal["min", "max"], other: str, repeats: str = "seeds") -> str:
    """Describe a difference of scores: ``0.0210 [0.0040, 0.0380] better than OTHER, over 5 seeds``.

    Args:
        gap: ours minus theirs.
        mode: whether a small or a large score is better.
        other: the name of theirs.
        repeats: what the pairs have in common.
    """
    if gap.mean == gap.deviation == 0:
        return f"the same as {other}, over {gap.n} {repeats}"
    gain = gap if mode == "max" else gap.negative()
    gain, word = (gain, "better") if gain.mean >= 0 else (gain.negative(), "worse")
    if gap.n == 1:
        better = f"{format_number(gain.mean)} {word} than {other}"
        return f"{better}, by one run of each: repeat them, seeds=5, to see the noise"
    noise = ": not more than noise" if gap.is_noise else ""
    return f"{format_number(gain.mean)} {gain.interval()} {word} than {other}, over {gap.n} {repeats}{noise}"
