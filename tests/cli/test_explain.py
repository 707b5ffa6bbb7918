"""``python -m gt.explain``: attributions on networks whose attributions are known, and the page for a sample."""

import base64
import io
import re
from dataclasses import replace
from functools import partial
from itertools import pairwise

import matplotlib.image
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import gt
from gt import explain as program
from gt.cli.explanation import Explanation
from gt.cli.explanation_page import page
from gt.data.graphs import GraphData
from gt.data.ogb.code2 import FunctionNames
from gt.errors import UserError
from gt.graph import GraphBatch, path_graphs
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
from gt.masks import Hops, RandomEdges, VirtualNodes
from gt.masks.random import redraw_mask
from gt.model import GraphTransformer
from gt.schema import Schema
from tests.data.ogb_files import write_code2
from tests.runs import network, run_folder
from tests.small_runs import configured, train, write_graphs

SCHEMA = Schema(node_vocab=(7,), outputs=1, kind="regression")


class Sum(nn.Module):
    """Predicts the sum of one weight per kind of node, plus the products of the weights of adjacent nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = nn.Embedding(7, 1)

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        x = self.nodes(batch.x[:, 0])[:, 0]
        source, target = batch.edge_index
        each = x.index_add(0, target, 0.5 * x[source] * x[target])
        return each.new_zeros(batch.num_graphs).index_add(0, batch.batch, each)[:, None]


def graph(copies: int) -> GraphBatch:
    """Copies of one graph: a bidirectional path of four nodes, and an isolated node."""
    path = torch.tensor([[1, 0, 2, 1, 3, 2], [0, 1, 1, 2, 2, 3]])
    shifts = 5 * torch.arange(copies)
    edges = (path[:, None] + shifts[None, :, None]).flatten(1)
    x = torch.tensor([3, 1, 4, 1, 5]).repeat(copies)[:, None]
    return GraphBatch(torch.arange(copies + 1) * 5, edges, 5, x=x)


def sum_output(predictions):
    return predictions[:, 0]


def test_occlusion_is_the_contribution_of_nodes_and_edges():
    torch.manual_seed(0)
    net = Sum()
    x = net.nodes.weight.detach()[graph(1).x[:, 0], 0]
    neighbours = [[1], [0, 2], [1, 3], [2], []]
    expected = torch.stack([x[i] + sum(x[i] * x[j] for j in neighbours[i]) for i in range(5)])
    assert torch.allclose(occlusion(net, graph, sum_output), expected, atol=1e-6)
    pairs, drops = edge_occlusion(net, graph, sum_output)
    assert pairs.T.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert torch.allclose(drops, x[:3] * x[1:4], atol=1e-6)


def test_edge_occlusion_of_a_graph_without_edges():
    def isolated_nodes(copies: int) -> GraphBatch:
        return replace(path_graphs([1] * copies), x=torch.full((copies, 1), 2))

    pairs, drops = edge_occlusion(Sum(), isolated_nodes, sum_output)
    assert pairs.shape == (2, 0)
    assert drops.shape == (0,)


def test_integrated_gradients_sum_to_the_prediction():
    torch.manual_seed(0)
    net = Sum()
    contributions = integrated_gradients(net, graph, sum_output)
    assert float(contributions.sum()) == pytest.approx(net(graph(1)).item(), abs=1e-4)
    x = net.nodes.weight.detach()[graph(1).x[:, 0], 0]
    assert float(contributions[4]) == pytest.approx(float(x[4]), abs=1e-6)  # isolated


@pytest.mark.parametrize("virtual_nodes", [0, 2])
def test_rollout_is_the_product_of_attention_weights(virtual_nodes):
    """Rollout against the matrix product of the layers' own attention weights."""
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


def test_attention_under_redrawn_masks_is_averaged():
    torch.manual_seed(0)
    block, mask, by_draw = partial(ParallelBlock, attention=partial(Attention, heads=2)), RandomEdges(1), []
    net = GraphTransformer(SCHEMA, 8, 2, block, mask=mask).eval()
    for draw in (0, 1):
        net.masks = [redraw_mask(mask, draw)] * 2
        by_draw.append(dict(attention_weights(net, graph(1))))
    net.masks, net.redraw = [mask] * 2, 2
    for name, weights in attention_weights(net, graph(1)):
        torch.testing.assert_close(weights, (by_draw[0][name] + by_draw[1][name]) / 2)
        assert not torch.allclose(by_draw[0][name], by_draw[1][name])


def test_correct_ranking_is_faithful_but_not_its_reverse():
    torch.manual_seed(0)
    net = Sum()
    net.nodes.weight.data.abs_()
    order = occlusion(net, graph, sum_output).argsort(descending=True)
    curve = deletion(net, graph, sum_output, order, points=6)
    assert float(curve[0]) == pytest.approx(net(graph(1)).item())
    assert float(curve[-1]) == 0.0
    draw = torch.Generator().manual_seed(0)
    random = torch.stack([deletion(net, graph, sum_output, torch.randperm(5, generator=draw), 6) for _ in range(10)])
    reverse = deletion(net, graph, sum_output, order.flip(0), points=6)
    assert faithfulness(curve, random) > 0 > faithfulness(reverse, random)


