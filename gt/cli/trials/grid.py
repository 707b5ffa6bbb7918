"""Grid search: one trial for each combination."""

import itertools
from collections.abc import Mapping
from typing import Any

from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import RandomSampler

from gt.errors import UserError


class Grid(RandomSampler):
    """Every combination of the values of a sweep; the last key changes fastest."""

    def points(self, space: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All combinations.

        Raises:
            UserError: a key has infinitely many values.
        """
        choices: list[Any] = []
        for key, each in space.items():
            if isinstance(each, IntDistribution):
                choices.append(range(each.low, each.high + 1, each.step))
            elif isinstance(each, CategoricalDistribution):
                choices.append(each.choices)
            else:
                raise UserError(
                    f"{key} has infinitely many values, too many for a grid: list some, or choose sweep/sampler=random"
                )
        return [dict(zip(space, values, strict=True)) for values in itertools.product(*choices)]
