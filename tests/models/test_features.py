"""Embedding of node and edge features, and the units of real features and regression targets."""

from functools import partial

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from gt import GraphBatch
from gt.layers import GCN, GINE, ConvolutionBlock, EdgeGatedBlock, GatedGCN, ParallelBlock, State
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.graphs import random_batch
from tests.models.networks import SCHEMA, TwoHeads, gps


def test_missing_or_malformed_features_are_rejected():
    net = GraphTransformer(SCHEMA, 8, 1, partial(ParallelBlock, local=GINE))
    batch = random_batch((3,))
    x = batch.x
    for wrong, message in ((None, "has none"), (x.float(), "float32"), (x[:, :0], r"\(3, 0\)")):
        batch.x = wrong
        with pytest.raises(ValueError, match=f"expects x .* categories as whole numbers; this batch .*{message}"):
            net(batch)
    batch.x, batch.edge_attr = x, None
    with pytest.raises(ValueError, match=r"expects edge_attr .*; this batch has none"):
        net(batch)


def test_edges_are_embedded_only_if_a_layer_reads_them():
    for block, embedded in [
        (gps(GINE, 2), True),
        (gps(GatedGCN, 2), True),
        (partial(EdgeGatedBlock, heads=2), True),
        (gps(GCN, 2), False),
        (partial(ParallelBlock, attention=TwoHeads), False),
    ]:
        assert (GraphTransformer(SCHEMA, 8, 2, block).edges is not None) == embedded
        assert GraphTransformer(Schema((5, 5)), 8, 2, block).edges is None


def test_each_column_has_its_own_embedding_table():
    torch.manual_seed(0)
    net = GraphTransformer(Schema((3, 2)), 8, 0)
    x = torch.tensor([[2, 0], [0, 1], [2, 1]])
    table = net.nodes.table.weight
    torch.testing.assert_close(
        net.nodes(x), torch.stack([table[2] + table[3], table[0] + table[4], table[2] + table[4]])
    )


def test_real_features_are_mapped_linearly():
    net = GraphTransformer(Schema(node_floats=4, edge_floats=2, outputs=2), 8, 1, gps(GINE, 2))
    batch = random_batch((3, 2))
    batch.x, batch.edge_attr = torch.randn(5, 4), torch.randn(batch.num_edges, 2)
    torch.testing.assert_close(net.embed(batch), net.nodes.linear(batch.x))
    assert net(batch).shape == (2, 2)


def test_regression_predictions_have_the_units_of_the_target() -> None:
    torch.manual_seed(0)
    batch = random_batch((3, 5), seed=1)
    plain, scaled = (
        Schema(node_vocab=(5, 5), edge_vocab=(3,), kind="regression", outputs=2, **unit)
        for unit in ({}, {"mean": (5.0, -1.0), "scale": (10.0, 0.5)})
    )
    nets = [GraphTransformer(schema, width=16, depth=0).eval() for schema in (plain, scaled)]
    nets[1].load_state_dict(nets[0].state_dict())
    expected = nets[0](batch) * torch.tensor([10.0, 0.5]) + torch.tensor([5.0, -1.0])
    torch.testing.assert_close(nets[1](batch), expected)


def test_real_features_are_standardised_by_the_schema() -> None:
    torch.manual_seed(0)
    batch = random_batch((3, 5), seed=1)
    x, attr = torch.randn(batch.num_nodes, 2), torch.randn(batch.num_edges, 1)
    floats = {"node_floats": 2, "edge_floats": 1}
    units = {"node_mean": (300.0, 0.0), "node_scale": (40.0, 1.0), "edge_mean": (-9.0,), "edge_scale": (0.5,)}
    block = partial(ParallelBlock, local=GINE)
    plain, raw = (GraphTransformer(Schema(**floats, **more), 8, 1, block).eval() for more in ({}, units))
    raw.load_state_dict(plain.state_dict())  # units are not part of the state dict, so that older checkpoints load
    batch.x, batch.edge_attr = x, attr
    expected = plain(batch)
    batch.x = x * torch.tensor([40.0, 1.0]) + torch.tensor([300.0, 0.0])
    batch.edge_attr = attr * 0.5 - 9
    torch.testing.assert_close(raw(batch), expected, rtol=1e-4, atol=1e-4)