def test_faithfulness_is_bounded_for_unchanged_predictions():
    curve, random = torch.tensor([0.5, 0.1, 0.5]), torch.tensor([[0.5, 0.4, 0.5], [0.5, 0.8, 0.5]])
    assert faithfulness(curve, random) == pytest.approx((0.6 - 0.1) / 3 / (0.8 - 0.1))
    assert faithfulness(curve[:1].expand(3), curve[:1].expand(2, 3)) == 0.0


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    overrides = [*write_graphs(folder), "trainer.max_epochs=1"]
    train(folder / "run", *overrides)
    with configured(folder / "run", *overrides) as cfg:
        (folder / "run" / ".hydra").mkdir()
        OmegaConf.save(cfg, folder / "run" / ".hydra" / "config.yaml")
    return folder / "run"


def test_page_has_all_sections(trained_run, capsys):
    program.main([str(trained_run), "--sample", "3"])
    output = capsys.readouterr().out
    assert str(trained_run / "explanation-test-3.html") in output
    page = (trained_run / "explanation-test-3.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", page) == [
        "Integrated gradients", "Occlusion", "Attention rollout", "Faithfulness", "Edges", "Attention"
    ]  # fmt: skip


@pytest.mark.parametrize("nodes", [2, 33, 100])
def test_matrix_labels_are_legible_at_any_page_width(nodes):
    """Drawings are not scaled; their labels are 12 pixels high and at least as far apart."""
    path = path_graphs([nodes])
    path.x = torch.zeros(nodes, 1, dtype=torch.long)
    torch.manual_seed(0)
    weights = torch.rand(3, nodes, nodes)
    weights[0, nodes // 2, 0] = 2.0  # node n/2 reads node 0 most
    names = [f"<{n}>" for n in range(nodes)]
    zeros = torch.zeros(nodes)
    explanation = Explanation(
        "test-0", "title", "1", "1", "class 1", None, path, names, None, False, {"occlusion": zeros},
        {"occlusion": torch.zeros(11)}, torch.zeros(2, 11), {"occlusion": 0.0}, torch.zeros(2, 0), torch.zeros(0),
        [("layers.0", weights)],
    )  # fmt: skip
    text = page(explanation)
    assert ".heads text { font-size: 12px" in text
    assert ".heads svg { max-width: none }" in text
    drawings = [
        tuple(map(float, m)) for m in re.findall(r'<svg width="(\d+)" height="(\d+)" viewBox="0 0 (\d+) ', text)
    ]
    assert len(drawings) == 3
    assert all(width == height == viewbox for width, height, viewbox in drawings)
    rows = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="end">(.*?)</text>', text)
    shown = [n for n in range(nodes) if n % (1 if nodes <= 40 else 3) == 0]
    assert [name for *_, name in rows] == [f"&lt;{n}&gt;" if nodes <= 40 else str(n) for n in shown]
    places = [float(y) for _, y, _ in rows]
    assert min(after - before for before, after in pairwise(places)) >= 12
    side = float(re.search(r'<image x="[\d.]+" y="([\d.]+)" width="([\d.]+)"', text)[2])
    margin = float(re.search(r'<image x="([\d.]+)"', text)[1])
    assert [round((y - 4 - margin) / side * nodes - 0.5) for y in places] == shown  # each next to its row
    picture = re.search(r'href="data:image/png;base64,(.*?)"', text)[1]
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(picture)))
    assert pixels.shape[:2] == (nodes, nodes)
    assert divmod(int(pixels[..., :3].sum(-1).argmax()), nodes) == (nodes // 2, 0)  # row, column


@pytest.mark.parametrize("words", [["--sample", "20"], ["--output", "7"], ["--node", "1"], ["--split", "train2"]])
def test_missing_sample_output_node_or_split_is_reported(trained_run, words):
    with pytest.raises(UserError, match=words[0] if words[0] != "--split" else words[1]):
        program.main([str(trained_run), *words])


def test_each_word_of_a_name_has_its_own_explanation(tmp_path, capsys):
    write_code2(tmp_path / "ogbg_code2", ["get name", "set name", "get it", "run", "set it"], [0, 1, 2])
    source = {"_target_": "gt.data.ogb.code2.FunctionNames", "root": str(tmp_path)}
    config = {"_target_": "gt.data.graphs.GraphData", "source": source}
    folder = run_folder(tmp_path / "run", GraphData(FunctionNames(str(tmp_path))), config, network())
    net = gt.load(folder)
    data = GraphData(FunctionNames(str(tmp_path)))
    data.open([])
    with torch.no_grad():
        rows = net(next(iter(data.loader("test")))).view(net.schema.positions, -1)
    for position, word in ((0, "set"), (1, "it"), (4, "__EOS__")):
        program.main([str(folder), "--position", str(position)])
        match = re.search(r"position (\d): predicted (\S+) \((.*?)\), true (\S+)", capsys.readouterr().out)
        best = rows[position].softmax(0).max(0)
        assert (match[1], match[2], match[4]) == (str(position), net.schema.names[int(best.indices)], word)
        assert float(match[3]) == pytest.approx(float(best.values), abs=0.006)
    for words in (["--position", "5"], ["--output", str(net.schema.outputs)]):
        with pytest.raises(UserError, match=words[0]):
            program.main([str(folder), *words])


def test_new_molecules_are_drawn(tmp_path):
    """The file has no targets, and one row is not a molecule."""
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
