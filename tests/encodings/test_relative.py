"""Relative random walks against explicit walks, and models that read them."""

from functools import partial

import pytest
import torch
from torch import nn

from gt.encodings import RelativeWalks
from gt.errors import UserError
from gt.graph import GraphBatch, path_graphs
from gt.inference.decode import obstacle
from gt.inference.whole_graph import predict_chunks
from gt.layers import GINE, Attention, FeedForward, ParallelBlock
from gt.masks import Causal, Complete, Hops, VirtualNodes, with_virtual_nodes
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.encodings.samples import AWKWARD, random_directed
from tests.graphs import random_batch

DIRECTED = [random_directed(n, 3 * n, seed=n, simple=False) for n in (1, 4, 20)]


def walk_probabilities(batch: GraphBatch, steps: int) -> dict[tuple[int, int], torch.Tensor]:
    """Probabilities (steps,) of reaching each source from each reader of the same graph, by explicit walks."""
    probabilities = {}
    for graph in range(batch.num_graphs):
        for reader in range(int(batch.ptr[graph]), int(batch.ptr[graph + 1])):
            current = {reader: 1.0}
            for step in range(steps):
                for node, probability in current.items():
                    probabilities.setdefault((reader, node), torch.zeros(steps))[step] = probability
                following = {}
                for node, probability in current.items():
                    sources = [s for s, t in batch.edge_index.T.tolist() if t == node]
                    for source in sources:
                        following[source] = following.get(source, 0.0) + probability / len(sources)
                current = following
    return probabilities


@pytest.mark.parametrize("graphs", [AWKWARD[:9], DIRECTED], ids=["undirected", "directed"])
def test_node_edge_and_pair_features_match_walks(graphs):
    batch = GraphBatch.from_data_list(graphs)
    module, probabilities = RelativeWalks(5, ("x", "e", "p")).module(5, Schema()), walk_probabilities(batch, 5)
    for linear in module.maps.values():
        nn.init.eye_(linear.weight)

    def expected(source, target):
        pairs = zip(target.tolist(), source.tolist(), strict=True)
        return torch.stack([probabilities.get(pair, torch.zeros(5)) for pair in pairs])

    node = torch.arange(batch.num_nodes)
    torch.testing.assert_close(module.nodes(batch), expected(node, node))
    torch.testing.assert_close(module.edges(batch), expected(*batch.edge_index))
    for mask in (Complete(), Hops(1), Causal()):
        torch.testing.assert_close(module.pairs(mask(batch)), expected(*mask(batch).edges))
    augmented, mask = with_virtual_nodes(batch, 1), Hops(1) | VirtualNodes(1)
    source, target = mask(augmented).edges
    real = torch.full((augmented.num_nodes,), -1).index_copy(0, augmented.real, node)
    torch.testing.assert_close(
        module.pairs(mask(augmented))[:, 1:],
        expected(real[source], real[target])[:, 1:],
        msg="virtual nodes take no part in walks",
    )


def network(writes=("x", "e", "p"), mask=Complete(), edges=True, schema=None, local=GINE):  # noqa: B008
    torch.manual_seed(0)
    block = partial(
        ParallelBlock,
        local=local,
        attention=partial(Attention, heads=2, edges=edges, edge_values=edges),
        feed_forward=FeedForward,
        norm=nn.LayerNorm,
    )
    schema = schema or Schema((5, 5), edge_vocab=(3,), outputs=3)
    return GraphTransformer(schema, 8, 2, block, mask, [RelativeWalks(4, writes)]).eval()


@pytest.mark.parametrize("mask", [Complete(), [Hops(1), Complete()], Hops(1) | VirtualNodes(1)], ids=str)
@torch.no_grad()
def test_output_does_not_depend_on_the_batch(mask):
    net, batch = network(mask=mask), random_batch((7, 1, 4))
    alone = torch.cat([net(GraphBatch.from_data_list([graph])) for graph in batch.to_data_list()])
    torch.testing.assert_close(net(batch), alone)


@pytest.mark.parametrize("stream", ["x", "e", "p"])
def test_each_stream_affects_output_and_has_gradients(stream):
    net, batch = network((stream,)), random_batch((7, 4))
    before = net(batch)
    before.square().sum().backward()
    (weight,) = net.encodings.parameters()
    assert weight.grad.abs().sum() > 0
    with torch.no_grad():
        weight.zero_()
        assert not torch.allclose(net(batch), before)


def test_encoding_supplies_edge_features_to_featureless_edges():
    net = network(("e",), schema=Schema((5, 5), outputs=3))
    net(random_batch((7, 4))).square().sum().backward()
    assert all(p.grad is not None for p in net.encodings.parameters())


@pytest.mark.parametrize(
    ("options", "stream"), [({"edges": False}, "pairs"), ({"edges": False, "local": None}, "edges")]
)
def test_features_that_no_layer_reads_are_rejected(options, stream):
    with pytest.raises(ValueError, match=f"RelativeWalks adds features to {stream}"):
        network(**options)


def test_chunked_inference_and_decoding_are_rejected():
    net = network(schema=Schema((5, 5), edge_vocab=(3,), level="node", outputs=3))
    with pytest.raises(UserError, match="RelativeWalks"):
        predict_chunks(net, random_batch((9,)), 3)
    text = network(("x",), edges=False, local=None, schema=Schema((5,), level="node", outputs=5), mask=Causal())
    assert "RelativeWalks" in str(obstacle(text))


def test_walks_are_computed_in_full_precision_under_autocast():
    batch, autocast_batch = GraphBatch.from_data_list(DIRECTED), GraphBatch.from_data_list(DIRECTED)
    walks = RelativeWalks(20)
    with torch.autocast("cpu", torch.bfloat16):
        actual = walks.powers(autocast_batch)
    torch.testing.assert_close(actual, walks.powers(batch), rtol=0, atol=0)


def test_invalid_options_and_large_graphs_are_rejected():
    for options in ({"steps": 0}, {"writes": ["y"]}):
        with pytest.raises(UserError):
            RelativeWalks(**options)
    with pytest.raises(UserError, match="70,000 nodes"):
        RelativeWalks().module(8, Schema()).nodes(path_graphs([70_000]))
