"""Relative random walks against powers of each graph's own matrix, and whole models that read them."""

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


def walked(batch: GraphBatch, steps: int) -> dict[tuple[int, int], torch.Tensor]:
    """For each reader and source of one graph the chances (steps,), by a walk over the list of edges."""
    chances = {}
    for graph in range(batch.num_graphs):
        for reader in range(int(batch.ptr[graph]), int(batch.ptr[graph + 1])):
            here = {reader: 1.0}
            for step in range(steps):
                for node, chance in here.items():
                    chances.setdefault((reader, node), torch.zeros(steps))[step] = chance
                there = {}
                for node, chance in here.items():
                    sources = [s for s, t in batch.edge_index.T.tolist() if t == node]
                    for source in sources:
                        there[source] = there.get(source, 0.0) + chance / len(sources)
                here = there
    return chances


@pytest.mark.parametrize("graphs", [AWKWARD[:9], DIRECTED], ids=["undirected", "directed"])
def test_nodes_edges_and_pairs_have_the_chances_of_a_walk(graphs):
    batch = GraphBatch.from_data_list(graphs)
    module, chances = RelativeWalks(5, ("x", "e", "p")).module(5, Schema()), walked(batch, 5)
    for linear in module.maps.values():
        nn.init.eye_(linear.weight)

    def expected(source, target):
        pairs = zip(target.tolist(), source.tolist(), strict=True)
        return torch.stack([chances.get(pair, torch.zeros(5)) for pair in pairs])

    node = torch.arange(batch.num_nodes)
    torch.testing.assert_close(module.nodes(batch), expected(node, node))
    torch.testing.assert_close(module.edges(batch), expected(*batch.edge_index))
    for mask in (Complete(), Hops(1), Causal()):
        torch.testing.assert_close(module.pairs(mask(batch)), expected(*mask(batch).edges))
    wide, mask = with_virtual_nodes(batch, 1), Hops(1) | VirtualNodes(1)
    source, target = mask(wide).edges
    real = torch.full((wide.num_nodes,), -1).index_copy(0, wide.real, node)
    torch.testing.assert_close(
        module.pairs(mask(wide))[:, 1:], expected(real[source], real[target])[:, 1:], msg="a virtual node is apart"
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
def test_a_graph_is_read_alike_alone_and_in_a_batch(mask):
    net, batch = network(mask=mask), random_batch((7, 1, 4))
    alone = torch.cat([net(GraphBatch.from_data_list([graph])) for graph in batch.to_data_list()])
    torch.testing.assert_close(net(batch), alone)


@pytest.mark.parametrize("stream", ["x", "e", "p"])
def test_each_stream_is_read_and_trained(stream):
    net, batch = network((stream,)), random_batch((7, 4))
    before = net(batch)
    before.square().sum().backward()
    (weight,) = net.encodings.parameters()
    assert weight.grad.abs().sum() > 0
    with torch.no_grad():
        weight.zero_()
        assert not torch.allclose(net(batch), before)


def test_edges_without_features_of_their_own_have_those_of_the_encoding():
    net = network(("e",), schema=Schema((5, 5), outputs=3))
    net(random_batch((7, 4))).square().sum().backward()
    assert all(p.grad is not None for p in net.encodings.parameters())


@pytest.mark.parametrize(
    ("options", "stream"), [({"edges": False}, "pairs"), ({"edges": False, "local": None}, "edges")]
)
def test_features_that_no_layer_reads_are_refused(options, stream):
    with pytest.raises(ValueError, match=f"RelativeWalks adds features to {stream}"):
        network(**options)


def test_exact_inference_and_decoding_refuse():
    net = network(schema=Schema((5, 5), edge_vocab=(3,), level="node", outputs=3))
    with pytest.raises(UserError, match="RelativeWalks"):
        predict_chunks(net, random_batch((9,)), 3)
    text = network(("x",), edges=False, local=None, schema=Schema((5,), level="node", outputs=5), mask=Causal())
    assert "RelativeWalks" in str(obstacle(text))


def test_sixteen_bits_do_not_add_up_errors_from_step_to_step():
    batch, half = GraphBatch.from_data_list(DIRECTED), GraphBatch.from_data_list(DIRECTED)
    walks = RelativeWalks(20)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = walks.powers(half)
    torch.testing.assert_close(rounded, walks.powers(batch), rtol=0, atol=0)


def test_options_and_graphs_too_large_are_refused():
    for options in ({"steps": 0}, {"writes": ["y"]}):
        with pytest.raises(UserError):
            RelativeWalks(**options)
    with pytest.raises(UserError, match="70,000 nodes"):
        RelativeWalks().module(8, Schema()).nodes(path_graphs([70_000]))
