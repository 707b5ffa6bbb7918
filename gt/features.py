"""The columns that data have of each node or edge, embedded."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.dropout import Dropout
from gt.linear import Linear
from gt.transforms import transformed
from gt.units import Units


class Features(nn.Module):
    """Embeds the columns of ``x`` or ``edge_attr``: a table a column, summed; or a linear map of real numbers.

    Args:
        vocab: values of each column of whole numbers; none: the columns are ``floats`` real numbers.
        width: channels of a row.
        mean, scale: of real numbers, what is taken off each column first and what it is then divided by.
        dropout: of each column of each row.
        bias: whether the linear map of real numbers has one.
        linear: False leaves real numbers as they are, in the first channels; the others are 0.
        name: what messages call the features.

    Raises:
        ValueError: more real numbers than channels are to be left as they are.
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
            raise ValueError(f"input_linear=false needs a width of {floats} or more, one for each feature: {width}")
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
        """(rows, columns) to (rows, width).

        Raises:
            ValueError: there are none, of another width, or real numbers in place of categories; on a CPU, a category
                that there is not, in whose place another column's would be read.
        """
        odd = values is None or values.shape[1:] != (self.columns,)
        if values is None or odd or (self.categorical and values.is_floating_point()):
            kind = "categories as whole numbers" if self.categorical else "real numbers"
            instead = "has none" if values is None else f"has {tuple(values.shape)} of {values.dtype}"
            raise ValueError(
                f"the network reads {self.name} of shape (rows, {self.columns}), {kind}; this batch {instead}"
            )
        if self.categorical:
            if not torch.compiler.is_compiling() and values.device.type == "cpu" and len(values):
                self._check_categories(values)
            drops = self.training and self.dropout.p > 0
            kept = self.dropout(self.table.weight.new_ones(values.shape)) if drops else None
            if transformed():  # of embedding bags not all of them know the derivatives
                rows = F.embedding(values + self.offsets, self.table.weight)
                return rows.sum(1) if kept is None else (rows * kept[..., None]).sum(1)
            return self.table(values + self.offsets, per_sample_weights=kept)
        numbers = self.units.shrink(values)
        if self.linear is None:
            return F.pad(self.dropout(numbers), (0, self.width - numbers.shape[1]))
        return self.linear(self.dropout(numbers.to(self.linear.weight.dtype)))

    def _check_categories(self, values: Tensor) -> None:
        lowest, highest = (ends.tolist() for ends in values.aminmax(dim=0))
        for place, count in enumerate(self.vocab):
            if lowest[place] < 0 or highest[place] >= count:
                raise ValueError(
                    f"{self.name} holds {lowest[place]} to {highest[place]} in column {place}, and the network knows "
                    f"0 to {count - 1} there"
                )
