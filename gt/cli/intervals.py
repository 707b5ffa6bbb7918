"""The mean of a few runs and the difference between runs in pairs, with Student's 95 % intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from gt.schema import number

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """The mean of n numbers that are drawn alike; NaN where one is NaN, and but for the mean where n is 1, or one inf.

    Attributes:
        n: how many numbers.
        mean: theirs.
        deviation: of the sample, by n - 1.
        error: standard error of the mean.
        low, high: ends of its interval of Student's t with n - 1 degrees of freedom, which holds the mean of
            all such draws in 95 of 100 cases.
    """

    n: int
    mean: float
    deviation: float
    error: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Raises ValueError where there are none."""
        from scipy.special import stdtrit  # late: --help and a typo answer at once

        n, finite = len(values), all(map(math.isfinite, values))
        mean = fmean(values) if finite else sum(values) / n
        deviation = stdev(values) if n > 1 and finite else math.nan
        error = deviation / math.sqrt(n)
        reach = error * float(stdtrit(n - 1, (1 + LEVEL) / 2)) if n > 1 else math.nan
        return cls(n, mean, deviation, error, mean - reach, mean + reach)

    @property
    def is_noise(self) -> bool:
        """Whether the interval holds 0, or there is none."""
        return not (self.low > 0 or self.high < 0)

    def negative(self) -> "Estimate":
        """That of the numbers with the other sign."""
        return Estimate(self.n, -self.mean, self.deviation, self.error, -self.high, -self.low)

    def interval(self) -> str:
        """Both ends for a reader; ``-`` for none."""
        low, high = (number(end, self.mean) for end in (self.low, self.high))
        return "-" if math.isnan(self.low) else f"[{low}, {high}]"


def difference(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> Estimate | None:
    """Ours less theirs, over the runs that share a key, such as a seed; None where none do."""
    pairs = [value - theirs[key] for key, value in ours.items() if key in theirs]
    return Estimate.of(pairs) if pairs else None


def in_words(gap: Estimate, mode: Literal["min", "max"], other: str, repeats: str = "seeds") -> str:
    """A difference of scores for a reader: ``0.0210 [0.0040, 0.0380] better than OTHER, over 5 seeds``.

    Args:
        gap: ours less theirs.
        mode: whether the score is to be small or large.
        other: what theirs is called.
        repeats: what the pairs share.
    """
    if gap.mean == gap.deviation == 0:
        return f"the same as {other}, over {gap.n} {repeats}"
    gain = gap if mode == "max" else gap.negative()
    gain, word = (gain, "better") if gain.mean >= 0 else (gain.negative(), "worse")
    if gap.n == 1:
        return f"{number(gain.mean)} {word} than {other}, by one run of each: repeat them, seeds=5, to see the noise"
    noise = ": not more than noise" if gap.is_noise else ""
    return f"{number(gain.mean)} {gain.interval()} {word} than {other}, over {gap.n} {repeats}{noise}"
