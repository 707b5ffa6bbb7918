"""Which nodes an answer goes by: attention rollout, integrated gradients, occlusion; and whether that is so.

A node is hidden by setting what is embedded of its features to zero; its edges and its encodings stay.
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

Copies = Callable[[int], GraphBatch]  # a batch of so many copies of one graph
Answer = Callable[[Tensor], Tensor]  # of predictions for copies, (C,) the number that is explained
MOST_ROWS = 4_000  # nodes in a batch of copies


@contextmanager
def _embedding(net: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within, what a network embeds of the nodes' features (N, width) is changed."""
    hook = net.nodes.register_forward_hook(lambda module, inputs, embedded: change(embedded))
    try:
        yield
    finally:
        hook.remove()


def integrated_gradients(net: nn.Module, copies: Copies, answer: Answer, steps: int = 64) -> Tensor:
    """(n,) what each node adds to the answer on the way from hidden nodes to what they are (Sundararajan et al. 2017).

    They sum to the answer less that of a graph whose nodes are all hidden, to the error of ``steps`` points.
    """
    nodes = copies(1).num_nodes
    total = torch.zeros(nodes)
    shares = (torch.arange(steps) + 0.5) / steps
    for part in shares.split(max(1, MOST_ROWS // nodes)):
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
def with_hidden(net: nn.Module, copies: Copies, answer: Answer, hidden: Tensor) -> Tensor:
    """(C,) the answer where the nodes of each row of ``hidden``, (C, n) bool, are hidden."""
    answers = []
    for part in hidden.split(max(1, MOST_ROWS // hidden.shape[1])):
        with _embedding(net, partial(_shown, (~part).reshape(-1, 1))):
            answers.append(answer(net(copies(len(part)))).cpu())
    return torch.cat(answers)


def _shown(kept: Tensor, embedded: Tensor) -> Tensor:
    return embedded * kept.to(embedded)


def occlusion(net: nn.Module, copies: Copies, answer: Answer) -> Tensor:
    """(n,) by how much the answer falls where a node is hidden, each by itself."""
    nodes = copies(1).num_nodes
    hidden = torch.cat([torch.zeros(1, nodes, dtype=torch.bool), torch.eye(nodes, dtype=torch.bool)])
    answers = with_hidden(net, copies, answer, hidden)
    return answers[0] - answers[1:]


@torch.no_grad()
def edge_occlusion(net: nn.Module, copies: Copies, answer: Answer) -> tuple[Tensor, Tensor]:
    """The pairs of nodes that are joined (2, K), and by how much (K,) the answer falls where they are not.

    An edge and its reverse go together; masks that go by the graph are those of the graph without them.
    """
    one = copies(1)
    ends = one.edge_index.sort(0).values.cpu()
    pairs, of_edge = ends.unique(dim=1, return_inverse=True)
    count = pairs.shape[1]
    if not count:
        return pairs, torch.zeros(0)
    before, answers = answer(net(one)).cpu(), []
    for part in torch.arange(count).split(max(1, MOST_ROWS // one.num_nodes)):
        batch = copies(len(part))
        kept = (of_edge[None] != part[:, None]).reshape(-1).to(batch.device)
        attributes = None if batch.edge_attr is None else batch.edge_attr[kept]
        fewer = replace(batch, edge_index=batch.edge_index[:, kept], edge_attr=attributes, memo={})
        if WHOLE_DEGREES in batch.memo:  # of a part of a graph, which is to lack these edges alone
            had, have = (torch.stack([each.in_degree, each.out_degree]) for each in (batch, fewer))
            fewer.memo[WHOLE_DEGREES] = batch.memo[WHOLE_DEGREES] - (had - have)
        answers.append(answer(net(fewer)).cpu())
    return pairs, before - torch.cat(answers)


@torch.no_grad()
def attention_weights(net: nn.Module, batch: GraphBatch) -> list[tuple[str, Tensor]]:
    """For each attention layer its name and the weights (H, n, n) by which nodes of a single graph read each other.

    Virtual nodes come after the n of the data, in the weights too. Where random masks are redrawn it is the mean over
    the draws, as the prediction is.
    """
    layers = attention_layers(net)
    with arguments_of(layers) as seen:
        net(batch)
    weights = []
    for name, layer in layers:
        wide = seen[name][0][1]
        draws = [layer.weights(*arguments)[0].cpu() for arguments in seen[name]]
        of_all = sum(draws[1:], draws[0]) / len(draws)
        real = wide.real.cpu() if isinstance(wide, WideBatch) else torch.arange(batch.num_nodes)
        others = torch.ones(of_all.shape[-1], dtype=torch.bool).index_fill(0, real, False).nonzero()[:, 0]
        order = torch.cat([real, others])
        weights.append((name, of_all[:, order][:, :, order]))
    return weights


def rollout(weights: Sequence[tuple[str, Tensor]], nodes: int, reader: int | None = None) -> Tensor | None:
    """(n,) the share of each node in what flows to the last layer by attention and skips (Abnar & Zuidema 2020).

    Of heads the mean; half of what a layer leaves is what it found. Other layers are not seen. None without attention.

    Args:
        weights: see `attention_weights`.
        reader: the node that is looked at; None is the mean over all.
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
    """(points,) the answer as nodes are hidden in an order (n,), from none to all, in equal steps."""
    nodes = len(order)
    rank = torch.empty(nodes, dtype=torch.long).scatter(0, order, torch.arange(nodes))
    most = torch.linspace(0, nodes, points).round()
    return with_hidden(net, copies, answer, rank[None] < most[:, None])


def faithfulness(curve: Tensor, random: Tensor) -> float:
    """How much faster an answer falls by a ranking than by random ones; 0: no better than chance.

    The mean gap between the curves (points,) and (R, points), in units of what lies between the highest and the lowest
    of their points: an answer may end where it began, so what it falls by on the whole is no unit.
    """
    every = torch.cat([curve[None], random])
    span = float(every.max() - every.min())
    return float((random.mean(0) - curve).mean()) / span if span > 1e-12 else 0.0
