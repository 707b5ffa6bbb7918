"""Whole networks: published parameter counts, masks and blocks per layer, weight tying, predictions, training."""

from functools import partial

import pytest
import torch
from ogb.utils.features import get_atom_feature_dims, get_bond_feature_dims
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from gt import GraphBatch
from gt.encodings import Degree, Laplacian, LearnedPositions, RandomWalk, Rotary
from gt.heads import Head, Max, Mean, Sum
from gt.layers import (
    GCN,
    GINE,
    Attention,
    Blend,
    ConvolutionBlock,
    EdgeGatedBlock,
    FeedForward,
    GatedGCN,
    ParallelBlock,
    SequentialBlock,
    State,
)
from gt.losses import loss
from gt.masks import Causal, Complete, Hops, PerHead, Window
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.graphs import SIZES, path, random_batch, random_graph

SCHEMA = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=3)  # of `random_graph`
TwoHeads = partial(Attention, heads=2)


def gps(local=GINE, heads=4, block=ParallelBlock, **options):
    return partial(block, local=local, attention=partial(Attention, heads=heads), feed_forward=FeedForward, **options)


# GraphGPS's released configurations; the atom table of the papers has 173 rows, OGB's now has one more

ATOMS, BONDS = tuple(get_atom_feature_dims()), tuple(get_bond_feature_dims())
NEW_ROWS = sum(ATOMS) - 173
MOLECULES = partial(Schema, node_vocab=ATOMS, edge_vocab=BONDS)
WALK, MODES = RandomWalk(16, 20), Laplacian(k=10, dim=16)
PUBLISHED = {  # parameter count, schema, width, depth, heads, encoding and its channels, hidden layers of the head
    "ZINC": (423_717, Schema((28,), edge_vocab=(4,), kind="regression"), 64, 10, 4, RandomWalk(20, 28), 28, 2),
    "molhiv": (558_625, MOLECULES(kind="binary"), 64, 10, 4, RandomWalk(16, 16), 16, 2),
    "molpcba": (9_744_496, MOLECULES(kind="binary", outputs=128), 384, 5, 4, WALK, 20, 0),
    "Peptides-func": (504_362, MOLECULES(kind="binary", outputs=10), 96, 4, 4, MODES, 16, 0),
    "Peptides-struct": (504_459, MOLECULES(kind="regression", outputs=11), 96, 4, 4, MODES, 16, 0),
    "PCQM4Mv2 small": (6_152_001, MOLECULES(kind="regression"), 304, 5, 4, WALK, 20, 2),
    "PCQM4Mv2 medium": (19_414_641, MOLECULES(kind="regression"), 384, 10, 16, WALK, 20, 2),
    "PCQM4Mv2 deep": (13_807_345, MOLECULES(kind="regression"), 256, 16, 8, WALK, 20, 2),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_gps_parameter_counts_match_the_papers(name):
    published, schema, width, depth, heads, encoding, encoding_width, hidden = PUBLISHED[name]
    block = gps(GINE if name == "ZINC" else GatedGCN, heads)
    with torch.device("meta"):  # counting needs no memory
        net = GraphTransformer(schema, width, depth, block, encodings=[encoding], head=partial(Head, hidden=hidden))
    new = NEW_ROWS * (width - encoding_width) if schema.node_vocab == ATOMS else 0
    assert net.parameter_count() == published + new


def nano_gpt(depth=4):
    layer_norm = partial(nn.LayerNorm, bias=False)
    block = partial(
        ParallelBlock,
        attention=partial(Attention, bias=False),
        feed_forward=partial(FeedForward, ratio=4, bias=False, activation=nn.GELU),
        norm=layer_norm,
        prenorm=True,
    )
    return GraphTransformer(
        Schema((65,), level="node", outputs=65, max_nodes=64),
        width=128,
        depth=depth,
        block=block,
        mask=Causal(),
        encodings=[LearnedPositions()],
        head=partial(Head, hidden=0, tied=True, bias=False),
        norm=layer_norm,
        init_std=0.02,
    )


def test_nano_gpt_parameter_count():
    assert nano_gpt().parameter_count() == 804_096


def test_tied_head_shares_storage_and_gradient():
    net = nano_gpt(depth=1)
    table, out = net.nodes.table.weight, net.head.mlp[-1].weight
    assert table is out
    batch = GraphBatch.from_data_list([path(6)])
    batch.x = torch.randint(0, 30, (6, 1))
    net(batch).logsumexp(1).sum().backward()
    assert (table.grad[40:] != 0).any()  # characters absent from the input: their gradient comes from the head


def test_gpt_initialisation_scale():
    torch.manual_seed(0)
    net = nano_gpt(depth=8)
    for name, parameter in net.named_parameters():
        if parameter.dim() == 2 and parameter.numel() > 10_000:
            expected = 0.02 / 4 if "project_out" in name else 0.02  # sqrt(2 x 8) = 4
            assert abs(parameter.std() / expected - 1) < 0.05, name


def test_each_layer_uses_its_own_mask():
    torch.manual_seed(0)
    masks = [Hops(0), Window(1), PerHead((Causal(), Hops(1)))]
    block = partial(ParallelBlock, attention=TwoHeads, norm=nn.LayerNorm)
    net = GraphTransformer(SCHEMA, 8, 3, block, mask=masks).eval()
    assert {mask for mask, _ in net.readings()} == set(masks)
    batch = random_batch((5, 3))
    state = State(net.embed(batch))
    for layer, mask in zip(net.blocks, masks, strict=True):
        state = layer(state, batch, mask(batch))
    x = state.x
    torch.testing.assert_close(net(batch), net.head(x, batch))
    for changed in ([Hops(0), Window(1), Complete()], [Complete(), Window(1), masks[2]]):
        net.masks = changed
        assert not torch.allclose(net(batch), net.head(x, batch))


def test_list_of_blocks_is_cycled():
    blocks = [partial(ParallelBlock, local=GINE), partial(ParallelBlock, attention=TwoHeads), gps(GatedGCN, 2)]
    net = GraphTransformer(SCHEMA, 8, 5, blocks, mask=Hops(1))
    kinds = [(type(b.local), type(b.attention)) for b in net.blocks]
    local, attention, both = (GINE, type(None)), (type(None), Attention), (GatedGCN, Attention)
    assert kinds == [local, attention, both, local, attention]
    assert net(random_batch((3, 5))).shape == (2, 3)
    assert {mask for mask, _ in net.readings()} == {Hops(1)}
    assert net.blend_weights() == [0.5]


def test_pattern_of_named_blocks():
    named = {"L": partial(ParallelBlock, local=GINE), "G": partial(ParallelBlock, attention=TwoHeads)}

    def layout(**options):
        net = GraphTransformer(SCHEMA, 8, 5, named, **options)
        return "".join("L" if block.attention is None else "G" for block in net.blocks)

    assert layout(pattern="LLG") == layout(pattern=["L", "L", "G"]) == "LLGLL"
    assert layout(pattern="G") == "GGGGG"
    assert layout() == "LGLGL"


def test_blend_weights_are_reported_per_layer():
    block = gps(heads=2, blend=partial(Blend, 0.3, learned=True))
    assert GraphTransformer(SCHEMA, 8, 2, block).blend_weights() == pytest.approx([0.3, 0.3])


def test_layers_without_attention_read_no_masks():
    assert GraphTransformer(SCHEMA, 8, 2, partial(ParallelBlock, local=GINE)).readings() == set()


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("encodings take 8 of 8 channels and leave none", {"encodings": [RandomWalk(4, 8)]}),
        ("take 9 of 8 channels and leave none", {"encodings": [RandomWalk(4, 4), Laplacian(2, 5)]}),
        ("3 masks for 2 blocks", {"mask": [Causal()] * 3}),
        ("0 masks for 2 blocks", {"mask": []}),
        ("depth > 0 needs at least one block", {"block": []}),
        ("3 heads do not divide a width of 8", {"block": partial(EdgeGatedBlock, heads=3)}),
        ("unknown block 'X': choose from L", {"block": {"L": partial(ParallelBlock, local=GINE)}, "pattern": "LX"}),
        ("pattern refers to blocks by name", {"pattern": "LG"}),
        ("a tied head cannot have hidden=2 layers", {"head": partial(Head, tied=True)}),
        ("tied=true needs a single node feature", {"head": partial(Head, tied=True, hidden=0)}),
        ("a width of 8 cannot be halved 4 times", {"head": partial(Head, hidden=4)}),
    ],
)  # fmt: skip
def test_inconsistent_options_are_rejected(message, options):
    arguments = {"width": 8, "depth": 2, "block": partial(ParallelBlock, local=GINE)} | options
    with pytest.raises(ValueError, match=message):
        GraphTransformer(SCHEMA, **arguments)


