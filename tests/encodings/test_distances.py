"""Distance and edge-path encodings against NetworkX, and attention with pair biases against its equation."""

import pickle
from functools import partial

import networkx as nx
import pytest
import torch
from torch_geometric.data import Data

from gt.data.batching import prepare_all
from gt.encodings import Distance, EdgePath, Edges, HeatKernel, RelativeWalks, Resistance
from gt.encodings.distances import edge_paths
from gt.graph import GraphBatch, path_graphs
from gt.layers import Attention, FeedForward, ParallelBlock, State
from gt.masks import Complete, Hops, VirtualNodes, with_virtual_nodes
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.encodings.samples import AWKWARD, random_directed
from tests.graphs import random_batch, random_graph

SCHEMA = Schema((5, 5), edge_vocab=(3, 2), outputs=3)


def with_edge_features(graph: Data, seed: int) -> Data:
    """The graph with two columns of random edge features and no other attributes."""
    columns = torch.randint(0, 3, (graph.num_edges, 2), generator=torch.Generator().manual_seed(seed))
    return Data(
        edge_index=graph.edge_index, edge_attr=columns.clamp(max=torch.tensor([2, 1])), num_nodes=graph.num_nodes
    )


DIRECTED = [random_directed(9, 20, seed=3), random_directed(7, 12, seed=1, simple=False)]
GRAPHS = [with_edge_features(graph, seed) for seed, graph in enumerate([*AWKWARD[:9], *DIRECTED])]


