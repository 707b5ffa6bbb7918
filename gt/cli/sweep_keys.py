"""The keys of a sweep: their values by setting, their importance, and the Pareto front of settings."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from gt.cli.arguments import parse_overrides
from gt.cli.seeds import key_of
from gt.cli.settings import Job, ranking_score, setting

MIN_SETTINGS = 8  # to estimate importance
LOG_RATIO = 50.0  # of the largest to the smallest positive number, above which an axis is logarithmic
COSTS = {"seconds_per_batch": "seconds a batch", "parameters": "parameters"}  # keys of a result, with their titles


def values_by_key(settings: Sequence[list[Job]]) -> dict[str, list[str]]:
    """The value in each setting of each key that differs between settings; ``-`` if a setting does not set it."""
    overrides = [parse_overrides(list(setting(jobs[0]))) for jobs in settings]
    rows = [{key_of(each): str(each.input_line).partition("=")[2] for each in row} for row in overrides]
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = {key: [row.get(key, "-") for row in rows] for key in keys}
    return {key: column for key, column in columns.items() if len(set(column)) > 1}


def positions(values: Sequence[str]) -> tuple[list[float], list[str]]:
    """The positions of values on an axis, and their names if they are not numbers.

    Positive numbers with a ratio above `LOG_RATIO` are placed by their decimal logarithm.
    """
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        names = sorted(set(values), key=lambda value: (float(value) if _is_number(value) else math.inf, value))
        return [float(names.index(value)) for value in values], names
    if min(numbers) > 0 and max(numbers) > LOG_RATIO * min(numbers):
        return [math.log10(value) for value in numbers], []
    return numbers, []


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def scores(settings: Sequence[list[Job]]) -> list[float]:
    """The score by which each setting is ranked."""
    return [fmean(map(ranking_score, jobs)) for jobs in settings]


def finite(settings: Sequence[list[Job]]) -> list[list[Job]]:
    """The settings whose score is defined."""
    return [jobs for jobs, score in zip(settings, scores(settings), strict=True) if math.isfinite(score)]


def importance(settings: Sequence[list[Job]]) -> dict[str, float]:
    """The importance of each key for the scores, the largest first.

    Permutation importance (Breiman 2001) in a random forest, normalised to a sum of 1. Empty for fewer than
    `MIN_SETTINGS` settings or fewer than two keys.
    """
    defined = finite(settings)
    columns = values_by_key(defined)
    if len(defined) < MIN_SETTINGS or len(columns) < 2:
        return {}
    from sklearn.ensemble import RandomForestRegressor  # late: the import takes a second
    from sklearn.inspection import permutation_importance

    x, y = np.array([positions(column)[0] for column in columns.values()]).T, np.array(scores(defined))
    forest = RandomForestRegressor(200, random_state=0).fit(x, y)
    drops = permutation_importance(forest, x, y, n_repeats=20, random_state=0).importances_mean.clip(min=0)
    shares = drops / (drops.sum() or 1.0)
    return dict(sorted(zip(columns, shares.tolist(), strict=True), key=lambda pair: -pair[1]))


def cost(jobs: Sequence[Job], name: str) -> float:
    """The mean cost of a setting, one of `COSTS`; NaN if it is unknown."""
    return fmean(math.nan if job.get(name) is None else float(job[name]) for job in jobs)


def front(settings: Sequence[list[Job]], name: str) -> list[int]:
    """The indices of the settings on the Pareto front of score and cost."""
    sign = -1.0 if settings[0][0]["mode"] == "max" else 1.0
    points = np.array([(sign * s, cost(jobs, name)) for s, jobs in zip(scores(settings), settings, strict=True)])
    is_defined = np.isfinite(points).all(axis=1)
    no_worse = (points[:, None] <= points[None]).all(axis=2)
    better = no_worse & (points[:, None] < points[None]).any(axis=2) & is_defined[:, None]
    return [index for index in range(len(settings)) if is_defined[index] and not better[:, index].any()]