def test_tied_head_with_concatenated_encodings_is_rejected():
    schema, head = Schema((5,), level="node", outputs=5), partial(Head, hidden=0, tied=True)
    with pytest.raises(ValueError, match="encodings take 3 of its channels"):
        GraphTransformer(schema, 8, 0, encodings=[RandomWalk(4, 3)], head=head)


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


@pytest.mark.parametrize("pool", [Mean(), Sum(), Max()])
@pytest.mark.parametrize("padded", [False, True])
def test_pools_match_a_loop_over_graphs(pool, padded):
    batch = random_batch((3, 1, 4))
    if padded:  # the last node of a graph is padding of a static shape
        batch.node_mask = torch.tensor([True, True, False, True, True, True, True, False])
    x = torch.randn(8, 5)
    kept = batch.node_mask if padded else torch.ones(8, dtype=torch.bool)
    for graph in range(3):
        own = x[(batch.batch == graph) & kept]
        expected = {Mean: own.mean, Sum: own.sum, Max: own.amax}[type(pool)](0)
        torch.testing.assert_close(pool(x, batch)[graph], expected)


BLOCKS = {
    "GPS": gps(GINE, 2),
    "GPS, gated": gps(GatedGCN, 2),
    "GPS, sequential": gps(GINE, 2, SequentialBlock),
    "Transformer": partial(ParallelBlock, attention=TwoHeads, feed_forward=FeedForward, norm=nn.LayerNorm),
    "GT": partial(EdgeGatedBlock, heads=2),
    "GIN": partial(ParallelBlock, local=GINE),
    "GCN": partial(ParallelBlock, local=GCN),
}
every_block = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)


