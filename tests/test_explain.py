"""What an answer goes by: against sums over single nodes and edges, on networks of which it is known."""

import re

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from gt import explain as program
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference.attribution import (
    attention_weights,
    deletion,
    edge_occlusion,
    faithfulness,
    integrated_gradients,
    occlusion,
    rollout,
)
from gt.layers import Attention, ParallelBlock
from gt.masks import Hops, VirtualNodes
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.small_runs import configured, train, write_graphs

SCHEMA = Schema(node_vocab=(7,), outputs=1, kind="regression")


class Sum(nn.Module):
    """Answers with the sum of a weight for each kind of node, and of the products of joined ones."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = nn.Embedding(7, 1)

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        x = self.nodes(batch.x[:, 0])[:, 0]
        source, target = batch.edge_index
        each = x.index_add(0, target, 0.5 * x[source] * x[target])
        return each.new_zeros(batch.num_graphs).index_add(0, batch.batch, each)[:, None]


def graph(copies: int) -> GraphBatch:
    """So many of one graph: a path of four nodes, both ways, and one alone."""
    path = torch.tensor([[1, 0, 2, 1, 3, 2], [0, 1, 1, 2, 2, 3]])
    shifts = 5 * torch.arange(copies)
    edges = (path[:, None] + shifts[None, :, None]).flatten(1)
    x = torch.tensor([3, 1, 4, 1, 5]).repeat(copies)[:, None]
    return GraphBatch(torch.arange(copies + 1) * 5, edges, 5, x=x)


def of_sum(predictions):
    return predictions[:, 0]


def test_occlusion_is_what_nodes_and_edges_add():
    torch.manual_seed(0)
    net = Sum()
    x = net.nodes.weight.detach()[graph(1).x[:, 0], 0]
    joined = [[1], [0, 2], [1, 3], [2], []]
    alone = torch.stack([x[i] + sum(x[i] * x[j] for j in joined[i]) for i in range(5)])
    assert torch.allclose(occlusion(net, graph, of_sum), alone, atol=1e-6)
    pairs, falls = edge_occlusion(net, graph, of_sum)
    assert pairs.T.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert torch.allclose(falls, x[:3] * x[1:4], atol=1e-6)


def test_integrated_gradients_sum_to_the_answer():
    torch.manual_seed(0)
    net = Sum()
    parts = integrated_gradients(net, graph, of_sum)
    assert float(parts.sum()) == pytest.approx(net(graph(1)).item(), abs=1e-4)
    x = net.nodes.weight.detach()[graph(1).x[:, 0], 0]
    assert float(parts[4]) == pytest.approx(float(x[4]), abs=1e-6)  # joined with nothing


@pytest.mark.parametrize("virtual_nodes", [0, 2])
def test_attention_flows_as_the_layers_read(virtual_nodes):
    """Rollout against the product of matrices, of weights that the layers themselves have."""
    torch.manual_seed(0)
    mask = Hops(1) | VirtualNodes(virtual_nodes) if virtual_nodes else Hops(1)
    block = lambda width: ParallelBlock(width, attention=lambda w: Attention(w, 2), norm=nn.LayerNorm)  # noqa: E731
    net = GraphTransformer(SCHEMA, 8, 2, block, mask=mask).eval()
    weights = attention_weights(net, graph(1))
    assert [w.shape for _, w in weights] == [(2, 5 + virtual_nodes, 5 + virtual_nodes)] * 2
    for _, layer in weights:
        assert torch.allclose(layer.sum(-1), torch.ones(2, 5 + virtual_nodes), atol=1e-5)
        assert float(layer[:, 0, 3].abs().max()) == 0.0  # three hops apart
    identity = torch.eye(5 + virtual_nodes)
    flow = identity
    for _, layer in weights:
        flow = (0.5 * layer.mean(0) + 0.5 * identity) @ flow
    assert torch.allclose(rollout(weights, 5, 2), flow[2, :5], atol=1e-5)
    assert torch.allclose(rollout(weights, 5), flow[:5, :5].mean(0), atol=1e-5)


def test_a_right_ranking_is_faithful_and_its_reverse_is_not():
    torch.manual_seed(0)
    net = Sum()
    net.nodes.weight.data.abs_()
    order = occlusion(net, graph, of_sum).argsort(descending=True)
    curve = deletion(net, graph, of_sum, order, points=6)
    assert float(curve[0]) == pytest.approx(net(graph(1)).item())
    assert float(curve[-1]) == 0.0
    draw = torch.Generator().manual_seed(0)
    random = torch.stack([deletion(net, graph, of_sum, torch.randperm(5, generator=draw), 6) for _ in range(10)])
    reverse = deletion(net, graph, of_sum, order.flip(0), points=6)
    assert faithfulness(curve, random) > 0 > faithfulness(reverse, random)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    overrides = [*write_graphs(folder), "trainer.max_epochs=1"]
    train(folder / "run", *overrides)
    with configured(folder / "run", *overrides) as cfg:
        (folder / "run" / ".hydra").mkdir()
        OmegaConf.save(cfg, folder / "run" / ".hydra" / "config.yaml")
    return folder / "run"


def test_a_page_shows_a_sample(run, capsys):
    program.main([str(run), "--sample", "3"])
    said = capsys.readouterr().out
    assert str(run / "explanation-test-3.html") in said
    page = (run / "explanation-test-3.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", page) == [
        "Integrated gradients", "Occlusion", "Attention rollout", "Is it so?", "Edges", "Attention"
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["--sample", "20"], ["--output", "7"], ["--split", "train2"]])
def test_what_is_not_there_is_refused(run, words):
    with pytest.raises(UserError, match=words[0] if words[0] != "--split" else words[1]):
        program.main([str(run), *words])


def test_new_molecules_are_drawn(tmp_path):
    """Of a file without targets, a row of which is no molecule."""
    pytest.importorskip("rdkit")
    trained = tmp_path / "trained.csv"
    trained.write_text("smiles,y\n" + "\n".join(f"{'C' * (n + 1)}O,{n % 2}" for n in range(20)))
    overrides = [
        "data=molecules",
        f"data.source.path={trained}",
        f"data.source.root={tmp_path}",
        "trainer.max_epochs=1",
    ]
    train(tmp_path / "run", *overrides, "data.source.split=random", "data.source.kind=binary")
    with configured(tmp_path / "run", *overrides) as cfg:
        (tmp_path / "run" / ".hydra").mkdir()
        OmegaConf.save(cfg, tmp_path / "run" / ".hydra" / "config.yaml")
    (tmp_path / "new.csv").write_text("smiles\nCCO\nno molecule\nc1ccccc1Cl\n")
    out = tmp_path / "page.html"
    program.main(
        [str(tmp_path / "run"), f"data.source.path={tmp_path / 'new.csv'}", "--sample", "1", "--out", str(out)]
    )
    assert "C (5) - Cl (6)" in out.read_text()
