"""Normalisation of rows some of which only fill a static shape."""

import torch
from torch import Tensor, nn


def normalised(norm: nn.Module, rows: Tensor, real: Tensor | None = None) -> Tensor:
    """``norm(rows)``, (R, width) to the same; statistics of a batch are those of its real rows.

    A single row, or none, has no statistics of a batch to train on and stays as it is.

    Args:
        real: (R,) bool, False at rows that only fill a static shape; None where every row is real.
    """
    if not isinstance(norm, nn.BatchNorm1d) or not norm.training:
        return norm(rows)
    if real is not None:
        return _batch_norm(norm, rows, real)
    return rows if len(rows) < 2 else norm(rows)


def _batch_norm(norm: nn.BatchNorm1d, rows: Tensor, real: Tensor) -> Tensor:
    """Batch normalisation in training (Ioffe & Szegedy 2015) by the mean and variance of the real rows alone."""
    values = rows.to(torch.promote_types(rows.dtype, torch.float32))
    weight = real.to(values.dtype)[:, None]
    count = weight.sum()
    mean = (values * weight).sum(0) / count.clamp(min=1)
    centred = values - mean
    squares = (centred.square() * weight).sum(0)
    variance = squares / count.clamp(min=1)
    if norm.track_running_stats:
        _track(norm, mean.detach(), squares.detach() / (count - 1).clamp(min=1), count > 1)
    out = centred * (variance + norm.eps).rsqrt()
    if norm.affine:
        out = out * norm.weight + norm.bias
    return out.to(rows.dtype).where(count > 1, rows)  # decided on the device, which nothing waits for


def _track(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, known: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(known)
    share = known / norm.num_batches_tracked.clamp(min=1) if norm.momentum is None else norm.momentum * known
    norm.running_mean.lerp_(mean.to(norm.running_mean), share.to(norm.running_mean))
    norm.running_var.lerp_(variance.to(norm.running_var), share.to(norm.running_var))
