"""Explanations in large graphs: the receptive field of a node, against predictions of the whole graph."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.utils import k_hop_subgraph

import gt
from gt import explain as program
from gt.cli import explanation_subject
from gt.cli.explanation import explain
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.encodings import Degree
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference.attribution import edge_occlusion
from gt.inference.neighbourhood import hops_read, neighbourhood
from gt.layers import GCN, Attention, ParallelBlock
from gt.masks import Complete, Expander, Hops, PerHead
from tests.foreign import LinearAttention
from tests.graphs import random_batch
from tests.inference.test_whole_graph import BLOCKS
from tests.inference.test_whole_graph import network as small_network
from tests.runs import network, write_run

NODES = 300
HUB = 55  # reads several nodes
GCN_AND_ATTENTION = partial(ParallelBlock, local=GCN, attention=partial(Attention, heads=4))


def graph(edges: int = 420) -> GraphBatch:
    """A sparse directed graph with self-loops and isolated nodes, and the features that `small_network` reads."""
    draw = torch.Generator().manual_seed(0)
    ends = torch.randint(0, NODES - 5, (2, edges), generator=draw).unique(dim=1)
    data = Data(
        x=torch.randn(NODES, 6, generator=draw),
        edge_index=ends,
        edge_attr=torch.randn(ends.shape[1], 3, generator=draw),
    )
    return GraphBatch.from_data_list([data])


@pytest.mark.parametrize(
    ("mask", "hops"),
    [
        (Hops(0), 3),
        (Hops(1), 3),
        (Hops(2), 6),
        ([Hops(0), Hops(2), Hops(3)], 1 + 2 + 3),
        (PerHead([Hops(0), Hops(1), Hops(2), Hops(1)]), 6),
        (Complete(), None),
        (Hops(1) | Expander(4), None),
    ],
    ids=str,
)
def test_hops_read_by_mask(mask, hops):
    assert hops_read(small_network(GCN_AND_ATTENTION, mask)) == hops


def test_hops_read_by_block():
    assert hops_read(small_network(BLOCKS["sequential"], Hops(2))) == 3 * (1 + 2)
    assert hops_read(small_network(BLOCKS["gin"], Complete())) == 3
    assert hops_read(small_network(partial(ParallelBlock, attention=LinearAttention), Hops(1))) is None
    assert hops_read(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("mask", [Hops(1), [Hops(0), Hops(2), Hops(1)]], ids=str)
def test_receptive_field_gives_the_same_prediction(block, mask):
    net, whole = small_network(block, mask), graph()
    hops, sizes = hops_read(net), []
    with torch.no_grad():
        expected = net(whole)
        for node in (0, 7, 100, 250, NODES - 1):  # the last has no edges
            part = neighbourhood(whole, node, hops, NODES)
            assert int(part.nodes[part.centre]) == node
            torch.testing.assert_close(net(part.copies(1))[part.centre], expected[node], rtol=1e-4, atol=1e-5)
            sizes.append(len(part.nodes))
    assert sizes[-1] == 1
    assert max(sizes[:3]) < NODES


def test_boundary_nodes_keep_their_degrees():
    net, whole = small_network(BLOCKS["gin"], Hops(0), encodings=[Degree()]), graph()
    node = 7

    def output(predictions):
        return predictions.view(-1, len(part.nodes), 4)[:, part.centre, 1]

    part = neighbourhood(whole, node, hops_read(net), NODES)
    with torch.no_grad():
        prediction = net(whole)[node]
        torch.testing.assert_close(
            net(part.copies(2))[[part.centre, part.centre + len(part.nodes)]], prediction.expand(2, -1)
        )
        pairs, drops = edge_occlusion(net, part.copies, output)
        for pair, drop in zip(part.nodes[pairs].T.tolist(), drops, strict=True):
            kept = (whole.edge_index.sort(0).values != torch.tensor(sorted(pair))[:, None]).any(0)
            without = GraphBatch(whole.ptr, whole.edge_index[:, kept], NODES, whole.x, whole.edge_attr[kept])
            assert float(drop) == pytest.approx(float(prediction[1] - net(without)[node, 1]), abs=1e-5)


def test_neighbourhood_matches_k_hop_subgraph():
    whole = graph()
    for node, hops in ((HUB, 2), (40, 3)):
        inside, edges, *_ = k_hop_subgraph(node, hops, whole.edge_index, num_nodes=NODES)
        part = neighbourhood(whole, node, hops, NODES)
        assert part.nodes.tolist() == inside.tolist()
        found = part.nodes[part.batch.edge_index]
        assert found.T.tolist() == sorted(edges.T.tolist(), key=lambda ends: ends[::-1])
        assert part.batch.x.equal(whole.x[inside])
        index = {tuple(ends): n for n, ends in enumerate(whole.edge_index.T.tolist())}
        assert part.batch.edge_attr.equal(whole.edge_attr[[index[tuple(ends)] for ends in found.T.tolist()]])


def test_size_limit_keeps_the_nearest_nodes():
    whole = graph()
    assert int(whole.in_degree[HUB]) > 2
    within_two = set(neighbourhood(whole, HUB, 2, NODES).nodes.tolist())
    for hops in (3, 20, None):
        part = neighbourhood(whole, HUB, hops, len(within_two) + 2)
        assert len(part.nodes) == len(within_two) + 2
        assert within_two < set(part.nodes.tolist()) or hops is None
        assert neighbourhood(whole, HUB, hops, 1).nodes.tolist() == [HUB]


def test_unlimited_neighbourhood_is_the_connected_component():
    whole = graph()
    both = torch.cat([whole.edge_index, whole.edge_index.flip(0)], dim=1)
    inside, *_ = k_hop_subgraph(HUB, NODES, both, num_nodes=NODES)
    assert neighbourhood(whole, HUB, None, NODES).nodes.tolist() == inside.tolist()


def test_repeated_batch():
    batch = random_batch((4, 1, 6), seed=2)
    batch.extras["near"] = torch.randn(batch.num_nodes, 2, 3)
    repeated = batch.repeated(3)
    assert repeated.ptr.tolist() == [0, 4, 5, 11, 15, 16, 22, 26, 27, 33]
    parts, one = repeated.to_data_list(), batch.to_data_list()
    for n, part in enumerate(parts):
        for name in ("x", "edge_index", "edge_attr", "near"):
            assert part[name].equal(one[n % 3][name])
    assert repeated.edge_index[1].diff().min() >= 0


def test_edge_occlusion_matches_the_whole_graph():
    """With a convolution that normalises by degrees, which differ in a part of a graph."""
    net, whole = small_network(partial(ParallelBlock, local=GCN), Hops(0)), graph()
    node = 7

    def output(predictions):
        return predictions.view(-1, len(part.nodes), 4)[:, part.centre, 1]

    part = neighbourhood(whole, node, hops_read(net), NODES)
    pairs, drops = edge_occlusion(net, part.copies, output)
    assert len(drops) > 5
    with torch.no_grad():
        before = net(whole)[node, 1]
        for pair, drop in zip(part.nodes[pairs].T.tolist(), drops, strict=True):
            kept = (whole.edge_index.sort(0).values != torch.tensor(sorted(pair))[:, None]).any(0)
            without = GraphBatch(whole.ptr, whole.edge_index[:, kept], NODES, whole.x, whole.edge_attr[kept])
            assert float(drop) == pytest.approx(float(before - net(without)[node, 1]), abs=1e-5)


def run_on_papers(folder: Path, count: int, *overrides: str) -> Path:
    """A run on a path of ``count`` papers, each of which reads the one before it."""
    (folder / "mine").mkdir()
    rows = [f"paper {n},{n % 3 + n // 150},{'ab'[n % 2]},{('train', 'valid', 'test')[n % 3]}" for n in range(count)]
    (folder / "mine" / "nodes.csv").write_text("\n".join(["node,size,label,split", *rows]))
    joined = [f"paper {n},paper {n + 1}" for n in range(count - 2)]  # the last paper has no edges
    (folder / "mine" / "edges.csv").write_text("\n".join(["source,target", *joined]))
    return write_run(folder, CSVGraphs, network("encoding=none", *overrides), NodeData, path=str(folder / "mine"))


def explain_command(run: Path, *arguments: str, capsys) -> str:
    program.main([str(run), *arguments])
    return capsys.readouterr().out


def test_node_is_explained_within_its_receptive_field(tmp_path, capsys):
    run = run_on_papers(tmp_path, 450, "model=gin", "model.depth=2")
    output = explain_command(run, "--node", "paper 30", capsys=capsys)
    assert "\nnode paper 30: predicted " in output
    assert "true a" in output
    assert "3 of the graph's 450 nodes" in output
    assert "the answer for these alone is the same" in output
    page = (run / "explanation-node-30.html").read_text()
    assert str(run / "explanation-node-30.html") in output
    assert "the answer for these alone is the same" in page
    edges = set(re.findall(r"paper \d+ - paper \d+", page))
    assert edges == {f"paper {n} - paper {n + 1}" for n in range(28, 30)}
    default = explain_command(run, capsys=capsys)  # of the last node, the default
    assert "\nnode paper 449: predicted" in default
    assert "1 of the graph's 450 nodes" in default


def test_global_attention_is_explained_in_the_nearest_nodes(tmp_path, capsys):
    run = run_on_papers(tmp_path, 450, "model=transformer", "mask=hops", "mask.hops=null", "model.depth=1")
    output = explain_command(run, "--node", "paper 30", "--out", str(tmp_path / "page.html"), capsys=capsys)
    assert "200 of the graph's 450 nodes" in output
    assert "Nodes beyond them matter too" in output
    task, data = gt.load(run), NodeData(CSVGraphs(str(tmp_path / "mine"), root=str(tmp_path)))
    data.open([])
    explanation = explain(task, data, "test", 0, node="paper 30")
    with torch.no_grad():
        whole = task.net(data.whole.batch(None))[30].softmax(0)
        part = explanation.batch
        near = task.net(part)[explanation.node].softmax(0)
    assert explanation.prediction == f"{task.schema.names[int(whole.argmax())]} ({float(whole.max()):.2f})"
    assert f"the answer is {task.schema.names[int(near.argmax())]} ({float(near.max()):.2f})" in explanation.note


def test_file_of_node_with_long_name_has_its_index(tmp_path):
    run = run_on_papers(tmp_path, 20, "model=gin", "model.depth=1")
    for name in ("nodes.csv", "edges.csv"):
        file = tmp_path / "mine" / name
        file.write_text(file.read_text().replace("paper ", "p" * 300))
    task, data = gt.load(run), NodeData(CSVGraphs(str(tmp_path / "mine"), root=str(tmp_path)))
    data.open([])
    assert explain(task, data, "test", 0, node="p" * 300 + "7").name == "node-7"


def test_sampled_evaluation_predicts_only_the_nearest_nodes(tmp_path, capsys):
    run = run_on_papers(tmp_path, 450, "model=gps_performer", "mask=hops", "mask.hops=null", "model.depth=1")
    sampled = ["data.evaluate=sampled", "data.chunk=50"]
    output = explain_command(run, "--node", "paper 30", *sampled, "--out", str(tmp_path / "page.html"), capsys=capsys)
    assert "200 of the graph's 450 nodes" in output
    assert "the answer is for these nodes alone" in output
    with pytest.raises(UserError, match=r"data\.evaluate=sampled"):
        explain_command(run, "--node", "paper 30", "data.chunk=50", capsys=capsys)


def test_small_predictions_are_compared_in_units_of_their_scale(tmp_path, capsys, monkeypatch):
    run = run_on_papers(tmp_path, 450, "model=transformer", "mask=hops", "mask.hops=null", "model.depth=1")
    task, data = gt.load(run), NodeData(CSVGraphs(str(tmp_path / "mine"), root=str(tmp_path)))
    data.open([])
    task.schema = replace(task.schema, mean=(0.0, 0.0), scale=(1e-6, 1e-6))
    monkeypatch.setattr(explanation_subject, "predict", lambda net, whole: torch.full((450, 2), 1e-5))
    monkeypatch.setattr(type(task.net), "forward", lambda net, batch: torch.full((batch.num_nodes, 2), 2e-5))
    assert "matter too" in explanation_subject.subject(task, data, "test", 0, "paper 30").note


@pytest.mark.parametrize("arguments", [["--node", "paper 99"], ["--sample", "1"], ["--output", "2"]])
def test_unknown_node_sample_or_output_is_rejected(arguments, tmp_path, capsys):
    run = run_on_papers(tmp_path, 20, "model=gin", "model.depth=1")
    with pytest.raises(UserError, match=arguments[0]):
        program.main([str(run), *arguments])
