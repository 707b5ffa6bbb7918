"""Separate errors for each of several regression targets, whose units may differ."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gt.losses import format_score
from gt.schema import Schema
from gt.task_metrics import Errors

MAX_LINES = 9  # targets that are printed


class ErrorsByTarget(Errors):
    """``mae_NAME`` and ``rmse_NAME`` of each target, instead of the means over targets of `gt.task_metrics.Errors`.

    Args:
        schema: of a regression with several targets.

    Attributes:
        names: names of the targets, as in a table of predictions.
        reported: names of the scores.
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema.outputs)
        self.names = schema.names or tuple(map(str, range(schema.outputs)))
        self.reported = [f"{score}_{name}" for score in ("mae", "rmse") for name in self.names]

    def compute(self) -> dict[str, Tensor]:
        """Scalars; NaN for a target without labels."""
        errors = torch.cat([self.absolute / self.labels, self.length / self.labels.sqrt()])
        return dict(zip(self.reported, errors, strict=True))

    def lines(self, scores: Mapping[str, float]) -> list[str]:
        """Format the scores, one line for each target, up to `MAX_LINES`."""
        names, omitted = self.names[:MAX_LINES], len(self.names[MAX_LINES:])
        width = max(map(len, names))
        rows = [
            f"  {name.ljust(width)}  mae {format_score(scores[f'mae_{name}'])}  "
            f"rmse {format_score(scores[f'rmse_{name}'])}"
            for name in names
        ]
        return [*rows, f"  and {omitted:,} more"] if omitted else rows
