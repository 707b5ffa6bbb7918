"""What the keys of a sweep did: their values by setting, how much each matters; which settings no other one beats."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from gt.cli.arguments import parsed
from gt.cli.seeds import key_of
from gt.cli.settings import Job, decisive, setting

FEW = 8  # settings, fewer of which say nothing of importance
SPAN = 50.0  # of positive numbers, beyond which they are compared by their logarithm
COSTS = {"seconds_per_batch": "seconds a batch", "parameters": "parameters"}  # of a result, and how they are called


def values_by_key(settings: Sequence[list[Job]]) -> dict[str, list[str]]:
    """For each key that differs between settings, its value in each; ``-`` where that leaves it as it is."""
    overrides = [parsed(list(setting(jobs[0]))) for jobs in settings]
    rows = [{key_of(each): str(each.input_line).partition("=")[2] for each in row} for row in overrides]
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = {key: [row.get(key, "-") for row in rows] for key in keys}
    return {key: column for key, column in columns.items() if len(set(column)) > 1}


def positions(values: Sequence[str]) -> tuple[list[float], list[str]]:
    """Where values lie on an axis, and their names there if they are no numbers.

    Positive numbers that span more than `SPAN` lie by their decimal logarithm.
    """
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        names = sorted(set(values), key=lambda value: (float(value) if _is_number(value) else math.inf, value))
        return [float(names.index(value)) for value in values], names
    if min(numbers) > 0 and max(numbers) > SPAN * min(numbers):
        return [math.log10(value) for value in numbers], []
    return numbers, []


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def scores(settings: Sequence[list[Job]]) -> list[float]:
    """What each setting is ranked by."""
    return [fmean(map(decisive, jobs)) for jobs in settings]


def finite(settings: Sequence[list[Job]]) -> list[list[Job]]:
    """The settings whose score is defined."""
    return [jobs for jobs, score in zip(settings, scores(settings), strict=True) if math.isfinite(score)]


def importance(settings: Sequence[list[Job]]) -> dict[str, float]:
    """Each key's share of what a random forest knows of the scores, the largest first; nothing of too few settings.

    A key's part is what shuffling its values costs the forest (permutation importance, Breiman 2001), out of 1.
    """
    kept = finite(settings)
    columns = values_by_key(kept)
    if len(kept) < FEW or len(columns) < 2:
        return {}
    from sklearn.ensemble import RandomForestRegressor  # late: it takes a second
    from sklearn.inspection import permutation_importance

    x, y = np.array([positions(column)[0] for column in columns.values()]).T, np.array(scores(kept))
    forest = RandomForestRegressor(200, random_state=0).fit(x, y)
    drops = permutation_importance(forest, x, y, n_repeats=20, random_state=0).importances_mean.clip(min=0)
    shares = drops / (drops.sum() or 1.0)
    return dict(sorted(zip(columns, shares.tolist(), strict=True), key=lambda pair: -pair[1]))


def cost(jobs: Sequence[Job], name: str) -> float:
    """The mean cost of a setting, one of `COSTS`; NaN where it is not known."""
    return fmean(math.nan if job.get(name) is None else float(job[name]) for job in jobs)


def front(settings: Sequence[list[Job]], name: str) -> list[int]:
    """The settings, by their places, than which no other one is both at least as good and at least as cheap."""
    sign = -1.0 if settings[0][0]["mode"] == "max" else 1.0
    points = np.array([(sign * s, cost(jobs, name)) for s, jobs in zip(scores(settings), settings, strict=True)])
    known = np.isfinite(points).all(axis=1)
    no_worse = (points[:, None] <= points[None]).all(axis=2)
    better = no_worse & (points[:, None] < points[None]).any(axis=2) & known[:, None]
    return [place for place in range(len(settings)) if known[place] and not better[:, place].any()]
