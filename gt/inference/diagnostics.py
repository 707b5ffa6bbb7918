"""Diagnostics of depth, layer by layer: oversmoothing, attention entropy, sensitivity to distant inputs.

The measures are functions of states, attention weights and a batch; `diagnose` computes them for a network by hooks.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from gt.graph import GraphBatch
from gt.hops import hop_distances
from gt.inference.analysis import arguments_of, real_readers
from gt.layers import attention_layers
from gt.masks import WideBatch
from gt.model import GraphTransformer

MAX_WEIGHTS = 1 << 27  # attention weights of a layer and batch; larger ones are skipped


def dirichlet_energy(x: Tensor, batch: GraphBatch) -> Tensor:
    """(B,) how much the states (N, d) of adjacent nodes differ, regardless of scale: from 0, smooth, to 2.

    ``sum_(i, j) |x_i / sqrt(1 + d_i) - x_j / sqrt(1 + d_j)|^2 / sum_i |x_i|^2`` over unordered pairs of adjacent nodes:
    the energy of Cai & Wang (2020) over the squared norm, a Rayleigh quotient of the Laplacian with self-loops. An edge
    stored in only one direction counts half, in the degrees d too. NaN for a graph without edges.
    """
    source, target = batch.edge_index
    degree = (batch.in_degree + source.bincount(minlength=batch.num_nodes)) / 2
    scaled = x * (1 + degree.to(x.dtype)).rsqrt()[:, None]
    difference = (scaled[source] - scaled[target]).square().sum(1).double() / 2  # pairs occur in both directions
    graph = batch.batch[target]
    energy = difference.new_zeros(batch.num_graphs).index_add(0, graph, difference)
    norm = difference.new_zeros(batch.num_graphs).index_add(0, batch.batch, x.square().sum(1).double())
    return torch.where(graph.bincount(minlength=batch.num_graphs) > 0, energy / norm, torch.nan)


def effective_rank(x: Tensor, batch: GraphBatch) -> Tensor:
    """(B,) the exponential of the entropy of the singular values of each graph's states (Roy & Vetterli 2007).

    The states are (N, d), the singular values normalised to sum to 1. From 1, all states proportional, up to the
    smaller of d and the number of nodes; NaN if all states are zero.
    """
    values = torch.linalg.svdvals(batch.to_dense(x).double())  # padding adds only zeros
    return torch.special.entr(values / values.sum(1, keepdim=True)).sum(1).exp()


def attention_entropy(weights: Tensor, allowed: Tensor) -> Tensor:
    """(B, H, L) normalised entropy: 0 for attention to a single node, 1 for uniform attention.

    The entropy over the logarithm of the number of nodes that the mask allows; NaN if these are fewer than two.

    Args:
        weights: (B, H, L, L) attention, [b, h, i, j] the weight of j for reader i.
        allowed: (B, 1 or H, L, L) bool, the pairs that the mask allows.
    """
    count = allowed.sum(-1)
    return torch.where(count > 1, torch.special.entr(weights).sum(-1) / count.clamp(min=2).log(), torch.nan)


def sink_mass(weights: Tensor, allowed: Tensor) -> Tensor:
    """(B, H) the share of all attention in a graph that goes to the most attended node; NaN without readers.

    In text that is nearly always the first token, an attention sink (Xiao et al. 2023). The arguments are those of
    `attention_entropy`; nodes that may read nothing have zero weights.
    """
    return weights.sum(-2).amax(-1) / allowed.any(-1).sum(-1)


def sensitivity(
    states: Sequence[Tensor], inputs: Tensor, batch: GraphBatch, targets: Tensor, vectors: Tensor, max_hops: int
) -> tuple[Tensor, Tensor]:
    """Dependence of a node's state on inputs 0, 1, ... hops away: norms of Jacobians (Topping et al. 2022).

    The squared Frobenius norm ``|dh_i / dx_j|^2`` is the mean of ``|v dh_i / dx_j|^2`` over random v with uncorrelated
    entries of mean 0 and variance 1. One pass takes one node i of each graph with one v, for all graphs at once: one
    gradient per layer.

    Args:
        states: of layers, each (N, d), with an autograd graph back to the inputs.
        inputs: (N, f).
        targets: (S, T) the nodes i of S passes, one of every non-empty graph in each pass, ascending.
        vectors: (S, T, d) the v of each.
        max_hops: the largest distance with its own entry.

    Returns:
        squares: (layers, max_hops + 2) float64, the sums of ``|v dh_i / dx_j|^2`` over all j that are 0, 1, ...,
            ``max_hops`` hops from i, and in the last entry over those of its graph further away or unreachable.
        pairs: (max_hops + 2,) the number of pairs in each entry.
    """
    squares = torch.zeros(len(states), max_hops + 2, dtype=torch.float64, device=inputs.device)
    pairs = torch.zeros(max_hops + 2, dtype=torch.long, device=inputs.device)
    for nodes, vector in zip(targets, vectors, strict=True):
        distance = torch.full((batch.num_nodes,), max_hops + 1, device=inputs.device)
        keys, hops = hop_distances(batch, max_hops, nodes)
        distance[keys % batch.num_nodes] = hops
        pairs += distance.bincount(minlength=max_hops + 2)
        for index, state in enumerate(states):
            cotangent = torch.zeros_like(state).index_copy(0, nodes, vector)
            (grad,) = torch.autograd.grad(state, inputs, cotangent, retain_graph=True, materialize_grads=True)
            squares[index].index_add_(0, distance, grad.square().sum(1).double())
    return squares, pairs


def diagnose(
    net: GraphTransformer, batches: Iterable[GraphBatch], max_hops: int = 8, targets: int = 64, seed: int = 0
) -> pd.DataFrame:
    """All measures over some batches: a row for the embedded nodes, then one for each layer.

    Args:
        net: in evaluation mode.
        batches: without padding.
        max_hops: the largest distance in hops with its own sensitivity.
        targets: nodes of each batch, or a few more, whose sensitivity is measured; at least one of each graph.
        seed: for sampling these.

    Returns:
        Columns ``layer``; ``dirichlet_energy`` and ``effective_rank``, means over graphs; ``attention_entropy`` and
        ``sink_mass``, means over nodes and over graphs, of all heads and, with ``_head_0``, ..., of each;
        ``even_sink_mass``, that of uniform attention under the mask; ``sensitivity_0``, ... and
        ``sensitivity_further``, the root mean square of ``|dh_i / dx_j|`` over pairs that many hops apart, h_i the
        state of a node, x_j the embedded features of another, before encodings. NaN where there is nothing to measure.
    """
    names = ["input", *map(str, range(len(net.blocks)))]
    values: dict[tuple[str, str], list[Tensor]] = defaultdict(list)  # by layer and column
    squares: Any = 0
    pairs: Any = 0
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        batch = batch.to(next(net.parameters()).device)
        inputs, states, attention = _forward(net, batch)
        for name, state in zip(names, states, strict=True):
            values[name, "dirichlet_energy"].append(dirichlet_energy(state.detach(), batch))
            values[name, "effective_rank"].append(effective_rank(state.detach(), batch))
        for name, layer, arguments in attention:
            _add_attention_measures(values, name, layer, arguments)
        first, size = batch.ptr[:-1][batch.sizes > 0].cpu(), batch.sizes[batch.sizes > 0].cpu()
        passes = -(-targets // len(first))
        nodes = first + (torch.rand(passes, len(first), generator=generator) * size).long()
        signs = 1.0 - 2 * torch.randint(2, (*nodes.shape, net.width), generator=generator)
        sums = sensitivity(states, inputs, batch, nodes.to(batch.device), signs.to(states[0]), max_hops)
        squares, pairs = squares + sums[0], pairs + sums[1]
    rows = [
        {"layer": name} | {column: _mean(parts) for (of, column), parts in values.items() if of == name}
        for name in names
    ]
    sensitivities = pd.DataFrame((squares / pairs).sqrt().cpu().numpy())  # NaN without pairs at a distance
    sensitivities.columns = [f"sensitivity_{hops}" for hops in [*range(max_hops + 1), "further"]]
    return pd.concat([pd.DataFrame(rows), sensitivities], axis=1)


def _mean(values: Sequence[Tensor]) -> float:
    return float(torch.cat([part.flatten() for part in values]).nanmean())


def _forward(net: GraphTransformer, batch: GraphBatch) -> tuple[Tensor, list[Tensor], list[Any]]:
    """The embedded features (N, f), the differentiable states (N, d) before and after each block, and attention.

    For each attention layer: the name of its block, the layer, and its arguments. If random masks are redrawn, all this
    is from the first draw.
    """
    layers = attention_layers(net)
    inputs: list[Tensor] = []
    states: list[Tensor] = []

    def leaf(module: Any, args: Any, out: Tensor) -> Tensor:
        inputs.append(out.detach().requires_grad_())
        return inputs[0]

    with ExitStack() as hooks, torch.enable_grad():
        hooks.enter_context(net.nodes.register_forward_hook(leaf))
        for block in net.blocks:
            hooks.enter_context(block.register_forward_hook(lambda module, args, out: states.append(out.x)))
        calls = hooks.enter_context(arguments_of([*layers, *(("first", block) for block in net.blocks[:1])]))
        net(batch)
    before, wide, _ = calls["first"][0]
    states = [before.x, *states[: len(net.blocks)]]
    if isinstance(wide, WideBatch):
        states = [state.index_select(0, wide.real) for state in states]
    return inputs[0], states, [(name.split(".")[1], layer, calls[name][0]) for name, layer in layers]


@torch.no_grad()
def _add_attention_measures(values: Any, name: str, layer: Any, arguments: tuple[Any, ...]) -> None:
    """Add the measures of one attention layer to those of its block."""
    _, batch, pairs = arguments
    if batch.num_graphs * layer.heads * batch.max_nodes**2 > MAX_WEIGHTS:
        return
    allowed = pairs.dense & real_readers(batch)
    weights = layer.weights(*arguments) * allowed
    values[name, "even_sink_mass"].append(sink_mass(allowed / allowed.sum(-1, keepdim=True).clamp(min=1), allowed))
    entropy, sink = attention_entropy(weights, allowed), sink_mass(weights, allowed)
    for column, measure in (("attention_entropy", entropy), ("sink_mass", sink)):
        values[name, column].append(measure)
        for head, head_measure in enumerate(measure.unbind(1)):
            values[name, f"{column}_head_{head}"].append(head_measure)
