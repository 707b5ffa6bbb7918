"""Degree embeddings against degrees counted by PyG."""

import pytest
import torch
from torch_geometric.utils import degree

from gt.encodings import Degree
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.schema import Schema
from tests.encodings.samples import AWKWARD, graph_of, random_directed


@pytest.mark.parametrize("most", [0, 3, 64])
@pytest.mark.parametrize(
    "graphs", [AWKWARD, [random_directed(n, 3 * n, seed=n, simple=False) for n in (1, 4, 20)], [graph_of(1, [])]]
)
def test_sum_of_the_embeddings_of_both_degrees(graphs, most):
    batch = GraphBatch.from_data_list(graphs)
    module = Degree(most).module(8, Schema())
    source, target = (degree(index, batch.num_nodes, torch.long).clamp(max=most) for index in batch.edge_index)
    torch.testing.assert_close(module.nodes(batch), module.incoming.weight[target] + module.outgoing.weight[source])
    assert module.concat == 0


def test_parameter_count_and_options():
    assert sum(p.numel() for p in Degree(9).module(8, Schema()).parameters()) == 2 * 10 * 8
    assert Degree().key() is None
    with pytest.raises(UserError, match="0 or more"):
        Degree(-1)