@every_block
@pytest.mark.parametrize("level", ["graph", "node"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_output_has_one_row_per_graph_or_node(block, level, sizes):
    schema = Schema((5, 5), edge_vocab=(3,), level=level, outputs=3)
    batch = GraphBatch.from_data_list([random_graph(n, seed) for seed, n in enumerate(sizes)])
    net = GraphTransformer(schema, 16, 2, block, encodings=[Degree()]).eval()
    out = net(batch)
    assert out.shape == (len(sizes) if level == "graph" else sum(sizes), 3)
    assert out.isfinite().all()


@every_block
def test_network_overfits_one_batch(block):
    torch.manual_seed(0)
    batch = random_batch((6, 4, 7, 5, 9, 3, 6, 8))
    net = GraphTransformer(SCHEMA, 32, 2, block, encodings=[Degree(), Rotary()])
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        value = loss(SCHEMA, net(batch), batch.y)
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert losses[0] > 0.8  # log 3 = 1.1 for random predictions
    assert losses[-1] < 0.25 * losses[0], losses


@every_block
@pytest.mark.parametrize("backend", ["dense", "sdpa", "sparse"])
def test_mixed_precision_training(block, backend):
    torch.manual_seed(0)
    batch = random_batch((6, 1, 4))
    net = GraphTransformer(SCHEMA, 16, 2, block, mask=Hops(1), encodings=[Degree()])
    for layer in net.modules():
        if isinstance(layer, Attention):
            layer.backend = backend
    exact = net(batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(batch)
        value = loss(SCHEMA, out, batch.y)
    value.backward()
    torch.testing.assert_close(out.float(), exact, atol=0.1, rtol=0.1)
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@every_block
def test_every_parameter_receives_a_gradient(block):
    net = GraphTransformer(SCHEMA, 16, 2, block, encodings=[Degree()])
    net(random_batch((6, 4, 7))).square().sum().backward()
    untrained = {name for name, p in net.named_parameters() if p.grad is None}
    last = net.blocks[-1]
    unread = set()  # the last layer's edge stream
    if isinstance(last, EdgeGatedBlock):
        unread = {n for n, _ in net.named_parameters() if n.startswith("blocks.1.") and ".e." in n}
    elif isinstance(last.local, GatedGCN):
        unread = {"blocks.1.local.norm_e.weight", "blocks.1.local.norm_e.bias"}
    assert untrained == unread


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


def test_link_predictions_are_symmetric() -> None:
    torch.manual_seed(0)
    batch = random_batch((6, 5), seed=1)
    net = GraphTransformer(Schema(node_vocab=(5, 5), level="link", kind="binary"), width=16, depth=0).eval()
    with pytest.raises(ValueError, match="no links"):
        net(batch)
    batch.links = torch.tensor([[0, 4, 8], [3, 4, 7]])
    out = net(batch)
    assert out.shape == (3, 1)
    batch.links = batch.links.flip(0)
    torch.testing.assert_close(net(batch), out)
    x = net.embed(batch)
    torch.testing.assert_close(net.head.mlp(x[4] * x[4]), out[1])


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


@pytest.mark.parametrize("data", [random_graph(3, 0), [random_graph(3, 0)]])
def test_pyg_data_instead_of_a_batch_is_rejected(data):
    net = GraphTransformer(Schema(node_vocab=(5, 5)), width=8, depth=0)
    with pytest.raises(
        TypeError, match=rf"a network takes a GraphBatch, not a {type(data).__name__}: use GraphBatch\.from"
    ):
        net(data)


@pytest.mark.parametrize(("value", "message"), [(5, "0 to 5 in column 0"), (-1, "-1 to 0 in column 0")])
def test_out_of_range_category_is_rejected(value, message):
    net = GraphTransformer(Schema(node_vocab=(5, 5)), width=8, depth=0)
    graph = Data(x=torch.tensor([[0, 0], [value, 1]]), edge_index=torch.empty(2, 0).long())
    with pytest.raises(ValueError, match=rf"x has values {message}, but the network was built for 0 to 4"):
        net(GraphBatch.from_data_list([graph]))
