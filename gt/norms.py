"""Normalisation of rows, some of which only fill a static shape, and whether a row's result depends on other rows."""

import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.graph import GraphBatch

ALONE = (nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.BatchNorm1d)  # which take rows alone


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` (Zhang & Sennrich 2019) that stays one kernel where rows have 16 bits and its weight has 32.

    So they come under autocast, where PyTorch warns of it and takes the steps one by one.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(x.dtype)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


@cache
def _parameters(kind: Any) -> set[str]:
    return set(inspect.signature(kind.forward).parameters)


def _takes(norm: nn.Module) -> set[str]:
    kind: Any = type(norm)
    return {"batch", "batch_size"} & _parameters(kind)


def by_graph(norm: nn.Module) -> bool:
    """Whether a norm takes the graph of each row, ``norm(rows, batch)``, as `torch_geometric.nn.GraphNorm` does."""
    return "batch" in _takes(norm)


def mixes_rows(norm: nn.Module) -> bool:
    """Whether in evaluation a row's result depends on other rows: by graph, or without running statistics.

    Any other norm that does so says it by an attribute ``mixes_rows = True``.
    """
    batch_norm = isinstance(norm, nn.BatchNorm1d) and not norm.track_running_stats
    return bool(getattr(norm, "mixes_rows", batch_norm or by_graph(norm)))


def normalised(
    norm: nn.Module, rows: Tensor, batch: GraphBatch, stream: str = "x", readers: Tensor | None = None
) -> Tensor:
    """``norm(rows)``, (R, width) to the same; statistics of a batch are those of its real rows.

    A single row, or none, has no statistics of a batch to train on and stays as it is.

    Args:
        rows: of a stream of `gt.layers.State`.
        batch: a norm that goes by graph is told the graph of each row.
        readers: (P,) the node that reads, of pairs.

    Raises:
        ValueError: a norm of pairs that goes by graph.
    """
    if isinstance(norm, nn.BatchNorm1d) and norm.training:
        real = {"x": batch.node_mask, "e": batch.edge_mask, "g": batch.graph_mask}.get(stream)
        if readers is not None and batch.node_mask is not None:
            real = batch.node_mask.index_select(0, readers)
        if real is not None:
            return _batch_norm(norm, rows, real)
        return rows if len(rows) < 2 else norm(rows)
    if isinstance(norm, ALONE) or not by_graph(norm):  # the former are asked nothing: a compiler looks on
        return norm(rows)
    if stream not in ("x", "e"):
        raise ValueError(f"{type(norm).__name__} goes by graph and cannot normalise the stream {stream}")
    known: dict[str, Any] = {"batch": batch.batch, "batch_size": batch.num_graphs}
    if stream == "e":
        known["batch"] = batch.batch[batch.edge_index[1]]
    return norm(rows, **{name: known[name] for name in _takes(norm)})


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
