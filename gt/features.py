"""Embedding of node and edge features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.dropout import Dropout
from gt.linear import Linear
from gt.transforms import transformed
from gt.units import Units


class Features(nn.Module):
    """Embeds the columns of ``x`` or ``edge_attr``: the sum of one table per column, or a linear map of real numbers.

    Args:
        vocab: number of values of each categorical column; empty: the columns are ``floats`` real numbers.
        width: channels per row.
        mean, scale: for real numbers, what is subtracted from each column and what it is then divided by.
        dropout: dropout rate, applied to each column of each row.
        bias: whether the linear map of real numbers has a bias.
        linear: False zero-pads real numbers to ``width`` channels instead.
        name: name of the features in error messages.

    Raises:
        ValueError: ``linear`` is False and there are more real numbers than channels.
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
        linear: bool = True,
        name: str = "x",
    ) -> None:
        super().__init__()
        if not linear and floats > width:
            raise ValueError(
                f"input_linear=false needs a width of at least {floats}, one channel per feature, not {width}"
            )
        if vocab:
            self.table = nn.EmbeddingBag(sum(vocab), width, mode="sum")
            nn.init.normal_(self.table.weight, std=len(vocab) ** -0.5)  # the sum then has variance 1
            self.register_buffer("offsets", torch.tensor([0, *vocab[:-1]]).cumsum(0), persistent=False)
        else:
            self.units = Units(mean, scale)
            self.linear = Linear(floats, width, bias) if linear else None
        self.categorical, self.dropout, self.width = bool(vocab), Dropout(dropout), width
        self.name, self.columns, self.vocab = name, len(vocab) or floats, tuple(vocab)

    def forward(self, values: Tensor | None) -> Tensor:
        """Embed (rows, columns) to (rows, width).

        Raises:
            ValueError: the features are missing, have another number of columns, or are real numbers in place of
                categories; on a CPU, a category is out of range and would read the embedding of another column.
        """
        wrong_shape = values is None or values.shape[1:] != (self.columns,)
        if values is None or wrong_shape or (self.categorical and values.is_floating_point()):
            kind = "categories as whole numbers" if self.categorical else "real numbers"
            actual = "has none" if values is None else f"has {tuple(values.shape)} of {values.dtype}"
            raise ValueError(
                f"the network expects {self.name} of shape (rows, {self.columns}), {kind}; this batch {actual}"
            )
        if self.categorical:
            if not torch.compiler.is_compiling() and values.device.type == "cpu" and len(values):
                self._check_categories(values)
            use_dropout = self.training and self.dropout.p > 0
            mask = self.dropout(self.table.weight.new_ones(values.shape)) if use_dropout else None
            if transformed():  # some have no derivatives of embedding bags
                rows = F.embedding(values + self.offsets, self.table.weight)
                return rows.sum(1) if mask is None else (rows * mask[..., None]).sum(1)
            return self.table(values + self.offsets, per_sample_weights=mask)
        numbers = self.units.shrink(values)
        if self.linear is None:
            return F.pad(self.dropout(numbers), (0, self.width - numbers.shape[1]))
        return self.linear(self.dropout(numbers.to(self.linear.weight.dtype)))

    def _check_categories(self, values: Tensor) -> None:
        minimum, maximum = (ends.tolist() for ends in values.aminmax(dim=0))
        for column, count in enumerate(self.vocab):
            if minimum[column] < 0 or maximum[column] >= count:
                raise ValueError(
                    f"{self.name} has values {minimum[column]} to {maximum[column]} in column {column}, but the "
                    f"network was built for 0 to {count - 1}"
                )
