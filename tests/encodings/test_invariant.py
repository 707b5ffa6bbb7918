"""Eigenvectors read without their signs, without their basis: against other choices, and loops."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from gt.encodings import Laplacian, Projections, SignNet
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.layers import Attention, ParallelBlock
from gt.masks import Complete, Hops, VirtualNodes, with_virtual_nodes
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.encodings.samples import AWKWARD, batch_of, graph_of, pack, relabelled

RING = graph_of(6, [(i, (i + 1) % 6) for i in range(6)])  # eigenvalues of multiplicity 1, 2, 2, 1
GRAPHS = [RING, *AWKWARD[:9]]


def turned(batch, encoding, within):
    """The same batch with other eigenvectors: each sign flipped at random, or turned within each eigenspace."""
    vectors, values = (batch.extras[name].clone() for name in encoding.arrays)
    rng = np.random.default_rng(1)
    for low, high in zip(batch.ptr[:-1].tolist(), batch.ptr[1:].tolist(), strict=True):
        known = values[low, ~values[low].isnan()]
        for value in known.unique():
            same = ((known - value).abs() < 1e-4).nonzero()[:, 0]
            if within:
                turn = torch.from_numpy(np.linalg.qr(rng.standard_normal((len(same), len(same))))[0]).float()
            else:
                turn = torch.diag(torch.from_numpy(rng.choice([-1.0, 1.0], len(same)))).float()
            vectors[low:high, same] = vectors[low:high, same] @ turn
    other = GraphBatch.from_data_list(GRAPHS)
    other.extras = dict(zip(encoding.arrays, (vectors, values), strict=True))
    return other


@pytest.mark.parametrize("training", [True, False])
def test_signs_mean_nothing(training):
    for encoding in (SignNet(4, 8), Projections(4, 8)):
        batch = batch_of(GRAPHS, encoding)
        module = encoding.module(32, Schema()).train(training)
        assert not torch.equal(
            turned(batch, encoding, False).extras[encoding.arrays[0]], batch.extras[encoding.arrays[0]]
        )
        torch.testing.assert_close(module.nodes(turned(batch, encoding, False)), module.nodes(batch))
        assert module.nodes(batch).std(0).max() > 1e-3


def test_the_basis_of_an_eigenspace_means_nothing_to_projections():
    encoding = Projections(5, 8, writes=("x", "p"))
    batch, module = batch_of(GRAPHS, encoding), encoding.module(32, Schema())
    other = turned(batch, encoding, True)
    torch.testing.assert_close(module.nodes(other), module.nodes(batch), atol=1e-5, rtol=1e-4)
    pairs = [module.pairs(Complete()(each)) for each in (other, batch)]
    torch.testing.assert_close(*pairs, atol=1e-5, rtol=1e-4)
    signed = SignNet(5, 8)
    module, batch = signed.module(32, Schema()), batch_of(GRAPHS, signed)
    assert not torch.allclose(module.nodes(turned(batch, signed, True)), module.nodes(batch), atol=1e-4)


def test_an_eigenspace_that_is_cut_is_left_out():
    for k, there in ((1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 6)):
        vectors = Projections(k).compute(pack([RING]))["projection_vectors"]
        assert (~np.isnan(vectors)).all(0).sum() == there
    whole = Laplacian(4).compute(pack(GRAPHS))["laplacian_vectors"]
    ours = Projections(4).compute(pack(GRAPHS))["projection_vectors"]
    kept = ~np.isnan(ours)
    np.testing.assert_array_equal(ours[kept], whole[kept])


@pytest.mark.parametrize("mask", [Complete(), Hops(1) | VirtualNodes(1)], ids=str)
def test_each_number_is_a_sum_over_eigenvectors(mask):
    encoding = Projections(4, 8, writes=("x", "p"))
    batch, module = batch_of(GRAPHS, encoding), encoding.module(32, Schema())
    vectors, values = (batch.extras[name] for name in encoding.arrays)

    def entry(i, j):
        terms = [
            module.phi(values[i, k, None]) * vectors[i, k] * vectors[j, k]
            for k in range(4)
            if not vectors[i, k].isnan()
        ]
        return sum(terms, torch.zeros(16))

    nodes = torch.stack([module.rho["x"](entry(i, i)) for i in range(batch.num_nodes)])
    torch.testing.assert_close(module.nodes(batch), nodes)
    wide = with_virtual_nodes(batch, mask.virtual_nodes)
    real = list(range(batch.num_nodes)) if wide is batch else wide.real.tolist()
    number = {node: n for n, node in enumerate(real)}
    expected = [
        module.rho["p"](entry(number[i], number[j]) if i in number and j in number else torch.zeros(16))
        for j, i in mask(wide).edges.T.tolist()
    ]
    torch.testing.assert_close(module.pairs(mask(wide)), torch.stack(expected))


def test_signnet_is_its_equation():
    encoding = SignNet(3, 8)
    batch, module = batch_of(GRAPHS, encoding), encoding.module(32, Schema())
    vectors, values = (batch.extras[name] for name in encoding.arrays)
    for i in range(batch.num_nodes):
        parts = []
        for k in range(3):
            v, value = vectors[i, k], values[i, k]
            both = [module.phi(torch.stack([sign * v, value])) for sign in (1, -1)]
            parts.append(torch.zeros(16) if v.isnan() else both[0] + both[1])
        torch.testing.assert_close(module.nodes(batch)[i], module.rho(torch.cat(parts)))


@torch.no_grad()
def test_whole_models_follow_a_renumbering():
    torch.manual_seed(0)
    block = partial(ParallelBlock, attention=partial(Attention, heads=2, edges=True), norm=nn.LayerNorm)
    encoding, order = Projections(3, 4, writes=("x", "p")), np.random.default_rng(0).permutation(6)
    net = GraphTransformer(Schema((5,), outputs=3), 8, 1, block, Complete(), [encoding]).eval()
    for first in (RING, relabelled(RING, order)):
        batch = batch_of([first, *AWKWARD[:5]], encoding)
        batch.x = torch.zeros(batch.num_nodes, 1, dtype=torch.long)
        if first is RING:
            expected = net(batch)
    torch.testing.assert_close(net(batch), expected, atol=1e-5, rtol=1e-4)


def test_options_are_checked():
    with pytest.raises(UserError):
        Projections(writes=("e",))
    assert SignNet().key() == Laplacian().key()
    assert Projections().key() != Laplacian().key()
