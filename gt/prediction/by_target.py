"""The errors of each of several numbers that are predicted, whose units may differ."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gt.losses import shown
from gt.schema import Schema
from gt.task_metrics import Errors

MOST = 9  # targets that a line is printed of


class ErrorsByTarget(Errors):
    """Instead of the means over targets of `gt.task_metrics.Errors`, ``mae_NAME`` and ``rmse_NAME`` of each target.

    Args:
        schema: of several numbers.

    Attributes:
        names: of the targets, as in the columns of a table of predictions.
        reported: the names of the scores.
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema.outputs)
        self.names = schema.names or tuple(map(str, range(schema.outputs)))
        self.reported = [f"{score}_{name}" for score in ("mae", "rmse") for name in self.names]

    def compute(self) -> dict[str, Tensor]:
        """Scalars, NaN where a target has no label."""
        errors = torch.cat([self.absolute / self.labels, self.length / self.labels.sqrt()])
        return dict(zip(self.reported, errors, strict=True))

    def lines(self, scores: Mapping[str, float]) -> list[str]:
        """For a reader what `compute` found, a line for each target, of `MOST` at most."""
        told, more = self.names[:MOST], len(self.names[MOST:])
        width = max(map(len, told))
        rows = [
            f"  {name.ljust(width)}  mae {shown(scores[f'mae_{name}'])}  rmse {shown(scores[f'rmse_{name}'])}"
            for name in told
        ]
        return [*rows, f"  and {more:,} more"] if more else rows
