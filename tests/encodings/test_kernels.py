"""Heat and resistance against NetworkX and scipy, node by node, and what reads them."""

from functools import partial

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import nn
from torch_geometric.utils import from_networkx

from gt.encodings import HeatKernel, Resistance, kernels
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.layers import Attention, ParallelBlock
from gt.masks import Complete, Hops, VirtualNodes, with_virtual_nodes
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.encodings.samples import AWKWARD, batch_of, graph_of, pack, per_graph, random_directed, relabelled
from tests.graphs import random_batch

GRAPHS = [*AWKWARD[:10], random_directed(9, 14, seed=2), random_directed(8, 20, seed=1, simple=False)]
KINDS = [HeatKernel((0.5, 3.0), ("x", "p")), Resistance(("x", "p"))]


def weighted(graph):
    """The undirected NetworkX graph: an edge weighs as often as it is there, in its more frequent direction."""
    count = np.zeros((graph.num_nodes, graph.num_nodes))
    for source, target in graph.edge_index.T.tolist():
        count[source, target] += source != target
    return nx.from_numpy_array(np.maximum(count, count.T))


def heat(graph):
    laplacian = nx.normalized_laplacian_matrix(graph).toarray()
    return np.stack([expm(-t * laplacian) for t in (0.5, 3.0)], axis=-1)


def resistances(graph):
    out = np.zeros((len(graph), len(graph), 3))
    for part in map(sorted, nx.connected_components(graph)):
        inside = graph.subgraph(part)
        inverse = np.linalg.pinv(nx.laplacian_matrix(inside, nodelist=part).toarray())
        volume = sum(dict(inside.degree(weight="weight")).values())
        for a, i in enumerate(part):
            for b, j in enumerate(part):
                r = nx.resistance_distance(inside, i, j, "weight", invert_weight=False) if i != j else 0.0
                out[i, j] = r, np.log1p(r * volume), inverse[a, b]
    return out


TRUTH = dict(zip(KINDS, (heat, resistances), strict=True))
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)


@kinds
def test_pairs_are_those_of_each_graph(kind):
    batch, module = GraphBatch.from_data_list(GRAPHS), kind.module(kind.pair_channels, Schema())
    nn.init.eye_(module.of_p.weight)
    rows = module.pairs(Complete()(batch))
    expected = [TRUTH[kind](weighted(graph)).reshape(-1, kind.pair_channels) for graph in GRAPHS]
    np.testing.assert_allclose(rows.detach(), np.concatenate(expected), atol=2e-5)
    for mask in (Hops(1), Hops(1) | VirtualNodes(1)):
        wide = with_virtual_nodes(batch, mask.virtual_nodes)
        some, (source, target) = module.pairs(mask(wide)), mask(wide).edges
        virtual = torch.tensor([False]) if wide is batch else torch.isin(mask(wide).edges, wide.virtual).any(0)
        assert not some[virtual.expand(len(some))].any()
        real = source == target
        assert len(some[real & ~virtual.expand(len(some))]) == batch.num_nodes


@kinds
def test_nodes_are_those_of_each_graph(kind):
    for graph, found in zip(GRAPHS, per_graph(GRAPHS, kind.compute(pack(GRAPHS))[kind.name]), strict=True):
        whole, truth = weighted(graph), TRUTH[kind](weighted(graph))
        for i in range(graph.num_nodes):
            part = sorted(nx.node_connected_component(whole, i))
            rows = truth[i, part]
            expected = np.concatenate([rows.mean(0), rows.std(0), rows.min(0), rows.max(0)])
            np.testing.assert_allclose(found[i], truth[i, i] if isinstance(kind, HeatKernel) else expected, atol=2e-5)


def test_by_hand():
    triangle = graph_of(3, [(0, 1), (1, 2), (0, 2)])
    resistance, commute, potential = Resistance().compute(pack([triangle]))["resistance"][0].reshape(4, 3).T
    np.testing.assert_allclose(resistance, [4 / 9, 2 * 2**0.5 / 9, 0, 2 / 3], atol=1e-6)
    np.testing.assert_allclose(commute[3], np.log1p(4), atol=1e-6)
    np.testing.assert_allclose(potential[3], 2 / 9, atol=1e-6)


@kinds
@torch.no_grad()
def test_a_graph_alone_renumbered_and_in_a_batch(kind):
    torch.manual_seed(0)
    block = partial(ParallelBlock, attention=partial(Attention, heads=2, edges=True), norm=nn.LayerNorm)
    net = GraphTransformer(Schema((5, 5), outputs=3), 8, 2, block, Complete(), [kind]).eval()
    order = np.random.default_rng(0).permutation(9)
    graphs = [GRAPHS[10], GRAPHS[0], GRAPHS[4]]
    x = torch.randint(0, 5, (17, 2))

    def said(graphs, x):
        batch = batch_of(graphs, kind)
        batch.x = x
        return net(batch)

    together = said(graphs, x)
    alone = [said([graph], part) for graph, part in zip(graphs, x.split([9, 1, 7]), strict=True)]
    torch.testing.assert_close(torch.cat(alone), together)
    again = torch.cat([x[:9][np.argsort(order)], x[9:]])
    torch.testing.assert_close(said([relabelled(GRAPHS[10], order), *graphs[1:]], again), together)


def test_what_cannot_be_is_refused(monkeypatch):
    for make, options in ((HeatKernel, {"times": [0.0]}), (HeatKernel, {"times": []}), (Resistance, {"writes": ["e"]})):
        with pytest.raises(UserError):
            make(**options)
    assert Resistance(("p",)).key() is None
    assert HeatKernel((1.0,)).key() != HeatKernel((2.0,)).key()
    monkeypatch.setattr(kernels, "MAX_NODES", 8)
    with pytest.raises(UserError, match="8 nodes, not 9"):
        HeatKernel().compute(pack(AWKWARD[:8]))
    with pytest.raises(UserError, match="8 nodes, not 9"):
        Resistance(("p",)).module(8, Schema()).pairs(Hops(1)(random_batch((9,))))


def test_of_a_tree_the_resistance_is_the_distance_however_long_it_is():
    """A hub with 800 leaves and a chain of 300 nodes: its eigenvalues lie ten orders of magnitude apart."""
    tree = nx.star_graph(800)
    nx.add_path(tree, [0, *range(801, 1101)])
    every = Resistance().matrices(kernels.undirected(torch.from_numpy(nx.to_numpy_array(tree))[None]))[0]
    chain = torch.tensor([1, 0, *range(801, 1101)])
    torch.testing.assert_close(every[1, chain, 0], torch.arange(302.0, dtype=torch.float64), rtol=0, atol=1e-6)
    rows = Resistance().compute(pack([from_networkx(tree)]))["resistance"]
    assert rows[:, 9].max() == pytest.approx(301)  # from a leaf to the end of the chain
