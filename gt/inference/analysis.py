"""What a trained network does: its predictions, and how far away its attention looks."""

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

LONGEST = 512  # graphs above this are left out of the attention analysis: it looks at all pairs


@torch.no_grad()
def predictions(net: nn.Module, batches: Iterable[GraphBatch], most: int) -> tuple[Tensor, Tensor]:
    """Predictions (rows, outputs) and targets of the first batches, until there are ``most`` rows; on the CPU."""
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    rows = 0
    for batch in batches:
        if batch.y is None or rows >= most:
            break
        outputs.append(predict(net, batch.to(_device(net))).float().cpu())
        targets.append(batch.y.cpu())
        rows += len(batch.y)
    return torch.cat(outputs), torch.cat(targets)


@dataclass(frozen=True)
class Reach:
    """How far attention looks.

    Attributes:
        layers: the name of each attention layer.
        share: of each layer (heads, most + 2), the mean share of a node's attention that goes to nodes 0, 1, ...,
            ``most`` hops away, and in the last place to nodes further away, out of reach or virtual.
        even: (layers, most + 2), the same if each node read all that its mask allows alike.
    """

    layers: list[str]
    share: list[Tensor]
    even: Tensor

    def by_name(self) -> dict[str, float]:
        """Means over heads, as loggers are told: ``attention/layer_0/hop_2``, ..., ``attention/layer_0/further``."""
        hops = [*(f"hop_{hop}" for hop in range(self.even.shape[1] - 1)), "further"]
        return {
            f"attention/layer_{layer}/{hop}": share
            for layer, shares in enumerate(self.share)
            for hop, share in zip(hops, shares.mean(0).tolist(), strict=True)
        }


@dataclass(frozen=True)
class Profile:
    """What a network has learned to add to the scores of attention by distance alone.

    Attributes:
        where: the layers that it holds for.
        unit: of the distance, ``hops`` or ``positions``.
        score: (distances, heads) what is added at distance 0, 1, 2, ...
    """

    where: str
    unit: str
    score: Tensor


@torch.no_grad()
def distance_profiles(net: nn.Module, most: int = 8) -> list[Profile]:
    """One for each layer with a hint, and one for each bias by distance that all layers share; up to ``most`` away."""
    profiles = []
    for place, (_, layer) in enumerate(attention_layers(net)):
        if layer.hint is not None:
            far = most if layer.hint.most is None else min(most, layer.hint.most)
            distance = torch.arange(far + 1, device=_device(net))[:, None]
            by_position = layer.hint.positions  # that of the source less that of the reader, which looks back
            score = layer.hint(-distance if by_position else distance)
            profiles.append(Profile(f"layer {place}", "positions" if by_position else "hops", score.float().cpu()))
    for encoding in net.modules():
        if isinstance(encoding, Distance) and encoding.heads is not None:
            score = encoding.table.weight[: min(most, encoding.most) + 1].float().cpu()
            profiles.append(Profile("all layers", "hops", score))
    return profiles


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device


@contextmanager
def arguments_of(layers: Sequence[tuple[str, nn.Module]]) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
    """What each of these layers, by its name, is called with, while a network runs within: several times in one run
    where random masks are redrawn for a mean."""
    seen: dict[str, list[tuple[Any, ...]]] = {name: [] for name, _ in layers}

    def remember(name: str) -> Any:
        return lambda module, args: seen[name].append(args)

    hooks = [layer.register_forward_pre_hook(remember(name)) for name, layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def attention_reach(net: nn.Module, batches: Iterable[GraphBatch], most: int = 6) -> Reach | None:
    """Where each head's attention goes, by hop distance, over some batches; None for a network without attention."""
    layers = attention_layers(net)
    if not layers:
        return None
    share = [torch.zeros(layer.heads, most + 2, dtype=torch.float64) for _, layer in layers]
    even = torch.zeros(len(layers), most + 2, dtype=torch.float64)
    readers = 0
    for batch in batches:
        if batch.max_nodes > LONGEST:
            continue
        batch = batch.to(_device(net))
        with arguments_of(layers) as seen:
            net(batch)
        wide: GraphBatch = seen[layers[0][0]][0][1]
        distance = hop_matrix(wide, most)  # virtual nodes are out of reach
        real = real_readers(wide)
        readers += batch.num_nodes
        for place, (name, layer) in enumerate(layers):
            calls = seen[name]
            for arguments in calls:
                allowed = arguments[2].dense & real
                weights = layer.weights(*arguments) * allowed  # padding and masked rows count nothing
                alike = allowed / allowed.sum(-1, keepdim=True).clamp(min=1)
                share[place] += _by_distance(weights, distance, most + 2).cpu() / len(calls)
                even[place] += _by_distance(alike, distance, most + 2).mean(0).cpu() / len(calls)
    if not readers:
        return None
    return Reach([name for name, _ in layers], [each / readers for each in share], even / readers)


def real_readers(batch: GraphBatch) -> Tensor:
    """(B, 1, L, 1) bool: rows of the padded view that are nodes of the data, neither padding nor virtual."""
    real = torch.zeros(batch.num_nodes, dtype=torch.bool, device=batch.device)
    real[batch.real if isinstance(batch, WideBatch) else slice(None)] = True
    return batch.to_dense(real)[:, None, :, None]


def _by_distance(weights: Tensor, distance: Tensor, bins: int) -> Tensor:
    """(B, H, L, L) weights to (H, bins) totals by the distance (B, L, L) of each pair."""
    heads = weights.shape[1]
    flat = weights.transpose(0, 1).reshape(heads, -1).double()
    return flat.new_zeros(heads, bins).index_add(1, distance.reshape(-1), flat)
