"""Heat kernel and resistance against NetworkX and SciPy, node by node, and models that read them."""

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
ENCODINGS = [HeatKernel((0.5, 3.0), ("x", "p")), Resistance(("x", "p"))]


def weighted_graph(graph):
    """The undirected NetworkX graph; edge weights count the repetitions in the more frequent direction."""
    count = np.zeros((graph.num_nodes, graph.num_nodes))
    for source, target in graph.edge_index.T.tolist():
        count[source, target] += source != target
    return nx.from_numpy_array(np.maximum(count, count.T))


def expected_heat(graph):
    laplacian = nx.normalized_laplacian_matrix(graph).toarray()
    return np.stack([expm(-t * laplacian) for t in (0.5, 3.0)], axis=-1)


def expected_resistances(graph):
    out = np.zeros((len(graph), len(graph), 3))
    for component in map(sorted, nx.connected_components(graph)):
        subgraph = graph.subgraph(component)
        inverse = np.linalg.pinv(nx.laplacian_matrix(subgraph, nodelist=component).toarray())
        volume = sum(dict(subgraph.degree(weight="weight")).values())
        for a, i in enumerate(component):
            for b, j in enumerate(component):
                r = nx.resistance_distance(subgraph, i, j, "weight", invert_weight=False) if i != j else 0.0
                out[i, j] = r, np.log1p(r * volume), inverse[a, b]
    return out


EXPECTED = dict(zip(ENCODINGS, (expected_heat, expected_resistances), strict=True))
each_encoding = pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: type(encoding).__name__)


@each_encoding
def test_pair_features_match_reference(encoding):
    batch, module = GraphBatch.from_data_list(GRAPHS), encoding.module(encoding.pair_channels, Schema())
    nn.init.eye_(module.of_p.weight)
    rows = module.pairs(Complete()(batch))
    expected = [EXPECTED[encoding](weighted_graph(graph)).reshape(-1, encoding.pair_channels) for graph in GRAPHS]
    np.testing.assert_allclose(rows.detach(), np.concatenate(expected), atol=2e-5)
    for mask in (Hops(1), Hops(1) | VirtualNodes(1)):
        augmented = with_virtual_nodes(batch, mask.virtual_nodes)
        masked_rows, (source, target) = module.pairs(mask(augmented)), mask(augmented).edges
        virtual = (
            torch.tensor([False]) if augmented is batch else torch.isin(mask(augmented).edges, augmented.virtual).any(0)
        )
        assert not masked_rows[virtual.expand(len(masked_rows))].any()
        real = source == target
        assert len(masked_rows[real & ~virtual.expand(len(masked_rows))]) == batch.num_nodes


@each_encoding
def test_node_features_match_reference(encoding):
    for graph, actual in zip(GRAPHS, per_graph(GRAPHS, encoding.compute(pack(GRAPHS))[encoding.name]), strict=True):
        undirected, reference = weighted_graph(graph), EXPECTED[encoding](weighted_graph(graph))
        for i in range(graph.num_nodes):
            component = sorted(nx.node_connected_component(undirected, i))
            rows = reference[i, component]
            expected = np.concatenate([rows.mean(0), rows.std(0), rows.min(0), rows.max(0)])
            np.testing.assert_allclose(
                actual[i], reference[i, i] if isinstance(encoding, HeatKernel) else expected, atol=2e-5
            )


def test_resistance_features_of_triangle():
    triangle = graph_of(3, [(0, 1), (1, 2), (0, 2)])
    resistance, commute, potential = Resistance().compute(pack([triangle]))["resistance"][0].reshape(4, 3).T
    np.testing.assert_allclose(resistance, [4 / 9, 2 * 2**0.5 / 9, 0, 2 / 3], atol=1e-6)
    np.testing.assert_allclose(commute[3], np.log1p(4), atol=1e-6)
    np.testing.assert_allclose(potential[3], 2 / 9, atol=1e-6)


@each_encoding
@torch.no_grad()
def test_model_is_batch_independent_and_permutation_invariant(encoding):
    torch.manual_seed(0)
    block = partial(ParallelBlock, attention=partial(Attention, heads=2, edges=True), norm=nn.LayerNorm)
    net = GraphTransformer(Schema((5, 5), outputs=3), 8, 2, block, Complete(), [encoding]).eval()
    order = np.random.default_rng(0).permutation(9)
    graphs = [GRAPHS[10], GRAPHS[0], GRAPHS[4]]
    x = torch.randint(0, 5, (17, 2))

    def predict(graphs, x):
        batch = batch_of(graphs, encoding)
        batch.x = x
        return net(batch)

    together = predict(graphs, x)
    alone = [predict([graph], part) for graph, part in zip(graphs, x.split([9, 1, 7]), strict=True)]
    torch.testing.assert_close(torch.cat(alone), together)
    permuted = torch.cat([x[:9][np.argsort(order)], x[9:]])
    torch.testing.assert_close(predict([relabelled(GRAPHS[10], order), *graphs[1:]], permuted), together)


def test_invalid_options_and_large_graphs_are_rejected(monkeypatch):
    for encoding, options in (
        (HeatKernel, {"times": [0.0]}),
        (HeatKernel, {"times": []}),
        (Resistance, {"writes": ["e"]}),
    ):
        with pytest.raises(UserError):
            encoding(**options)
    assert Resistance(("p",)).key() is None
    assert HeatKernel((1.0,)).key() != HeatKernel((2.0,)).key()
    monkeypatch.setattr(kernels, "MAX_NODES", 8)
    with pytest.raises(UserError, match="8 nodes, not 9"):
        HeatKernel().compute(pack(AWKWARD[:8]))
    with pytest.raises(UserError, match="8 nodes, not 9"):
        Resistance(("p",)).module(8, Schema()).pairs(Hops(1)(random_batch((9,))))


def test_resistance_of_tree_equals_distance():
    """A hub with 800 leaves and a chain of 300 nodes, whose eigenvalues span ten orders of magnitude."""
    tree = nx.star_graph(800)
    nx.add_path(tree, [0, *range(801, 1101)])
    features = Resistance().matrices(kernels.undirected(torch.from_numpy(nx.to_numpy_array(tree))[None]))[0]
    chain = torch.tensor([1, 0, *range(801, 1101)])
    torch.testing.assert_close(features[1, chain, 0], torch.arange(302.0, dtype=torch.float64), rtol=0, atol=1e-6)
    rows = Resistance().compute(pack([from_networkx(tree)]))["resistance"]
    assert rows[:, 9].max() == pytest.approx(301)  # from a leaf to the end of the chain