def to_networkx(batch):
    """The batch as one NetworkX graph, edges from reader to source; of repeated edges, the smallest features."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(batch.num_nodes))
    for (source, target), kind in zip(batch.edge_index.T.tolist(), batch.edge_attr.tolist(), strict=True):
        if graph.has_edge(target, source):
            kind = min(kind, graph[target][source]["kind"])
        graph.add_edge(target, source, kind=kind)
    return graph


def test_pairs_are_embedded_by_distance():
    batch = GraphBatch.from_data_list(GRAPHS)
    distance, module = dict(nx.all_pairs_shortest_path_length(to_networkx(batch))), Distance(3).module(4, SCHEMA)
    for mask in (Complete(), Hops(2)):
        source, target = mask(batch).edges.tolist()
        rows = [min(distance[i][j], 3) if j in distance[i] else 4 for j, i in zip(source, target, strict=True)]
        assert torch.equal(module.pairs(mask(batch)), module.table.weight[torch.tensor(rows)])
    assert {3, 4} <= {min(distance[i].get(j, 4), 4) for i in distance for j in range(batch.num_nodes)}


def test_virtual_node_pairs_have_their_own_embedding():
    augmented, mask, module = (
        with_virtual_nodes(random_batch((4, 1)), 1),
        Complete() | VirtualNodes(1),
        Distance(2, heads=3),
    )
    module, plain = module.module(8, SCHEMA), random_batch((4, 1))
    virtual = torch.isin(mask(augmented).edges, augmented.virtual).any(0)
    rows = module.pairs(mask(augmented))
    assert rows.shape == (mask(augmented).count, 3)
    assert torch.equal(rows[virtual], module.table.weight[4].expand(int(virtual.sum()), -1))
    assert torch.equal(rows[~virtual], module.pairs(Complete()(plain)))


def first_path(graph, i, j):
    """The lexicographically smallest edge features of all shortest paths from i to j; None if there is no path."""
    if not nx.has_path(graph, i, j):
        return None
    return min([graph[a][b]["kind"] for a, b in nx.utils.pairwise(path)] for path in nx.all_shortest_paths(graph, i, j))


@pytest.mark.parametrize("length", [1, 2, 5])
def test_path_bias_and_gradients_match_equation(length):
    batch = GraphBatch.from_data_list(GRAPHS)
    graph, pairs = to_networkx(batch), Complete()(batch)
    module = EdgePath(length, heads=3).module(8, SCHEMA).double()
    table = module.edge.features.table.weight
    expected, ambiguous = [], 0
    for j, i in pairs.edges.T.tolist():
        path = first_path(graph, i, j) or []
        ambiguous += len(path) > 0 and len(list(nx.all_shortest_paths(graph, i, j))) > 1
        total = torch.zeros(3, dtype=torch.float64)
        for k, (a, b) in enumerate(path[:length]):
            total = total + (table[a] + table[3 + b]) / 2 @ module.maps[k]
        expected.append(total / min(max(len(path), 1), length))
    actual, reference = module.pairs(pairs), torch.stack(expected)
    torch.testing.assert_close(actual, reference)
    assert ambiguous > 5
    weights = torch.randn_like(actual)
    parameters = list(module.parameters())
    for a, b in zip(
        *(torch.autograd.grad((out * weights).sum(), parameters) for out in (actual, reference)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_path_edges_lead_from_reader_to_source():
    batch = random_batch((9, 1, 6), density=0.25)
    keys, paths = edge_paths(batch, 8)
    distance = dict(nx.all_pairs_shortest_path_length(to_networkx(batch)))
    assert keys.tolist() == sorted(i * batch.num_nodes + j for i in distance for j in distance[i])
    for key, edges in zip(keys.tolist(), paths.tolist(), strict=True):
        node, source = divmod(key, batch.num_nodes)
        steps = [edge for edge in edges if edge < batch.num_edges]
        assert len(steps) == distance[node][source]
        for edge in steps:
            assert batch.edge_index[1, edge] == node
            node = int(batch.edge_index[0, edge])
        assert node == source


def network(encodings, mask=Complete(), schema=None, **options):  # noqa: B008
    torch.manual_seed(0)
    block = partial(ParallelBlock, attention=partial(Attention, heads=2, **options), feed_forward=FeedForward)
    net = GraphTransformer(schema or Schema((5, 5), edge_vocab=(3,), outputs=3), 8, 2, block, mask, encodings).eval()
    with torch.no_grad():
        for parameter in net.encodings.parameters():
            parameter.add_(torch.randn_like(parameter))
    return net


BIASES = {"distance": [Distance(3, 2)], "path": [EdgePath(3, 2)], "both": [Distance(3, 2), EdgePath(3, 2)]}


@pytest.mark.parametrize("mask", [Complete(), Hops(2), Complete() | VirtualNodes(1)], ids=str)
@pytest.mark.parametrize("encodings", BIASES.values(), ids=BIASES)
@torch.no_grad()
def test_model_is_batch_independent_and_permutation_invariant(encodings, mask):
    net, graphs = network(encodings, mask, pair_bias=True), [random_graph(n, n, density=0.3) for n in (7, 1, 4)]
    together = net(GraphBatch.from_data_list(graphs))
    torch.testing.assert_close(torch.cat([net(GraphBatch.from_data_list([graph])) for graph in graphs]), together)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    first = graphs[0]
    permuted = Data(
        x=first.x[order], edge_index=order.argsort()[first.edge_index], edge_attr=first.edge_attr, y=first.y
    )
    torch.testing.assert_close(net(GraphBatch.from_data_list([permuted, *graphs[1:]])), together)


@pytest.mark.parametrize("backend", ["auto", "dense", "sparse", "sdpa"])
def test_pair_state_is_a_bias_per_head(backend):
    torch.manual_seed(0)
    batch = random_batch((5, 1, 3))
    pairs, layer = Hops(2)(batch), Attention(8, 2, backend=backend, pair_bias=True)
    state = State(torch.randn(9, 8), p=torch.randn(pairs.count, 2, requires_grad=True))
    q, k, v = layer.project_in(state.x).view(9, 3, 2, 4).unbind(1)
    bias = torch.full((9, 9, 2), -torch.inf).index_put((pairs.edges[1], pairs.edges[0]), state.p)
    weights = (torch.einsum("ihd,jhd->ijh", q, k) / 2 + bias).softmax(1)
    expected = layer.project_out(torch.einsum("ijh,jhd->ihd", weights, v).flatten(1))
    actual = layer(state, batch, pairs)["x"]
    torch.testing.assert_close(actual, expected)
    grad = torch.randn_like(actual)
    torch.testing.assert_close(*(torch.autograd.grad((out * grad).sum(), state.p)[0] for out in (actual, expected)))
    torch.testing.assert_close(batch.to_dense(weights)[0, :, :5, 0][:5], layer.weights(state, batch, pairs)[0, 0])


def test_paths_with_real_or_no_edge_features():
    for schema, attr in ((Schema((5, 5)), None), (Schema((5, 5), edge_floats=2), torch.randn(6, 2))):
        batch = path_graphs([4, 4])
        batch.edge_attr = attr
        module = EdgePath(2, heads=2).module(8, schema)
        rows = module.pairs(Complete()(batch))
        rows.square().sum().backward()
        assert all(p.grad is not None for p in module.parameters())
        assert rows[4].any()  # node 1 reads node 0
        assert not rows[1].any()  # but not the reverse


def test_loader_precomputes_parameter_free_quantities():
    encodings = [Distance(3), EdgePath(2), Edges(), HeatKernel(writes=("p",)), Resistance(("p",))]
    net, batch = network(encodings, Complete() | VirtualNodes(1), edges=True), random_batch((5, 1, 4))
    readings = pickle.loads(pickle.dumps(net.readings()))
    assert readings == net.readings()
    prepare_all(batch, readings)
    pairs = (Complete() | VirtualNodes(1))(with_virtual_nodes(batch, 1))
    before = {id(owner): set(owner) for owner in (vars(pairs), batch.memo)}
    net.train()(batch)
    added = {name for owner in (vars(pairs), batch.memo) for name in set(owner) - before[id(owner)]}
    assert not {name for name in added if "hops" in str(name) or "path" in str(name) or isinstance(name, tuple)}
    assert {"of_edges", "edge_paths_2", f"hops_{pairs.batch.max_nodes}"} <= before[id(vars(pairs))]
    assert {key[0] for key in before[id(batch.memo)] if isinstance(key, tuple)} >= {"heat_kernel", "resistance"}


def test_incompatible_options_are_rejected():
    with pytest.raises(ValueError, match="pair_bias"):
        Attention(8, 2, edges=True, pair_bias=True)
    with pytest.raises(ValueError, match="Distance adds features to pairs"):
        network([Distance()])
    with pytest.raises(ValueError, match="heads=2"):
        network([Distance(3, 4)], pair_bias=True)(random_batch((4, 3)))
    for call in (partial(Distance, most=0), partial(EdgePath, length=0)):
        with pytest.raises(ValueError, match="must be 1 or more"):
            call()
    net = network([Distance(), RelativeWalks(3, ("p",))], edges=True)  # both as wide as the model: they are added
    assert net(random_batch((4, 3))).shape == (2, 3)
