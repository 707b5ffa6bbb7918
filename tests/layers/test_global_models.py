"""SGFormer, Polynormer, SAT, NAGphormer and TokenGT, each against its equations, graph by graph."""

from functools import partial

import pytest
import torch
from torch import nn

from gt.errors import UserError
from gt.graph import path_graphs
from gt.layers import (
    GCN,
    GINE,
    Attention,
    ConvolutionBlock,
    FeedForward,
    NAGphormerBlock,
    ParallelBlock,
    PolynormerBlock,
    SGFormerBlock,
    SimpleAttention,
    State,
    StructureAwareAttention,
    TokenGTBlock,
)
from gt.masks import Complete, Hops, Window
from tests.graphs import SIZES, random_batch

WIDTH = 8
every_size = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
block = partial(ParallelBlock, attention=partial(Attention, heads=2), feed_forward=FeedForward, norm=nn.LayerNorm)


def random_layer(kind, **options):
    torch.manual_seed(0)
    layer = kind(WIDTH, **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def random_state(batch):
    generator = torch.Generator().manual_seed(1)
    x, e = (torch.randn(n, WIDTH, generator=generator).double() for n in (batch.num_nodes, batch.num_edges))
    return State(x.requires_grad_(), e.requires_grad_())


def split_graphs(batch, state):
    """Yield each graph: its number, node and edge states, edges (2, E) counted from 0, and its first node."""
    for b, (start, end) in enumerate(zip(batch.ptr[:-1].tolist(), batch.ptr[1:].tolist(), strict=True)):
        in_graph = batch.batch[batch.edge_index[1]] == b
        edges = batch.edge_index[:, in_graph] - start
        yield b, state.x[start:end], state.e[in_graph], edges, start


def normalised_adjacency(edges, nodes):
    """The symmetrically normalised adjacency matrix of a GCN, with self-loops."""
    a = torch.eye(nodes, dtype=torch.float64)
    a[edges[1], edges[0]] = 1.0
    return a / (a.sum(1)[:, None] * a.sum(1)[None]).sqrt()


def assert_matches(layer, batch, reference, mask=Complete()):  # noqa: B008
    """Assert equal values, and equal gradients of nodes and every parameter."""
    state = random_state(batch)
    out = layer(state, batch, mask(batch))
    ours = out.x if isinstance(out, State) else out["x"]
    expected = torch.cat([reference(*each) for each in split_graphs(batch, state)])
    torch.testing.assert_close(ours, expected)
    weights, leaves = torch.randn_like(ours), [state.x, *layer.parameters()]
    gradients = [torch.autograd.grad((each * weights).sum(), leaves, allow_unused=True) for each in (ours, expected)]
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def reference_simple_attention(layer, x):
    """SGFormer's attention on one graph, with matrices of all pairs."""
    out = []
    rows = layer.project_in(x).view(len(x), 3, layer.heads, WIDTH).permute(1, 2, 0, 3)
    norm_q, norm_k = rows[0].norm(), rows[1].norm()
    for q, k, v in zip(*rows, strict=True):
        weights = (q / norm_q) @ (k / norm_k).T / len(x)
        out.append((v + weights @ v) / (1 + weights.sum(1, keepdim=True)))
    return sum(out) / layer.heads


@pytest.mark.parametrize("heads", [1, 2])
@every_size
def test_simple_attention(sizes, heads):
    layer = random_layer(SimpleAttention, heads=heads)
    assert_matches(layer, random_batch(sizes), lambda b, x, e, edges, start: reference_simple_attention(layer, x))


@every_size
def test_sgformer(sizes):
    convolution = partial(ConvolutionBlock, local=GCN)
    layer = random_layer(SGFormerBlock, convolution=convolution, layers=2, weight=0.7, mix=0.4)

    def reference(b, x, e, edges, start):
        local, a = x, normalised_adjacency(edges, len(x))
        for each in layer.convolutions:
            local = local + each.local.linear(a @ local).relu()
        return 0.7 * local + 0.3 * layer.norm(0.4 * reference_simple_attention(layer.attention, x) + 0.6 * x)

    assert_matches(layer, random_batch(sizes, directed=False), reference)


@every_size
def test_polynormer(sizes):
    layer = random_layer(PolynormerBlock, local=GCN, local_layers=2, global_layers=2, heads=2)

    def reference(b, x, e, edges, start):
        total, a = 0, normalised_adjacency(edges, len(x))
        for i in range(2):
            z = (layer.local[i].linear(a @ x) + layer.maps[i](x)).relu()
            share = layer.logits[i].sigmoid()
            x = (1 - share) * layer.local_norms[i](layer.gates[i](x).relu() * z) + share * z
            total = total + x
        x = layer.norm(total)
        for attention in layer.attention:
            read = []
            for key, v in zip(attention.key(x).sigmoid().split(4, 1), attention.value(x).split(4, 1), strict=True):
                weights = key @ key.T
                read.append(weights / weights.sum(1, keepdim=True) @ v)
            gate = attention.gate(x) + attention.logit.sigmoid()
            x = layer.project_out(attention.norm(torch.cat(read, dim=1)) * gate).relu()
        return x

    assert_matches(layer, random_batch(sizes, directed=False), reference)


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("mask", [Complete(), Hops(1)], ids=str)
@every_size
def test_sat(sizes, mask, backend):
    layer = random_layer(StructureAwareAttention, local=GINE, hops=2, heads=2, backend=backend).eval()
    batch = random_batch(sizes)

    def reference(b, x, e, edges, start):
        rows = [x]
        for local in layer.local:
            read = torch.zeros_like(x).index_add(0, edges[1], (rows[-1][edges[0]] + e).relu())
            rows.append(local.mlp(rows[-1] + read).relu())
        structure = layer.merge(layer.norm(torch.cat(rows, dim=1)))
        weight, bias = layer.project_in.weight.split(WIDTH), layer.project_in.bias.split(WIDTH)
        q, k, v = (rows @ w.T + c for rows, w, c in zip((structure, structure, x), weight, bias, strict=True))
        allowed = mask(batch).dense[b, 0, : len(x), : len(x)]
        read = []
        for h in (slice(4), slice(4, 8)):
            scores = (q[:, h] @ k[:, h].T / 2).masked_fill(~allowed, -torch.inf)
            read.append(scores.softmax(1) @ v[:, h])
        return layer.project_out(torch.cat(read, dim=1))

    assert_matches(layer, batch, reference, mask)


@every_size
def test_nagphormer(sizes):
    layer = random_layer(NAGphormerBlock, block=block, hops=3, depth=2)

    def reference(b, x, e, edges, start):
        a, out = normalised_adjacency(edges, len(x)), []
        for i in range(len(x)):
            tokens = torch.stack([(torch.linalg.matrix_power(a, k) @ x)[i] for k in range(4)])
            state, sequence = State(tokens), path_graphs([4])
            for each in layer.blocks:
                state = each(state, sequence, Complete()(sequence))
            rows = layer.norm(state.x)
            scores = torch.stack([layer.score(torch.cat([rows[0], rows[k]])) for k in (1, 2, 3)])
            out.append(rows[0] + (scores.softmax(0) * rows[1:]).sum(0))
        return torch.stack(out)

    assert_matches(layer, random_batch(sizes, directed=False), reference)


@every_size
def test_tokengt(sizes):
    layer, batch = random_layer(TokenGTBlock, block=block, depth=2, identifiers=3).eval(), random_batch(sizes)
    batch.extras["laplacian_vectors"] = torch.randn(batch.num_nodes, 3).double()
    batch.extras["laplacian_vectors"][0, 2] = torch.nan

    def reference(b, x, e, edges, start):
        p = batch.extras["laplacian_vectors"][start : start + len(x)].nan_to_num(0.0)
        tokens = [layer.embed(torch.cat([x[v], p[v], p[v]])) + layer.kinds[0] for v in range(len(x))]
        for (u, v), features in zip(edges.T.tolist(), e, strict=True):
            tokens.append(layer.embed(torch.cat([features, p[u], p[v]])) + layer.kinds[1])
        state, sequence = State(torch.stack(tokens)), path_graphs([len(tokens)])
        for each in layer.blocks:
            state = each(state, sequence, Complete()(sequence))
        return state.x[: len(x)]

    assert_matches(layer, batch, reference)


def test_identifiers_are_orthonormal_up_to_the_channel_count():
    layer, batch = random_layer(TokenGTBlock, block=block, identifiers=5, laplacian=False), path_graphs([5, 1, 9])
    first, single, many = layer._orthonormal(batch).split([5, 1, 9])
    for rows in (first, single, many[:5]):
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)))
    torch.testing.assert_close(many.norm(dim=1), torch.ones(9))
    assert not torch.equal(layer._orthonormal(batch)[:5], first)


LAYERS = {
    "SimpleAttention": SimpleAttention,
    "PolynomialAttention": partial(PolynormerBlock, local=GCN),
    "NAGphormer": partial(NAGphormerBlock, block=block),
    "TokenGT": partial(TokenGTBlock, block=block),
}


@pytest.mark.parametrize("name", LAYERS)
def test_unsupported_masks_are_rejected(name):
    batch = path_graphs([3])
    with pytest.raises(UserError, match=rf"{name} .*Window"):
        LAYERS[name](8)(State(torch.randn(3, 8)), batch, Window(1)(batch))
