"""Positional encodings for graphs with a meaningful node order: text, and syntax trees in pre-order.

They depend on a node's position within its graph, so renumbering the nodes of a molecule would change them.
"""

import torch
from torch import Tensor, nn

from gt.encodings.base import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.schema import Schema


def angles(count: int, channels: int, base: float, device: torch.device) -> Tensor:
    """(count, ceil(channels / 2)) float32: position times the i-th frequency, base^(-2i / channels)."""
    exponent = torch.arange(0, channels, 2, device=device, dtype=torch.float32) / channels
    position = torch.arange(count, device=device, dtype=torch.float32)
    return position[:, None] * base**-exponent


class Sinusoidal(Encoding):
    """Sines and cosines of the position at geometric wavelengths (Vaswani et al. 2017); any length, no parameters.

    Channel 2i is the sine and 2i + 1 the cosine of the i-th frequency.

    Args:
        base: the longest wavelength is 2 pi times this.
    """

    reads = "position"

    def __init__(self, base: float = 10000.0) -> None:
        super().__init__()
        self.base = base

    def build(self, width: int, schema: Schema) -> None:
        self.width = width

    def nodes(self, batch: GraphBatch) -> Tensor:
        angle = angles(batch.max_nodes, self.width, self.base, batch.device)  # (L, ceil(d / 2))
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, : self.width]
        return table.index_select(0, batch.position)


class LearnedPositions(Encoding):
    """A learned vector for each position (Gehring et al. 2017; GPT).

    Args:
        length: rows of the table; None: the size of the largest graph of the dataset.

    Raises:
        UserError: a dataset or a batch has a graph larger than the table.
    """

    reads = "position"

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.longest = length

    def build(self, width: int, schema: Schema) -> None:
        length = schema.max_nodes if self.longest is None else self.longest
        if length < 1:
            raise UserError(f"a table of {length} positions is empty: set the encoding's length to 1 or more")
        _check_length(schema.max_nodes, length)
        self.longest = length
        self.table = nn.Embedding(length, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def nodes(self, batch: GraphBatch) -> Tensor:
        _check_length(batch.max_nodes, self.table.num_embeddings)
        return self.table(batch.position)


def _check_length(nodes: int, length: int) -> None:
    if nodes > length:
        raise UserError(f"a graph of {nodes} nodes exceeds the table of {length} positions: set a larger length")


class Rotary(Encoding):
    """RoPE: rotates queries and keys by position, so that scores depend on relative positions only (Su et al. 2021).

    Channels (2i, 2i + 1) of each head are rotated by the i-th frequency times the position; no parameters.

    Args:
        base: the longest wavelength is 2 pi times this.

    Raises:
        UserError: heads with an odd number of channels.
    """

    reads, writes, rotates = "position", (), True

    def __init__(self, base: float = 10000.0) -> None:
        super().__init__()
        self.base = base

    def rotate(self, q: Tensor, k: Tensor, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        channels = q.shape[-1]
        if channels % 2:
            raise UserError(f"rotary positions need an even number of channels per head, not {channels}")

        def make() -> Tensor:
            angle = angles(batch.max_nodes, channels, self.base, batch.device)  # (L, D / 2)
            return torch.stack([angle.cos(), angle.sin()]).index_select(1, batch.position)[:, :, None]

        cos, sin = batch.cached(("rotary", self.base, channels), make)  # (N, 1, D / 2), shared by all layers
        return _rotate(q, cos, sin), _rotate(k, cos, sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(N, H, D) with each pair of channels rotated; half precision is rotated in float32."""
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return rotated.flatten(-2).type_as(x)
