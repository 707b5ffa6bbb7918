"""Analysis of a trained network: its predictions, and the reach of its attention."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gt.encodings import Distance
from gt.graph import GraphBatch
from gt.hops import hop_matrix
from gt.inference.whole_graph import predict
from gt.layers import attention_layers
from gt.masks import WideBatch

LONGEST = 512  # nodes; the attention analysis, which is quadratic, skips batches with larger graphs


@torch.no_grad()
def predictions(net: nn.Module, batches: Iterable[GraphBatch], limit: int) -> tuple[Tensor, Tensor]:
    """Predictions (rows, outputs) and targets of the first batches that have ``limit`` rows or more; on the CPU."""
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    rows = 0
    for batch in batches:
        if batch.y is None or rows >= limit:
            break
        outputs.append(predict(net, batch.to(_device(net))).float().cpu())
        targets.append(batch.y.cpu())
        rows += len(batch.y)
    return torch.cat(outputs), torch.cat(targets)


@dataclass(frozen=True)
class Reach:
    """The distribution of attention over hop distances.

    Attributes:
        layers: the name of each attention layer.
        share: for each layer (heads, max_hops + 2), the mean share of a node's attention that goes to nodes 0, 1, ...,
            ``max_hops`` hops away, and in the last entry to nodes that are further away, unreachable or virtual.
        even: (layers, max_hops + 2), the same for uniform attention under the mask.
    """

    layers: list[str]
    share: list[Tensor]
    even: Tensor

    def by_name(self) -> dict[str, float]:
        """Means over heads, named for loggers: ``attention/layer_0/hop_2``, ..., ``attention/layer_0/further``."""
        hops = [*(f"hop_{hop}" for hop in range(self.even.shape[1] - 1)), "further"]
        return {
            f"attention/layer_{layer}/{hop}": share
            for layer, shares in enumerate(self.share)
            for hop, share in zip(hops, shares.mean(0).tolist(), strict=True)
        }


@dataclass(frozen=True)
class Profile:
    """A learned attention bias as a function of distance.

    Attributes:
        layers: a label of the layers that use it.
        unit: of the distance, ``hops`` or ``positions``.
        score: (distances, heads) the bias at distance 0, 1, 2, ...
    """

    layers: str
    unit: str
    score: Tensor


@torch.no_grad()
def distance_profiles(net: nn.Module, max_distance: int = 8) -> list[Profile]:
    """Profiles up to ``max_distance`` of each layer with a hint, and of each distance bias that all layers share."""
    profiles = []
    for index, (_, layer) in enumerate(attention_layers(net)):
        if layer.hint is not None:
            last = max_distance if layer.hint.most is None else min(max_distance, layer.hint.most)
            distance = torch.arange(last + 1, device=_device(net))[:, None]
            by_position = layer.hint.positions  # source minus reader: negative, as readers look back
            score = layer.hint(-distance if by_position else distance)
            profiles.append(Profile(f"layer {index}", "positions" if by_position else "hops", score.float().cpu()))
    for encoding in net.modules():
        if isinstance(encoding, Distance) and encoding.heads is not None:
            score = encoding.table.weight[: min(max_distance, encoding.most) + 1].float().cpu()
            profiles.append(Profile("all layers", "hops", score))
    return profiles


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device


@contextmanager
def arguments_of(layers: Sequence[tuple[str, nn.Module]]) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
    """Record the arguments of every call of the given layers, by name, within the context.

    A forward pass calls a layer several times if it averages over redrawn random masks.
    """
    calls: dict[str, list[tuple[Any, ...]]] = {name: [] for name, _ in layers}

    def record(name: str) -> Any:
        return lambda module, args: calls[name].append(args)

    hooks = [layer.register_forward_pre_hook(record(name)) for name, layer in layers]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def attention_reach(net: nn.Module, batches: Iterable[GraphBatch], max_hops: int = 6) -> Reach | None:
    """The attention of each head by hop distance, over some batches; None for a network without attention."""
    layers = attention_layers(net)
    if not layers:
        return None
    share = [torch.zeros(layer.heads, max_hops + 2, dtype=torch.float64) for _, layer in layers]
    even = torch.zeros(len(layers), max_hops + 2, dtype=torch.float64)
    readers = 0
    for batch in batches:
        if batch.max_nodes > LONGEST:
            continue
        batch = batch.to(_device(net))
        with arguments_of(layers) as calls:
            net(batch)
        wide: GraphBatch = calls[layers[0][0]][0][1]
        distance = hop_matrix(wide, max_hops)  # virtual nodes are unreachable
        real = real_readers(wide)
        readers += batch.num_nodes
        for index, (name, layer) in enumerate(layers):
            layer_calls = calls[name]
            for arguments in layer_calls:
                allowed = arguments[2].dense & real
                weights = layer.weights(*arguments) * allowed  # excludes padding, virtual readers and masked pairs
                uniform = allowed / allowed.sum(-1, keepdim=True).clamp(min=1)
                share[index] += _by_distance(weights, distance, max_hops + 2).cpu() / len(layer_calls)
                even[index] += _by_distance(uniform, distance, max_hops + 2).mean(0).cpu() / len(layer_calls)
    if not readers:
        return None
    return Reach([name for name, _ in layers], [total / readers for total in share], even / readers)


def real_readers(batch: GraphBatch) -> Tensor:
    """(B, 1, L, 1) bool: rows of the padded layout that are real nodes, neither padding nor virtual."""
    real = torch.zeros(batch.num_nodes, dtype=torch.bool, device=batch.device)
    real[batch.real if isinstance(batch, WideBatch) else slice(None)] = True
    return batch.to_dense(real)[:, None, :, None]


def _by_distance(weights: Tensor, distance: Tensor, bins: int) -> Tensor:
    """(B, H, L, L) weights to (H, bins) totals by the distance (B, L, L) of each pair."""
    heads = weights.shape[1]
    high = torch.float32 if weights.device.type == "mps" else torch.float64  # which Apple's GPUs do not have
    flat = weights.transpose(0, 1).reshape(heads, -1).to(high)
    return flat.new_zeros(heads, bins).index_add(1, distance.reshape(-1), flat)
