"""Degree embeddings, against degrees computed by PyG."""

import pytest
import torch
from torch_geometric.utils import degree

from gt.encodings import Degree
from gt.errors import UserError
from gt.graph import WHOLE_DEGREES, GraphBatch
from gt.schema import Schema
from tests.encodings.samples import AWKWARD, graph_of, random_directed


@pytest.mark.parametrize("most", [0, 3, 64])
@pytest.mark.parametrize(
    "graphs", [AWKWARD, [random_directed(n, 3 * n, seed=n, simple=False) for n in (1, 4, 20)], [graph_of(1, [])]]
)
def test_output_sums_in_and_out_degree_embeddings(graphs, most):
    batch = GraphBatch.from_data_list(graphs)
    module = Degree(most).module(8, Schema())
    source, target = (degree(index, batch.num_nodes, torch.long).clamp(max=most) for index in batch.edge_index)
    torch.testing.assert_close(module.nodes(batch), module.incoming.weight[target] + module.outgoing.weight[source])
    assert module.concat == 0


def test_sampled_nodes_keep_degrees_of_whole_graph():
    whole = GraphBatch.from_data_list([random_directed(20, 100, seed=0, simple=False)])
    edges, nodes = whole.edge_index[:, ::3], torch.arange(2, 20)
    kept = edges[:, (edges >= 2).all(0)] - 2
    sample = GraphBatch(torch.tensor([0, 18]), kept, 18)
    sample.memo[WHOLE_DEGREES] = torch.stack([whole.in_degree, whole.out_degree])[:, nodes]
    module = Degree().module(8, Schema())
    torch.testing.assert_close(module.nodes(sample.finish()), module.nodes(whole)[nodes])


def test_parameter_count_key_and_options():
    assert sum(p.numel() for p in Degree(9).module(8, Schema()).parameters()) == 2 * 10 * 8
    assert Degree().key() is None
    with pytest.raises(UserError, match="0 or more"):
        Degree(-1)
