"""PyG convolutions as local branches, against PyG's layers called directly."""

from functools import partial
from itertools import product

import pytest
import torch
import torch_geometric.nn as pyg
from hydra import compose, initialize_config_dir
from torch import nn

from gt.cli.config import check
from gt.cli.config_files import CONFIGS
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference.decode import obstacle
from gt.inference.whole_graph import predict_chunks
from gt.layers import FeedForward, ParallelBlock, PyGConvolution, State
from gt.masks import Hops, VirtualNodes
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.network import build, network_config
from tests.graphs import SIZES, random_batch

WIDTH = 8
PNA = partial(pyg.PNAConv, aggregators=["mean", "max", "std"], scalers=["identity", "amplification", "attenuation"])


def two_layer_mlp():
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


EDGES = {  # layers that read a node's incoming edges and their sources: the factory given to gt, and the PyG layer
    "sage": (pyg.SAGEConv, lambda: pyg.SAGEConv(WIDTH, WIDTH)),
    "gin": (pyg.GINConv, lambda: pyg.GINConv(two_layer_mlp())),
    "gine": (
        partial(pyg.GINEConv, train_eps=True),
        lambda: pyg.GINEConv(two_layer_mlp(), train_eps=True, edge_dim=WIDTH),
    ),
    "gat, no edges": (partial(pyg.GATConv, heads=2, edge_dim=None), lambda: pyg.GATConv(WIDTH, WIDTH // 2, heads=2)),
    "gat": (partial(pyg.GATv2Conv, heads=2), lambda: pyg.GATv2Conv(WIDTH, WIDTH // 2, heads=2, edge_dim=WIDTH)),
    "gat, mean of heads": (
        partial(pyg.GATv2Conv, heads=3, concat=False, add_self_loops=False),
        lambda: pyg.GATv2Conv(WIDTH, WIDTH, heads=3, concat=False, add_self_loops=False, edge_dim=WIDTH),
    ),
    "transformer": (
        partial(pyg.TransformerConv, heads=4, beta=True),
        lambda: pyg.TransformerConv(WIDTH, WIDTH // 4, heads=4, beta=True, edge_dim=WIDTH),
    ),
    "pna": (
        partial(PNA, deg=torch.tensor([2, 3, 4, 1]), towers=2),
        lambda: PNA(WIDTH, WIDTH, deg=torch.tensor([2, 3, 4, 1]), towers=2, edge_dim=WIDTH),
    ),
    "crystal": (pyg.CGConv, lambda: pyg.CGConv(WIDTH, dim=WIDTH)),
    "general": (
        partial(pyg.GeneralConv, attention=True, heads=2),
        lambda: pyg.GeneralConv(WIDTH, WIDTH, in_edge_channels=WIDTH, attention=True, heads=2),
    ),
}
GRAPH = {  # layers that read several hops, degrees of sources, reversed edges, or the whole graph
    "gcn": (pyg.GCNConv, lambda: pyg.GCNConv(WIDTH, WIDTH)),
    "chebyshev": (partial(pyg.ChebConv, K=3), lambda: pyg.ChebConv(WIDTH, WIDTH, K=3)),
    "tag": (partial(pyg.TAGConv, K=2, normalize=False), lambda: pyg.TAGConv(WIDTH, WIDTH, K=2, normalize=False)),
    "gated": (partial(pyg.GatedGraphConv, num_layers=2), lambda: pyg.GatedGraphConv(WIDTH, num_layers=2)),
    "both ways": (
        partial(pyg.DirGNNConv, conv=pyg.SAGEConv(WIDTH, WIDTH)),
        lambda: pyg.DirGNNConv(pyg.SAGEConv(WIDTH, WIDTH)),
    ),
    "gps": (
        partial(pyg.GPSConv, conv=pyg.SAGEConv(WIDTH, WIDTH), heads=2, norm=None, dropout=0.0),
        lambda: pyg.GPSConv(WIDTH, pyg.SAGEConv(WIDTH, WIDTH), heads=2, norm=None, dropout=0.0),
    ),
}
ALL = {**EDGES, **GRAPH}
SHAPES = [*((sizes, 0.3) for sizes in SIZES.values()), ((3, 2), 0.0), ((6, 5), 0.9)]  # sizes, density of edges


def streams(batch, with_edges=True):
    x = torch.randn(batch.num_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    e = torch.randn(batch.num_edges, WIDTH, dtype=torch.float64, requires_grad=True) if with_edges else None
    return x, e


def apply_layer(layer, x, e, batch):
    return layer(State(x, e), batch, None)["x"]


@pytest.mark.parametrize(("conv", "make_reference"), ALL.values(), ids=ALL)
def test_values_and_gradients_match_pyg(conv, make_reference):
    torch.manual_seed(0)
    layer, reference = PyGConvolution(WIDTH, conv).double(), make_reference().double()
    reference.load_state_dict(layer.conv.state_dict())
    for (sizes, density), with_edges in product(SHAPES, (True, False)):
        batch = random_batch(sizes, density=density)
        x, e = streams(batch, with_edges)
        kwargs = {"edge_attr": x.new_zeros(batch.num_edges, WIDTH) if e is None else e} if layer.reads_edges else {}
        kwargs |= {"batch": batch.batch} if isinstance(reference, pyg.GPSConv | pyg.ChebConv) else {}
        results = []
        for out, module in (
            (apply_layer(layer, x, e, batch), layer),
            (reference(x, batch.edge_index, **kwargs), reference),
        ):
            weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
            leaves = [x, *([e] if e is not None else []), *module.parameters()]
            grads = torch.autograd.grad((out * weights).sum(), leaves, allow_unused=True, materialize_grads=True)
            results.append([out, *grads])
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("conv", [conv for conv, _ in ALL.values()], ids=ALL)
def test_outputs_do_not_depend_on_the_batch(conv):
    batch, layer = random_batch((1, 6, 3, 9)), PyGConvolution(WIDTH, conv).double().eval()
    x, e = streams(batch)
    nodes, edges = batch.ptr.tolist(), batch.rowptr[batch.ptr].tolist()
    alone = [
        apply_layer(layer, x[nodes[b] : nodes[b + 1]], e[edges[b] : edges[b + 1]], GraphBatch.from_data_list([graph]))
        for b, graph in enumerate(batch.to_data_list())
    ]
    torch.testing.assert_close(apply_layer(layer, x, e, batch), torch.cat(alone), rtol=1e-9, atol=1e-9)


def network(conv, schema, mask=Hops(1)):  # noqa: B008  masks are frozen values
    torch.manual_seed(1)
    block = partial(ParallelBlock, local=partial(PyGConvolution, conv=conv), feed_forward=FeedForward)
    return GraphTransformer(schema, WIDTH, 2, block, mask)


@pytest.mark.parametrize("name", ALL)
def test_chunked_inference_is_exact_or_rejected(name):
    batch = random_batch((24,), density=0.06)
    net = network(ALL[name][0], Schema((5, 5), edge_vocab=(3,), level="node", outputs=3)).eval()
    layer_name = net.blocks[0].local.name
    assert net.blocks[0].local.reads == ("edges" if name in EDGES else "graph")
    assert layer_name in str(obstacle(net))
    if name in GRAPH:
        with pytest.raises(UserError, match=f"{layer_name} in block 0"):
            predict_chunks(net, batch, 7)
        return
    with torch.no_grad():
        expected = net(batch)
    assert expected.std(0).min() > 1e-3
    for chunk in (1, 15):
        torch.testing.assert_close(predict_chunks(net, batch, chunk), expected, atol=1e-5, rtol=1e-5)


def test_virtual_nodes_have_no_edges():
    batch = random_batch((4, 1, 6))
    net = network(GRAPH["gps"][0], Schema((5, 5), outputs=3), Hops(1) | VirtualNodes(2)).eval()
    with torch.no_grad():
        alone = torch.cat([net(GraphBatch.from_data_list([graph])) for graph in batch.to_data_list()])
        torch.testing.assert_close(net(batch), alone, atol=1e-5, rtol=1e-5)


NAMED = {  # options of model/local, and the PyG layer that each name stands for
    "gat": lambda: pyg.GATConv(WIDTH, WIDTH // 4, heads=4, edge_dim=WIDTH),
    "gatv2": lambda: pyg.GATv2Conv(WIDTH, WIDTH // 4, heads=4, edge_dim=WIDTH),
    "sage": lambda: pyg.SAGEConv(WIDTH, WIDTH),
    "gin": lambda: pyg.GINConv(two_layer_mlp()),
    "pna": lambda: pyg.PNAConv(
        WIDTH,
        WIDTH,
        ["mean", "min", "max", "std"],
        ["identity", "amplification", "attenuation"],
        torch.tensor([1, 3, 2]),
        edge_dim=WIDTH,
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_local_layers_match_pyg(name):
    torch.manual_seed(0)
    with initialize_config_dir(str(CONFIGS), version_base=None):
        cfg = compose("train", ["model=gin", f"model/local={name}", f"model.width={WIDTH}", "encoding=none"])
    check(cfg)
    net = build(network_config(cfg), Schema((5, 5), edge_vocab=(3,), outputs=3)).double()
    net.set_degrees([GraphBatch(torch.tensor([0, 6]), torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 4, 5, 5]]), 6)])
    reference, batch = NAMED[name]().double(), random_batch((1, 6, 3))
    reference.load_state_dict(net.blocks[0].local.conv.state_dict())
    x, e = streams(batch)
    kwargs = {"edge_attr": e} if net.blocks[0].local.reads_edges else {}
    torch.testing.assert_close(apply_layer(net.blocks[0].local, x, e, batch), reference(x, batch.edge_index, **kwargs))
    assert net(batch).isfinite().all()


def test_layers_share_no_parameters():
    convolutions = (partial(pyg.GINConv, nn=two_layer_mlp()), GRAPH["both ways"][0])
    for conv in convolutions:
        first, second = PyGConvolution(WIDTH, conv), PyGConvolution(WIDTH, conv)
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            assert a is not b
            assert not torch.equal(a, b)


def test_pna_uses_the_degrees_of_the_training_data():
    batches = [random_batch((4, 1, 7), seed=seed) for seed in range(3)]
    degrees = torch.cat([torch.bincount(b.edge_index[1], minlength=b.num_nodes) for b in batches]).bincount()
    net = network(PNA, Schema((5, 5), outputs=3))
    assert net(batches[0]).isnan().all()  # until the degrees are set
    net.set_degrees(iter(batches))
    for block in net.blocks:
        aggregation = PNA(WIDTH, WIDTH, deg=degrees).aggr_module
        for name in ("avg_deg_lin", "avg_deg_log"):
            torch.testing.assert_close(getattr(block.local.conv.aggr_module, name), getattr(aggregation, name))
    assert net(batches[0]).isfinite().all()
    with pytest.raises(ValueError, match=r"PNAConv .* no edges"):
        net.set_degrees([random_batch((3,), density=0.0)])
    # no layer needs degrees: the batches are not read
    network(pyg.SAGEConv, Schema((5, 5), outputs=3)).set_degrees(1 / 0 for _ in range(1))


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (pyg.PNAConv, r"PNAConv needs conv\.aggregators and conv\.scalers"),
        (pyg.GCN2Conv, r"GCN2Conv needs conv\.alpha"),
        (partial(pyg.GCN2Conv, alpha=0.1), r"GCN2Conv .* x_0"),
        (pyg.PointNetConv, r"PointNetConv .* pos"),
        (pyg.MixHopConv, r"MixHopConv .* out_channels"),
        (partial(pyg.GATv2Conv, heads=3), "heads=3 of GATv2Conv"),
        (pyg.EdgeConv, "EdgeConv"),
        (partial(pyg.SAGEConv, aggr="nothing"), r"SAGEConv .* 'nothing'"),
        (pyg.WLConv, "WLConv"),
    ],
)
def test_unusable_convolutions_are_rejected_in_one_line(conv, message):
    with pytest.raises(ValueError, match=message) as caught:
        PyGConvolution(WIDTH, conv)
    assert "\n" not in str(caught.value)
