"""The global branch: multi-head attention among the pairs that a mask allows."""

from collections.abc import Sequence

from torch import Tensor, nn

from gt.attention import attend
from gt.encodings import EncodingModule
from gt.masks import Pairs


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017), parameters as in ``torch.nn.MultiheadAttention``.

    Args:
        width: channels of a node.
        heads: number of heads; must divide the width.
        dropout: probability of dropping an attention weight.
        bias: whether the projections have one.
        backend: how to compute it, see `gt.attention.attend`.
    """

    def __init__(
        self, width: int, heads: int = 4, dropout: float = 0.0, bias: bool = True, backend: str = "auto"
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads, self.dropout, self.backend = heads, dropout, backend
        self.project_in = nn.Linear(width, 3 * width, bias=bias)
        self.project_out = nn.Linear(width, width, bias=bias)

    def queries_keys_values(
        self, x: Tensor, pairs: Pairs, encodings: Sequence[EncodingModule]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(N, width) to three (N, H, D), turned by position where an encoding does so."""
        q, k, v = self.project_in(x).view(len(x), 3, self.heads, -1).unbind(1)
        for encoding in encodings:
            q, k = encoding.rotate(q, k, pairs.batch)
        return q, k, v

    def forward(self, x: Tensor, pairs: Pairs, encodings: Sequence[EncodingModule] = ()) -> Tensor:
        """(N, width) to (N, width)."""
        q, k, v = self.queries_keys_values(x, pairs, encodings)
        y = attend(q, k, v, pairs, dropout=self.dropout if self.training else 0.0, backend=self.backend)
        return self.project_out(y.flatten(1))