def test_units_stay_precise_in_a_bfloat16_network() -> None:
    schema = Schema(
        node_floats=1, node_mean=(1801.0,), node_scale=(3.0,), kind="regression", mean=(1803.0,), scale=(5.0,)
    )
    net = GraphTransformer(schema, 8, 0).to(torch.bfloat16)
    assert net.nodes.units.shrink(torch.tensor([[1804.0]])) == 1.0
    assert net.in_units(torch.tensor([[1.0]], dtype=torch.bfloat16)) == 1808.0


def test_log_targets_stay_positive_and_finite() -> None:
    net = GraphTransformer(Schema(node_floats=1, kind="regression", mean=(2.0,), scale=(3.0,), log=True), 8, 0)
    out = torch.tensor([[0.0], [1.0], [1e9], [-1e9]], requires_grad=True)
    predictions = net.in_units(out)
    torch.testing.assert_close(predictions[:2].flatten(), torch.tensor([2.0, 5.0]).exp())
    assert (predictions > 0).all()
    assert predictions.isfinite().all()
    assert torch.autograd.grad(predictions.log().sum(), out)[0].isfinite().all()


@pytest.mark.parametrize("categorical", [True, False])
def test_input_dropout_drops_feature_columns(categorical):
    columns, rows = 4, 500
    vocab, floats = ((3,) * columns, 0) if categorical else ((), columns)
    schema = Schema(node_vocab=vocab, node_floats=floats)
    net = GraphTransformer(schema, width=8, depth=0, input_dropout=0.25, input_bias=False)
    if categorical:
        x = torch.randint(3, (rows, columns))
        parts = net.nodes.table.weight[x + net.nodes.offsets]  # (rows, columns, width)
    else:
        x = torch.rand(rows, columns) + 1
        parts = x[:, :, None] * net.nodes.linear.weight.T
    parts = parts.detach().double()
    torch.testing.assert_close(net.eval().nodes(x).double(), parts.sum(1))
    out = net.train().nodes(x).detach().double() * 0.75
    kept = torch.linalg.lstsq(parts.mT, out[:, :, None]).solution[:, :, 0]  # the factor of each column
    torch.testing.assert_close(kept, kept.round(), atol=1e-3, rtol=0)
    assert set(kept.round().flatten().tolist()) == {0.0, 1.0}
    assert 0.2 < 1 - kept.mean() < 0.3


def test_zero_padded_features_match_a_narrower_convolution():
    """The first convolution then equals PyG's on three columns: its weights for the padding receive no gradient."""
    schema, width = Schema(node_floats=3, node_mean=(1.0, 2.0, 3.0), node_scale=(1.0, 1.0, 2.0)), 8
    block = partial(ConvolutionBlock, local=GCN, activation=None, residual=False)
    net = GraphTransformer(schema, width, depth=1, block=block, input_linear=False)
    batch = random_batch(sizes=(4, 1, 6))
    batch.x = torch.randn(batch.num_nodes, 3)
    reference = GCNConv(3, width)
    reference.lin.weight.data = net.blocks[0].local.linear.weight.data[:, :3]
    reference.bias.data = net.blocks[0].local.linear.bias.data
    ours = net.blocks[0](State(net.embed(batch)), batch, None).x
    standardised = (batch.x - torch.tensor([1.0, 2.0, 3.0])) / torch.tensor([1.0, 1.0, 2.0])
    torch.testing.assert_close(ours, reference(standardised, batch.edge_index))
    ours.sum().backward()
    assert not net.blocks[0].local.linear.weight.grad[:, 3:].any()


def test_zero_padding_needs_a_channel_per_feature():
    with pytest.raises(ValueError, match="a width of at least 9"):
        GraphTransformer(Schema(node_floats=9), width=8, depth=0, input_linear=False)


def test_feature_embedding_without_bias():
    schema = Schema(node_floats=3)
    assert GraphTransformer(schema, width=8, depth=0, input_bias=False).nodes.linear.bias is None
    assert GraphTransformer(schema, width=8, depth=0).nodes.linear.bias is not None


@pytest.mark.parametrize(("value", "message"), [(5, "0 to 5 in column 0"), (-1, "-1 to 0 in column 0")])
def test_out_of_range_category_is_rejected(value, message):
    net = GraphTransformer(Schema(node_vocab=(5, 5)), width=8, depth=0)
    graph = Data(x=torch.tensor([[0, 0], [value, 1]]), edge_index=torch.empty(2, 0).long())
    with pytest.raises(ValueError, match=rf"x has values {message}, but the network was built for 0 to 4"):
        net(GraphBatch.from_data_list([graph]))
