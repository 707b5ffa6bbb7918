"""Whole networks: published parameter counts, masks and blocks per layer, weight tying, predictions, training."""

from functools import partial

import pytest
import torch
from torch import nn

from gt import GraphBatch
from gt.encodings import Degree, Laplacian, LearnedPositions, RandomWalk, Rotary
from gt.heads import Head, Max, Mean, Sum
from gt.layers import (
    GCN,
    GINE,
    Attention,
    Blend,
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
from tests.models.networks import ATOMS, MOLECULES, NEW_ROWS, SCHEMA, TwoHeads, gps

WALK, MODES = RandomWalk(16, 20), Laplacian(k=10, dim=16)
# GraphGPS's released configurations
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


@pytest.mark.parametrize("pool", [Mean(), Sum(), Max()])
@pytest.mark.parametrize("padded", [False, True])
def test_pools_match_a_loop_over_graphs(pool, padded):
    batch = random_batch((3, 1, 4))
    if padded:  # the last node of a graph is padding of a static shape
        batch.node_mask = torch.tensor([True, True, False, True, True, True, True, False])
    x = torch.randn(8, 5)
    kept = batch.node_mask if padded else torch.ones(8, dtype=torch.bool)
    for graph in range(3):
        rows = x[(batch.batch == graph) & kept]
        expected = {Mean: rows.mean, Sum: rows.sum, Max: rows.amax}[type(pool)](0)
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


@pytest.mark.parametrize("data", [random_graph(3, 0), [random_graph(3, 0)]])
def test_pyg_data_instead_of_a_batch_is_rejected(data):
    net = GraphTransformer(Schema(node_vocab=(5, 5)), width=8, depth=0)
    with pytest.raises(
        TypeError, match=rf"a network takes a GraphBatch, not a {type(data).__name__}: use GraphBatch\.from"
    ):
        net(data)
