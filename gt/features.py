"""The columns that data have of each node or edge, embedded."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gt.dropout import Dropout
from gt.units import Units


class Features(nn.Module):
    """Embeds the columns of ``x`` or ``edge_attr``: a table a column, summed; or a linear map of real numbers.

    Args:
        vocab: values of each column of whole numbers; none: the columns are ``floats`` real numbers.
        width: channels of a row.
        mean, scale: of real numbers, what is taken off each column first and what it is then divided by.
        dropout: of each column of each row.
        bias: whether the linear map of real numbers has one.
    """

    offsets: Tensor
    table: nn.EmbeddingBag

    def __init__(
        self,
        vocab: Sequence[int],
        floats: int,
        width: int,
        mean: Sequence[float] = (),
        scale: Sequence[float] = (),
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if vocab:
            self.table = nn.EmbeddingBag(sum(vocab), width, mode="sum")
            nn.init.normal_(self.table.weight, std=len(vocab) ** -0.5)  # the sum then has variance 1
            self.register_buffer("offsets", torch.tensor([0, *vocab[:-1]]).cumsum(0), persistent=False)
        else:
            self.units = Units(mean, scale)
            self.linear = nn.Linear(floats, width, bias)
        self.categorical, self.dropout = bool(vocab), Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """(rows, columns) to (rows, width)."""
        if self.categorical:
            drops = self.training and self.dropout.p > 0
            kept = self.dropout(self.table.weight.new_ones(values.shape)) if drops else None
            return self.table(values + self.offsets, per_sample_weights=kept)
        return self.linear(self.dropout(self.units.shrink(values).to(self.linear.weight.dtype)))
