"""Laplacian eigenvectors as features that are invariant to sign flips or to the choice of a basis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gt.encodings.base import PackedGraphs, Progress, precomputed
from gt.encodings.edges import real_ends
from gt.encodings.laplacian import Laplacian
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.linear import Linear
from gt.masks import Pairs, with_virtual_nodes
from gt.schema import Schema

TOLERANCE = 1e-4  # closer eigenvalues count as equal


class SignNet(Laplacian):
    """``rho(phi(v_1) + phi(-v_1), ..., phi(v_k) + phi(-v_k))`` (Lim et al. 2023): invariant to eigenvector signs.

    phi is an MLP of a node's entry and the eigenvalue, rho one of the concatenated outputs for all k. It uses the
    arrays of `Laplacian`. For repeated eigenvalues the choice of eigenvectors still matters, see `Projections`.

    Args:
        k, dim, zero, normalised: see `Laplacian`.
        hidden: channels of phi.
    """

    def __init__(self, k: int = 8, dim: int = 16, zero: bool = True, normalised: bool = True, hidden: int = 16) -> None:
        super().__init__(k, dim, zero, normalised)
        self.hidden = hidden

    def build(self, width: int, schema: Schema) -> None:
        hidden, dim = self.hidden, self.concat
        self.phi = nn.Sequential(Linear(2, 2 * hidden), nn.ReLU(), Linear(2 * hidden, hidden))
        self.rho = nn.Sequential(Linear(self.k * hidden, 2 * dim), nn.ReLU(), Linear(2 * dim, dim))

    def nodes(self, batch: GraphBatch) -> Tensor:
        entries, values = (
            precomputed(batch, name).to(next(self.phi.parameters()).dtype) for name in self.arrays
        )  # (N, k)
        absent = entries.isnan()[..., None]
        both = [self.phi(torch.stack([sign * entries, values], dim=-1).masked_fill(absent, 0.0)) for sign in (1, -1)]
        return self.rho((both[0] + both[1]).masked_fill(absent, 0.0).flatten(1))


class Projections(Laplacian):
    """``V phi(lambda) V^T``: invariant to eigenvector signs and to the basis of each eigenspace.

    Entry (i, j) is the sum over eigenvectors v of ``phi(lambda) v_i v_j`` in each channel, phi an MLP of the eigenvalue
    (SPE, Huang et al. 2024; a sum of projections onto eigenspaces, as in BasisNet, Lim et al. 2023). Another MLP maps
    entry (i, i) to the features of a node and (i, j) to those of a pair. An eigenspace that k would truncate is
    omitted.

    Args:
        k, dim, zero, normalised: see `Laplacian`.
        hidden: channels of phi.
        writes: the streams that get features, of nodes ``x`` and pairs ``p``.
    """

    arrays = ("projection_vectors", "projection_values")

    def __init__(
        self,
        k: int = 8,
        dim: int = 16,
        zero: bool = True,
        normalised: bool = True,
        hidden: int = 16,
        writes: Sequence[str] = ("x",),
    ) -> None:
        super().__init__(k, dim, zero, normalised)
        if unknown := set(writes) - {"x", "p"}:
            raise UserError(f"projections cannot write stream '{min(unknown)}': choose from x and p")
        self.hidden, self.writes = hidden, tuple(writes)

    def key(self) -> dict[str, Any]:
        return super().key() | {"name": "projections", "version": 1}

    def compute(self, graphs: PackedGraphs, progress: Progress = iter) -> dict[str, np.ndarray]:
        arrays = Laplacian(self.k + 1, self.concat, self.zero, self.normalised).compute(graphs, progress)
        vectors, values = (arrays[name] for name in Laplacian.arrays)
        with np.errstate(invalid="ignore"):  # NaN for graphs of at most k modes, which compares as false
            truncated = np.abs(values[:, :-1] - values[:, -1:]) < TOLERANCE
        return {
            name: np.where(truncated, np.float32(np.nan), array[:, :-1])
            for name, array in zip(self.arrays, (vectors, values), strict=True)
        }

    def build(self, width: int, schema: Schema) -> None:
        hidden = self.hidden
        self.phi = nn.Sequential(Linear(1, 2 * hidden), nn.ReLU(), Linear(2 * hidden, hidden))
        channels = {"x": self.concat, "p": width}
        self.rho = nn.ModuleDict(
            {
                s: nn.Sequential(Linear(hidden, 2 * hidden), nn.ReLU(), Linear(2 * hidden, channels[s]))
                for s in self.writes
            }
        )

    def modes(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """(N, k) eigenvector entries, zero-padded, and (N, k, hidden) phi of the eigenvalues."""
        entries, values = (precomputed(batch, name).to(next(self.phi.parameters()).dtype) for name in self.arrays)
        return entries.nan_to_num(0.0), self.phi(values.nan_to_num(0.0)[..., None])

    def nodes(self, batch: GraphBatch) -> Tensor:
        entries, phi = self.modes(batch)
        return self.rho["x"]((entries.square()[..., None] * phi).sum(1))

    def pairs(self, pairs: Pairs) -> Tensor:
        batch = with_virtual_nodes(pairs.batch, 0)
        (entries, phi), ((source, target), virtual) = self.modes(batch), real_ends(pairs)
        products = entries.index_select(0, source) * entries.index_select(0, target)  # (P, k)
        products = products.masked_fill(virtual[:, None], 0.0)
        return self.rho["p"](torch.bmm(products[:, None], phi.index_select(0, target))[:, 0])
