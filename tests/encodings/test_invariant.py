"""SignNet and Projections: invariance to the sign and basis of eigenvectors, and values against loops."""

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


def rotated(batch, encoding, eigenspaces):
    """The same batch with random signs of the eigenvectors, or randomly rotated within each eigenspace."""
    vectors, values = (batch.extras[name].clone() for name in encoding.arrays)
    rng = np.random.default_rng(1)
    for low, high in zip(batch.ptr[:-1].tolist(), batch.ptr[1:].tolist(), strict=True):
        eigenvalues = values[low, ~values[low].isnan()]
        for value in eigenvalues.unique():
            members = ((eigenvalues - value).abs() < 1e-4).nonzero()[:, 0]
            if eigenspaces:
                rotation = torch.from_numpy(np.linalg.qr(rng.standard_normal((len(members), len(members))))[0]).float()
            else:
                rotation = torch.diag(torch.from_numpy(rng.choice([-1.0, 1.0], len(members)))).float()
            vectors[low:high, members] = vectors[low:high, members] @ rotation
    result = GraphBatch.from_data_list(GRAPHS)
    result.extras = dict(zip(encoding.arrays, (vectors, values), strict=True))
    return result


@pytest.mark.parametrize("training", [True, False])
def test_output_is_sign_invariant(training):
    for encoding in (SignNet(4, 8), Projections(4, 8)):
        batch = batch_of(GRAPHS, encoding)
        module = encoding.module(32, Schema()).train(training)
        assert not torch.equal(
            rotated(batch, encoding, False).extras[encoding.arrays[0]], batch.extras[encoding.arrays[0]]
        )
        torch.testing.assert_close(module.nodes(rotated(batch, encoding, False)), module.nodes(batch))
        assert module.nodes(batch).std(0).max() > 1e-3


def test_projections_are_basis_invariant():
    encoding = Projections(5, 8, writes=("x", "p"))
    batch, module = batch_of(GRAPHS, encoding), encoding.module(32, Schema())
    rotated_batch = rotated(batch, encoding, True)
    torch.testing.assert_close(module.nodes(rotated_batch), module.nodes(batch), atol=1e-5, rtol=1e-4)
    pairs = [module.pairs(Complete()(one)) for one in (rotated_batch, batch)]
    torch.testing.assert_close(*pairs, atol=1e-5, rtol=1e-4)
    signnet = SignNet(5, 8)
    module, batch = signnet.module(32, Schema()), batch_of(GRAPHS, signnet)
    assert not torch.allclose(module.nodes(rotated(batch, signnet, True)), module.nodes(batch), atol=1e-4)


def test_truncated_eigenspaces_are_dropped():
    for k, count in ((1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 6)):
        vectors = Projections(k).compute(pack([RING]))["projection_vectors"]
        assert (~np.isnan(vectors)).all(0).sum() == count
    expected = Laplacian(4).compute(pack(GRAPHS))["laplacian_vectors"]
    actual = Projections(4).compute(pack(GRAPHS))["projection_vectors"]
    kept = ~np.isnan(actual)
    np.testing.assert_array_equal(actual[kept], expected[kept])


@pytest.mark.parametrize("mask", [Complete(), Hops(1) | VirtualNodes(1)], ids=str)
def test_projections_match_loop_over_eigenvectors(mask):
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
    augmented = with_virtual_nodes(batch, mask.virtual_nodes)
    real = list(range(batch.num_nodes)) if augmented is batch else augmented.real.tolist()
    index = {node: n for n, node in enumerate(real)}
    expected = [
        module.rho["p"](entry(index[i], index[j]) if i in index and j in index else torch.zeros(16))
        for j, i in mask(augmented).edges.T.tolist()
    ]
    torch.testing.assert_close(module.pairs(mask(augmented)), torch.stack(expected))


def test_signnet_matches_equation():
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
def test_model_is_permutation_invariant():
    torch.manual_seed(0)
    block = partial(ParallelBlock, attention=partial(Attention, heads=2, edges=True), norm=nn.LayerNorm)
    encoding, order = Projections(3, 4, writes=("x", "p")), np.random.default_rng(0).permutation(6)
    net = GraphTransformer(Schema((5,), outputs=3), 8, 1, block, Complete(), [encoding]).eval()
    for graph in (RING, relabelled(RING, order)):
        batch = batch_of([graph, *AWKWARD[:5]], encoding)
        batch.x = torch.zeros(batch.num_nodes, 1, dtype=torch.long)
        if graph is RING:
            expected = net(batch)
    torch.testing.assert_close(net(batch), expected, atol=1e-5, rtol=1e-4)


def test_invalid_options_and_keys():
    with pytest.raises(UserError):
        Projections(writes=("e",))
    assert SignNet().key() == Laplacian().key()
    assert Projections().key() != Laplacian().key()
