"""Normalisation of rows that may include padding, and whether a row's result depends on other rows."""

import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.graph import GraphBatch

ROWS_ONLY = (nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.BatchNorm1d)  # norms called with the rows only


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` (Zhang & Sennrich 2019) that runs as one kernel for 16-bit rows and a 32-bit weight.

    Autocast produces this combination, for which PyTorch warns and falls back to unfused operations.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(x.dtype)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


@cache
def _parameters(norm_type: Any) -> set[str]:
    return set(inspect.signature(norm_type.forward).parameters)


def _extra_arguments(norm: nn.Module) -> set[str]:
    norm_type: Any = type(norm)
    return {"batch", "batch_size"} & _parameters(norm_type)


def by_graph(norm: nn.Module) -> bool:
    """Whether a norm takes the graph index of each row, ``norm(rows, batch)``, as `torch_geometric.nn.GraphNorm`."""
    return "batch" in _extra_arguments(norm)


def mixes_rows(norm: nn.Module) -> bool:
    """Whether a row's result in evaluation depends on other rows: by graph, or without running statistics.

    Any other such norm declares it with an attribute ``mixes_rows = True``.
    """
    batch_norm = isinstance(norm, nn.BatchNorm1d) and not norm.track_running_stats
    return bool(getattr(norm, "mixes_rows", batch_norm or by_graph(norm)))


def apply_norm(
    norm: nn.Module, rows: Tensor, batch: GraphBatch, stream: str = "x", readers: Tensor | None = None
) -> Tensor:
    """Apply ``norm`` to rows (R, width), with batch statistics taken over real rows only.

    In training, batch normalisation leaves fewer than two rows unchanged, as they have no statistics.

    Args:
        rows: rows of a stream of `gt.layers.State`.
        batch: provides padding masks, and the graph index of each row to norms that take it.
        readers: (P,) the reading node of each pair, for a stream of pairs.

    Raises:
        ValueError: a norm that takes graph indices is applied to pairs.
    """
    if isinstance(norm, nn.BatchNorm1d) and norm.training:
        real = {"x": batch.node_mask, "e": batch.edge_mask, "g": batch.graph_mask}.get(stream)
        if readers is not None and batch.node_mask is not None:
            real = batch.node_mask.index_select(0, readers)
        if real is not None:
            return _batch_norm(norm, rows, real)
        return rows if len(rows) < 2 else norm(rows)
    if isinstance(norm, ROWS_ONLY) or not by_graph(norm):  # types first: compilers cannot trace `inspect`
        return norm(rows)
    if stream not in ("x", "e"):
        raise ValueError(f"{type(norm).__name__} normalises by graph, which the stream {stream} does not support")
    arguments: dict[str, Any] = {"batch": batch.batch, "batch_size": batch.num_graphs}
    if stream == "e":
        arguments["batch"] = batch.batch[batch.edge_index[1]]
    return norm(rows, **{name: arguments[name] for name in _extra_arguments(norm)})


def _batch_norm(norm: nn.BatchNorm1d, rows: Tensor, real: Tensor) -> Tensor:
    """Batch normalisation in training (Ioffe & Szegedy 2015) with statistics of the real rows only."""
    values = rows.to(torch.promote_types(rows.dtype, torch.float32))
    weight = real.to(values.dtype)[:, None]
    count = weight.sum()
    mean = (values * weight).sum(0) / count.clamp(min=1)
    centred = values - mean
    squares = (centred.square() * weight).sum(0)
    variance = squares / count.clamp(min=1)
    if norm.track_running_stats:
        _update_running_stats(norm, mean.detach(), squares.detach() / (count - 1).clamp(min=1), count > 1)
    out = centred * (variance + norm.eps).rsqrt()
    if norm.affine:
        out = out * norm.weight + norm.bias
    return out.to(rows.dtype).where(count > 1, rows)  # decided on the device, without synchronisation


def _update_running_stats(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, valid: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(valid)
    momentum = valid / norm.num_batches_tracked.clamp(min=1) if norm.momentum is None else norm.momentum * valid
    norm.running_mean.lerp_(mean.to(norm.running_mean), momentum.to(norm.running_mean))
    norm.running_var.lerp_(variance.to(norm.running_var), momentum.to(norm.running_var))
