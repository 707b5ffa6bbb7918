"""Attribution of an output to nodes by attention rollout, integrated gradients and occlusion, and their faithfulness.

A node is hidden by zeroing the embedding of its features; its edges and encodings stay.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gt.graph import WHOLE_DEGREES, GraphBatch
from gt.inference.analysis import arguments_of
from gt.layers import attention_layers
from gt.masks import WideBatch

Copies = Callable[[int], GraphBatch]  # builds a batch of this many copies of one graph
Answer = Callable[[Tensor], Tensor]  # extracts the explained numbers (C,) from the predictions for C copies
MAX_ROWS = 4_000  # nodes in a batch of copies


@contextmanager
def _embedding(net: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the context, apply a function to the embedded node features (N, width) of a network."""
    hook = net.nodes.register_forward_hook(lambda module, inputs, embedded: change(embedded))
    try:
        yield
    finally:
        hook.remove()


def integrated_gradients(net: nn.Module, copies: Copies, answer: Answer, steps: int = 64) -> Tensor:
    """(n,) the contribution of each node along the path from all nodes hidden to none (Sundararajan et al. 2017).

    They sum to the answer minus that with all nodes hidden, up to the discretisation error of ``steps`` points.
    """
    nodes = copies(1).num_nodes
    total = torch.zeros(nodes)
    shares = (torch.arange(steps) + 0.5) / steps
    for part in shares.split(max(1, MAX_ROWS // nodes)):
        leaves: list[Tensor] = []

        def scaled(embedded: Tensor, part: Tensor = part, leaves: list[Tensor] = leaves) -> Tensor:
            full = embedded.detach()
            leaf = (full * part.to(full).repeat_interleave(nodes)[:, None]).requires_grad_()
            leaves += [full, leaf]
            return leaf

        with torch.enable_grad(), _embedding(net, scaled):
            value = answer(net(copies(len(part)))).sum()
            (slope,) = torch.autograd.grad(value, leaves[1])
        total += (leaves[0] * slope).sum(1).view(len(part), nodes).sum(0).cpu() / steps
    return total


@torch.no_grad()
def answers_with_hidden(net: nn.Module, copies: Copies, answer: Answer, hidden: Tensor) -> Tensor:
    """(C,) the answers with the nodes in each row of ``hidden``, (C, n) bool, hidden."""
    answers = []
    for part in hidden.split(max(1, MAX_ROWS // hidden.shape[1])):
        with _embedding(net, partial(_keep, (~part).reshape(-1, 1))):
            answers.append(answer(net(copies(len(part)))).cpu())
    return torch.cat(answers)


def _keep(kept: Tensor, embedded: Tensor) -> Tensor:
    return embedded * kept.to(embedded)


def occlusion(net: nn.Module, copies: Copies, answer: Answer) -> Tensor:
    """(n,) the decrease of the answer when each node is hidden by itself."""
    nodes = copies(1).num_nodes
    hidden = torch.cat([torch.zeros(1, nodes, dtype=torch.bool), torch.eye(nodes, dtype=torch.bool)])
    answers = answers_with_hidden(net, copies, answer, hidden)
    return answers[0] - answers[1:]


@torch.no_grad()
def edge_occlusion(net: nn.Module, copies: Copies, answer: Answer) -> tuple[Tensor, Tensor]:
    """The adjacent pairs of nodes (2, K), and the decrease (K,) of the answer when their edges are removed.

    An edge and its reverse are removed together; masks that depend on the graph are those of the remaining graph.
    """
    one = copies(1)
    ends = one.edge_index.sort(0).values.cpu()
    pairs, pair_of_edge = ends.unique(dim=1, return_inverse=True)
    count = pairs.shape[1]
    if not count:
        return pairs, torch.zeros(0)
    baseline, answers = answer(net(one)).cpu(), []
    for part in torch.arange(count).split(max(1, MAX_ROWS // one.num_nodes)):
        batch = copies(len(part))
        kept = (pair_of_edge[None] != part[:, None]).reshape(-1).to(batch.device)
        attributes = None if batch.edge_attr is None else batch.edge_attr[kept]
        fewer = replace(batch, edge_index=batch.edge_index[:, kept], edge_attr=attributes, memo={})
        if WHOLE_DEGREES in batch.memo:  # part of a larger graph: subtract only the removed edges
            old, new = (torch.stack([b.in_degree, b.out_degree]) for b in (batch, fewer))
            fewer.memo[WHOLE_DEGREES] = batch.memo[WHOLE_DEGREES] - (old - new)
        answers.append(answer(net(fewer)).cpu())
    return pairs, baseline - torch.cat(answers)


@torch.no_grad()
def attention_weights(net: nn.Module, batch: GraphBatch) -> list[tuple[str, Tensor]]:
    """The name and the attention weights (H, n, n) of each attention layer, for a batch of a single graph.

    Virtual nodes come after the real ones. If random masks are redrawn, the weights are the mean over the draws, as is
    the prediction.
    """
    layers = attention_layers(net)
    with arguments_of(layers) as calls:
        net(batch)
    weights = []
    for name, layer in layers:
        wide = calls[name][0][1]
        draws = [layer.weights(*arguments)[0].cpu() for arguments in calls[name]]
        mean = sum(draws[1:], draws[0]) / len(draws)
        real = wide.real.cpu() if isinstance(wide, WideBatch) else torch.arange(batch.num_nodes)
        virtual = torch.ones(mean.shape[-1], dtype=torch.bool).index_fill(0, real, False).nonzero()[:, 0]
        order = torch.cat([real, virtual])
        weights.append((name, mean[:, order][:, :, order]))
    return weights


def rollout(weights: Sequence[tuple[str, Tensor]], nodes: int, reader: int | None = None) -> Tensor | None:
    """(n,) the share of each node in the attention flow to the last layer (attention rollout, Abnar & Zuidema 2020).

    Heads are averaged, and half of the output of a layer is its skip connection. Other layers are ignored. None without
    attention.

    Args:
        weights: see `attention_weights`.
        reader: the node to explain; None averages over all nodes.
    """
    if not weights:
        return None
    flow = torch.eye(weights[0][1].shape[-1], dtype=torch.float64)
    for _, layer in weights:
        mixed = layer.double().mean(0) + torch.eye(len(flow), dtype=torch.float64)
        flow = mixed / mixed.sum(1, keepdim=True) @ flow
    rows = flow[:nodes, :nodes]
    return (rows.mean(0) if reader is None else rows[reader]).float()


def deletion(net: nn.Module, copies: Copies, answer: Answer, order: Tensor, points: int = 11) -> Tensor:
    """(points,) the deletion curve: the answer as nodes are hidden in order (n,), from none to all, in equal steps."""
    nodes = len(order)
    rank = torch.empty(nodes, dtype=torch.long).scatter(0, order, torch.arange(nodes))
    counts = torch.linspace(0, nodes, points).round()
    return answers_with_hidden(net, copies, answer, rank[None] < counts[:, None])


def faithfulness(curve: Tensor, random: Tensor) -> float:
    """How much faster the answer drops for a ranking than for random ones; 0: no better than chance.

    The mean gap between the deletion curves (points,) and (R, points), relative to the range of all their points: the
    total drop would be no usable unit, as it may be zero.
    """
    curves = torch.cat([curve[None], random])
    span = float(curves.max() - curves.min())
    return float((random.mean(0) - curve).mean()) / span if span > 1e-12 else 0.0
