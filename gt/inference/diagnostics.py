"""What depth does to a network, layer by layer: do nodes grow alike, does attention spread, how far is an input felt?

The measures are functions of states, attention weights and a batch; `diagnose` takes them all of a network, by hooks.
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

LARGEST = 1 << 27  # attention weights of a layer and batch; of larger ones attention is not looked at


def dirichlet_energy(x: Tensor, batch: GraphBatch) -> Tensor:
    """(B,) how unlike the states (N, d) of joined nodes are, the size of the states aside: 0 if smooth, 2 at the most.

    ``sum_(i, j) |x_i / sqrt(1 + d_i) - x_j / sqrt(1 + d_j)|^2 / sum_i |x_i|^2``, over joined nodes i and j, each two
    once: the energy of Cai & Wang (2020) over the squared norm, a Rayleigh quotient of the Laplacian with self-loops.
    An edge that is stored in one direction alone counts half, in the degrees d too. NaN for a graph without edges.
    """
    source, target = batch.edge_index
    degree = (batch.in_degree + source.bincount(minlength=batch.num_nodes)) / 2
    scaled = x * (1 + degree.to(x.dtype)).rsqrt()[:, None]
    apart = (scaled[source] - scaled[target]).square().sum(1).double() / 2  # a pair stands there in both directions
    of_graph = batch.batch[target]
    energy = apart.new_zeros(batch.num_graphs).index_add(0, of_graph, apart)
    size = apart.new_zeros(batch.num_graphs).index_add(0, batch.batch, x.square().sum(1).double())
    return torch.where(of_graph.bincount(minlength=batch.num_graphs) > 0, energy / size, torch.nan)


def effective_rank(x: Tensor, batch: GraphBatch) -> Tensor:
    """(B,) the exponential of the entropy of the singular values of each graph's states (Roy & Vetterli 2007).

    The states are (N, d); the values are taken as shares of their sum. From 1, all states alike but for a factor, up to
    the smaller of d and the nodes of the graph; NaN where all are zero.
    """
    values = torch.linalg.svdvals(batch.to_dense(x).double())  # rows of padding add none
    return torch.special.entr(values / values.sum(1, keepdim=True)).sum(1).exp()


def attention_entropy(weights: Tensor, allowed: Tensor) -> Tensor:
    """(B, H, L) how evenly a node reads: 0 one node alone, 1 all that it may alike; NaN where that is less than two.

    The entropy of its attention over the logarithm of how many nodes it may read.

    Args:
        weights: (B, H, L, L) attention, [b, h, i, j] what i gives to j.
        allowed: (B, 1 or H, L, L) bool, who may read whom.
    """
    count = allowed.sum(-1)
    return torch.where(count > 1, torch.special.entr(weights).sum(-1) / count.clamp(min=2).log(), torch.nan)


def sink_mass(weights: Tensor, allowed: Tensor) -> Tensor:
    """(B, H) the share of all attention in a graph that goes to the node which gets most of it; NaN without readers.

    In text that is nearly always the first token, an attention sink (Xiao et al. 2023). The arguments are those of
    `attention_entropy`; the weights of whoever may read nobody are zeros.
    """
    return weights.sum(-2).amax(-1) / allowed.any(-1).sum(-1)


def sensitivity(
    states: Sequence[Tensor], inputs: Tensor, batch: GraphBatch, targets: Tensor, vectors: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """How much a node's state depends on the input of those 0, 1, ... hops away: Jacobians (Topping et al. 2022).

    A squared Frobenius norm ``|dh_i / dx_j|^2`` is the mean of ``|v dh_i / dx_j|^2`` over random v whose entries are
    uncorrelated, of mean 0 and variance 1. A pass takes one node i of each graph and one v for it, all graphs at once:
    one gradient for each layer.

    Args:
        states: of layers, each (N, d), with a graph of gradients back to the inputs.
        inputs: (N, f).
        targets: (S, T) the nodes i of S passes, in each one of every graph that has any, ascending.
        vectors: (S, T, d) the v of each.
        most: the largest distance told apart.

    Returns:
        squares: (layers, most + 2) float64, the sum of ``|v dh_i / dx_j|^2`` over all j that are 0, 1, ..., ``most``
            hops from their i, and in the last place those of its graph that are further or out of reach.
        pairs: (most + 2,) how many these are.
    """
    squares = torch.zeros(len(states), most + 2, dtype=torch.float64, device=inputs.device)
    pairs = torch.zeros(most + 2, dtype=torch.long, device=inputs.device)
    for nodes, drawn in zip(targets, vectors, strict=True):
        distance = torch.full((batch.num_nodes,), most + 1, device=inputs.device)
        keys, hops = hop_distances(batch, most, nodes)
        distance[keys % batch.num_nodes] = hops
        pairs += distance.bincount(minlength=most + 2)
        for place, state in enumerate(states):
            asked = torch.zeros_like(state).index_copy(0, nodes, drawn)
            (felt,) = torch.autograd.grad(state, inputs, asked, retain_graph=True, materialize_grads=True)
            squares[place].index_add_(0, distance, felt.square().sum(1).double())
    return squares, pairs


def diagnose(
    net: GraphTransformer, batches: Iterable[GraphBatch], most: int = 8, targets: int = 64, seed: int = 0
) -> pd.DataFrame:
    """All measures over some batches, a row for the embedded nodes and one for each layer, in order.

    Args:
        net: in evaluation mode.
        batches: without padding.
        most: the largest distance in hops that sensitivity tells apart.
        targets: nodes of each batch, or a few more, whose sensitivity is looked at; at least one of each graph.
        seed: what these are drawn from.

    Returns:
        Columns ``layer``; ``dirichlet_energy`` and ``effective_rank``, means over graphs; ``attention_entropy`` and
        ``sink_mass``, means over nodes and over graphs, of all heads and with ``_head_0``, ... of each;
        ``even_sink_mass``, were all that the mask allows read alike; ``sensitivity_0``, ... and
        ``sensitivity_further``, the root of the mean square over pairs so many hops apart of ``|dh_i / dx_j|``, h_i the
        state of a node, x_j the embedded features of another, before encodings. NaN where there is nothing to measure.
    """
    names = ["input", *map(str, range(len(net.blocks)))]
    values: dict[tuple[str, str], list[Tensor]] = defaultdict(list)  # by layer and column
    squares: Any = 0
    pairs: Any = 0
    draw = torch.Generator().manual_seed(seed)
    for batch in batches:
        batch = batch.to(next(net.parameters()).device)
        inputs, states, attention = _forward(net, batch)
        for name, state in zip(names, states, strict=True):
            values[name, "dirichlet_energy"].append(dirichlet_energy(state.detach(), batch))
            values[name, "effective_rank"].append(effective_rank(state.detach(), batch))
        for name, layer, arguments in attention:
            _of_attention(values, name, layer, arguments)
        first, size = batch.ptr[:-1][batch.sizes > 0].cpu(), batch.sizes[batch.sizes > 0].cpu()
        passes = -(-targets // len(first))
        nodes = first + (torch.rand(passes, len(first), generator=draw) * size).long()
        signs = 1.0 - 2 * torch.randint(2, (*nodes.shape, net.width), generator=draw)
        more = sensitivity(states, inputs, batch, nodes.to(batch.device), signs.to(states[0]), most)
        squares, pairs = squares + more[0], pairs + more[1]
    rows = [
        {"layer": name} | {column: _mean(each) for (of, column), each in values.items() if of == name} for name in names
    ]
    felt = pd.DataFrame((squares / pairs).sqrt().cpu().numpy())  # no pairs so far apart: NaN
    felt.columns = [f"sensitivity_{hops}" for hops in [*range(most + 1), "further"]]
    return pd.concat([pd.DataFrame(rows), felt], axis=1)


def _mean(values: Sequence[Tensor]) -> float:
    return float(torch.cat([each.flatten() for each in values]).nanmean())


def _forward(net: GraphTransformer, batch: GraphBatch) -> tuple[Tensor, list[Tensor], list[Any]]:
    """The embedded features (N, f), the states (N, d) before and after each block that hang on them, and attention.

    Of attention the name of the block, the layer and what it was called with, for each of its layers. Where random
    masks are redrawn all this is of the first draw.
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
        seen = hooks.enter_context(arguments_of([*layers, *(("first", block) for block in net.blocks[:1])]))
        net(batch)
    before, wide, _ = seen["first"][0]
    states = [before.x, *states[: len(net.blocks)]]
    if isinstance(wide, WideBatch):
        states = [state.index_select(0, wide.real) for state in states]
    return inputs[0], states, [(name.split(".")[1], layer, seen[name][0]) for name, layer in layers]


@torch.no_grad()
def _of_attention(values: Any, name: str, layer: Any, arguments: tuple[Any, ...]) -> None:
    """Add the measures of one layer of attention to those of its block."""
    _, batch, pairs = arguments
    if batch.num_graphs * layer.heads * batch.max_nodes**2 > LARGEST:
        return
    allowed = pairs.dense & real_readers(batch)
    weights = layer.weights(*arguments) * allowed
    values[name, "even_sink_mass"].append(sink_mass(allowed / allowed.sum(-1, keepdim=True).clamp(min=1), allowed))
    entropy, sink = attention_entropy(weights, allowed), sink_mass(weights, allowed)
    for column, each in (("attention_entropy", entropy), ("sink_mass", sink)):
        values[name, column].append(each)
        for head, of_head in enumerate(each.unbind(1)):
            values[name, f"{column}_head_{head}"].append(of_head)
