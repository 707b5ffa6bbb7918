"""GraphBatch against PyG's Batch: fields, dense views, moves between devices, and rejected input."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from gt import GraphBatch
from gt.inference.whole_graph import WholeGraph
from gt.masks import with_virtual_nodes
from tests.graphs import SIZES, random_batch, random_graph


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_fields_match_pyg(sizes):
    graphs = [random_graph(n, seed) for seed, n in enumerate(sizes)]
    batch, reference = GraphBatch.from_data_list(graphs), Batch.from_data_list(graphs)
    assert torch.equal(batch.batch, reference.batch)
    assert torch.equal(batch.ptr, reference.ptr)
    assert torch.equal(batch.x, reference.x)
    assert torch.equal(batch.y, reference.y)
    assert batch.num_graphs == len(sizes)
    assert batch.max_nodes == max(sizes)
    assert batch.equal_sizes == (len(set(sizes)) == 1)

    def sorted_edges(b):
        return sorted(map(tuple, torch.cat([b.edge_index.T, b.edge_attr], dim=1).tolist()))

    assert sorted_edges(batch) == sorted_edges(reference)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_edges_are_sorted_by_target(sizes):
    batch = random_batch(sizes)
    source, target = batch.edge_index
    assert (target.diff() >= 0).all()
    for node in range(batch.num_nodes):
        run = slice(int(batch.rowptr[node]), int(batch.rowptr[node + 1]))
        assert (target[run] == node).all()
        assert batch.in_degree[node] == (target == node).sum()
    assert batch.rowptr[-1] == len(source)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_dense_view_round_trip(sizes):
    batch = random_batch(sizes)
    values = torch.randn(batch.num_nodes, 3)
    dense = batch.to_dense(values)
    for b in range(batch.num_graphs):
        nodes = values[batch.ptr[b] : batch.ptr[b + 1]]
        assert torch.equal(dense[b, : len(nodes)], nodes)
        assert (dense[b, len(nodes) :] == 0).all()
    assert torch.equal(batch.to_packed(dense), values)


def test_dense_view_of_equal_sizes_is_no_copy():
    batch = random_batch((4, 4))
    values = torch.randn(8, 3)
    assert batch.to_dense(values).data_ptr() == values.data_ptr()


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_pyg_round_trip(sizes):
    graphs = [random_graph(n, seed) for seed, n in enumerate(sizes)]
    restored = GraphBatch.from_data_list(GraphBatch.from_data_list(graphs).to_data_list())
    original = GraphBatch.from_data_list(graphs)
    for name in ("ptr", "edge_index", "x", "edge_attr", "y"):
        assert torch.equal(getattr(restored, name), getattr(original, name)), name


def test_fields_with_a_row_per_node_become_extras():
    graphs = [Data(x=torch.ones(n, 1), edge_index=torch.empty(2, 0, dtype=torch.long), hint=torch.full((n, 2), n))
              for n in (2, 3)]  # fmt: skip
    batch = GraphBatch.from_data_list(graphs)
    assert batch.extras["hint"].tolist() == [[2, 2], [2, 2], [3, 3], [3, 3], [3, 3]]


def test_moving_keeps_derived_tensors():
    from gt.masks import Hops

    batch = random_batch((3, 5))
    edges = Hops(2)(batch).edges
    moved = batch.to("meta")
    assert moved.slot.device.type == "meta"
    assert moved.num_nodes == 8
    assert moved.memo[Hops(2)].edges.device.type == "meta"
    assert moved.memo[Hops(2)].batch is moved
    assert torch.equal(Hops(2)(batch.to("cpu")).edges, edges)


def test_invalid_graphs_are_rejected():
    with pytest.raises(ValueError, match="at least one graph"):
        GraphBatch.from_data_list([])
    bad = Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [2]]))
    with pytest.raises(ValueError, match=r"graph 1 has an edge to a node outside 0\.\.1"):
        GraphBatch.from_data_list([random_graph(2, 0), bad])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edge_attr": torch.ones(3, 1)}, "graph 1 has 3 rows of edge_attr for 4 edges"),
        ({"x": torch.ones(2, 1)}, "graph 1 has 2 rows of x for 3 nodes"),
        ({"edge_index": torch.zeros(4, 2).long()}, r"graph 1 has an edge_index \(4, 2\) .* expected \(2, edges\)"),
        ({"edge_index": torch.zeros(2, 4)}, r"graph 1 has an edge_index \(2, 4\) of torch.float32"),
    ],
)
def test_mismatched_row_counts_are_rejected(changes, message):
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    fields = {"x": torch.ones(3, 1), "edge_index": edge_index, "edge_attr": torch.ones(4, 1), "num_nodes": 3}
    with pytest.raises(ValueError, match=message):
        GraphBatch.from_data_list([Data(**fields), Data(**fields | changes), Data(**fields)])


@pytest.mark.parametrize("y", [2, 0.5, True, torch.tensor(1.5), np.float64(2.5)])
def test_scalar_target_becomes_a_row_as_in_pyg(y):
    graphs = [Data(x=torch.ones(2, 1), edge_index=torch.empty(2, 0).long(), y=y) for _ in range(3)]
    expected = Batch.from_data_list(graphs).y if not isinstance(y, np.float64) else torch.tensor([y] * 3)
    torch.testing.assert_close(GraphBatch.from_data_list(graphs).y, expected, check_dtype=False)


def test_strings_do_not_become_extras():
    graph = Data(x=torch.ones(2, 1), edge_index=torch.empty(2, 0).long(), names=["a", "b"], smiles="CO")
    assert GraphBatch.from_data_list([graph]).extras == {}


def test_single_pyg_graph_or_batch_is_rejected():
    graph = random_graph(3, 0)
    for invalid in (graph, Batch.from_data_list([graph])):
        with pytest.raises(
            ValueError, match=r"expected a list of graphs, not a .*: pass \[graph\] or batch\.to_data_list\(\)"
        ):
            GraphBatch.from_data_list(invalid)
    assert GraphBatch.from_data_list(random_graph(3, seed) for seed in range(2)).num_graphs == 2


@pytest.mark.parametrize("name", ["x", "y", "edge_attr", "pos"])
@pytest.mark.parametrize("place", [0, 1])
def test_field_missing_from_one_graph_is_rejected(name, place):
    graphs = [random_graph(5, seed) for seed in (2, 3)]
    for graph in graphs:
        graph.num_nodes, graph.pos = 5, torch.ones(5, 2)
    assert GraphBatch.from_data_list(graphs).extras["pos"].shape == (10, 2)
    del graphs[place][name]
    with pytest.raises(ValueError, match=rf"graph {place} has no {name}"):
        GraphBatch.from_data_list(graphs)


def test_graph_without_edges_needs_no_edge_features():
    whole, edgeless = random_graph(5, 0), random_graph(1, 1)
    edgeless.edge_index = edgeless.edge_index[:, :0]
    expected = GraphBatch.from_data_list([whole]).edge_attr
    del edgeless.edge_attr
    assert torch.equal(GraphBatch.from_data_list([edgeless, whole, edgeless]).edge_attr, expected)


def test_memo_computes_once_and_moves_with_the_batch():
    batch = random_batch((3, 5))
    counts = batch.cached("counts", lambda: torch.ones(2))
    assert batch.cached("counts", pytest.fail) is counts
    moved = batch.to("meta")
    assert moved.cached("counts", pytest.fail).is_meta
    assert not batch.memo["counts"].is_meta
    moved.cached("more", lambda: counts)
    assert "more" not in batch.memo


def test_values_cached_in_inference_mode_work_in_training():
    batch = random_batch((3, 5))
    with torch.inference_mode():
        batch.cached("scale", lambda: torch.ones(8))
    weight = torch.ones(8, requires_grad=True)
    (weight * batch.memo["scale"]).sum().backward()
    assert weight.grad.sum() == 8


def test_num_nodes_is_known_on_meta_device():
    batch = GraphBatch(torch.tensor([0, 3, 5]), torch.empty(2, 0, dtype=torch.long), 3)
    assert batch.to("meta").num_nodes == 5  # meta tensors have no values to count


def test_repr_is_one_line():
    batch = random_batch((4, 1, 6), seed=2)
    batch.extras["near"] = torch.zeros(11, 2)
    shapes = f"x={list(batch.x.shape)}, edge_attr={list(batch.edge_attr.shape)}"
    assert repr(batch).startswith(f"GraphBatch(graphs=3, nodes=11, edges={batch.num_edges}, {shapes}")
    assert repr(batch).endswith("near=[11, 2])")
    assert repr(with_virtual_nodes(batch, 2)).startswith("WideBatch(graphs=3, nodes=17, edges=")
    whole = WholeGraph(batch.ptr, batch.edge_index, batch.max_nodes)
    assert repr(whole) == f"WholeGraph(graphs=3, nodes=11, edges={batch.num_edges})"
