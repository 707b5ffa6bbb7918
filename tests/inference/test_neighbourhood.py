"""What is explained of a large graph: the nodes that an answer goes by, against the whole graph."""

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
from tests.inference.test_inference import BLOCKS
from tests.inference.test_inference import network as small_network
from tests.runs import network, run_of

NODES = 300
HUB = 55  # reads several nodes
TWICE = partial(ParallelBlock, local=GCN, attention=partial(Attention, heads=4))


def graph(edges: int = 420) -> GraphBatch:
    """A sparse directed graph with loops and isolated nodes, of features as `small_network` reads them."""
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
def test_layers_say_how_far_an_answer_reads(mask, hops):
    assert hops_read(small_network(TWICE, mask)) == hops


def test_steps_of_a_block_add_up_and_what_is_not_known_has_no_end():
    assert hops_read(small_network(BLOCKS["sequential"], Hops(2))) == 3 * (1 + 2)
    assert hops_read(small_network(BLOCKS["gin"], Complete())) == 3
    assert hops_read(small_network(partial(ParallelBlock, attention=LinearAttention), Hops(1))) is None
    assert hops_read(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("mask", [Hops(1), [Hops(0), Hops(2), Hops(1)]], ids=str)
def test_the_part_that_is_read_gives_the_answer_of_the_whole_graph(block, mask):
    net, whole = small_network(block, mask), graph()
    hops, sizes = hops_read(net), []
    with torch.no_grad():
        answers = net(whole)
        for node in (0, 7, 100, 250, NODES - 1):  # the last is joined to nobody
            part = neighbourhood(whole, node, hops, NODES)
            assert int(part.nodes[part.centre]) == node
            torch.testing.assert_close(net(part.copies(1))[part.centre], answers[node], rtol=1e-4, atol=1e-5)
            sizes.append(len(part.nodes))
    assert sizes[-1] == 1
    assert max(sizes[:3]) < NODES


def test_nodes_at_its_rim_are_of_the_degree_that_they_have_in_the_whole_graph():
    net, whole = small_network(BLOCKS["gin"], Hops(0), encodings=[Degree()]), graph()
    node = 7

    def answer(predictions):
        return predictions.view(-1, len(part.nodes), 4)[:, part.centre, 1]

    part = neighbourhood(whole, node, hops_read(net), NODES)
    with torch.no_grad():
        said = net(whole)[node]
        torch.testing.assert_close(
            net(part.copies(2))[[part.centre, part.centre + len(part.nodes)]], said.expand(2, -1)
        )
        pairs, falls = edge_occlusion(net, part.copies, answer)
        for pair, fall in zip(part.nodes[pairs].T.tolist(), falls, strict=True):
            kept = (whole.edge_index.sort(0).values != torch.tensor(sorted(pair))[:, None]).any(0)
            without = GraphBatch(whole.ptr, whole.edge_index[:, kept], NODES, whole.x, whole.edge_attr[kept])
            assert float(fall) == pytest.approx(float(said[1] - net(without)[node, 1]), abs=1e-5)


def test_it_is_the_nearest_nodes_and_all_edges_between_them():
    whole = graph()
    for node, hops in ((HUB, 2), (40, 3)):
        inside, edges, *_ = k_hop_subgraph(node, hops, whole.edge_index, num_nodes=NODES)
        part = neighbourhood(whole, node, hops, NODES)
        assert part.nodes.tolist() == inside.tolist()
        given = part.nodes[part.batch.edge_index]
        assert given.T.tolist() == sorted(edges.T.tolist(), key=lambda ends: ends[::-1])
        assert part.batch.x.equal(whole.x[inside])
        place = {tuple(ends): n for n, ends in enumerate(whole.edge_index.T.tolist())}
        assert part.batch.edge_attr.equal(whole.edge_attr[[place[tuple(ends)] for ends in given.T.tolist()]])


def test_where_there_is_no_room_the_nearest_stay():
    whole = graph()
    assert int(whole.in_degree[HUB]) > 2
    two = set(neighbourhood(whole, HUB, 2, NODES).nodes.tolist())
    for hops in (3, 20, None):
        some = neighbourhood(whole, HUB, hops, len(two) + 2)
        assert len(some.nodes) == len(two) + 2
        assert two < set(some.nodes.tolist()) or hops is None
        assert neighbourhood(whole, HUB, hops, 1).nodes.tolist() == [HUB]


def test_what_reads_without_end_is_followed_in_both_directions():
    whole = graph()
    both = torch.cat([whole.edge_index, whole.edge_index.flip(0)], dim=1)
    inside, *_ = k_hop_subgraph(HUB, NODES, both, num_nodes=NODES)
    assert neighbourhood(whole, HUB, None, NODES).nodes.tolist() == inside.tolist()


def test_copies_of_a_batch_are_as_many_graphs_side_by_side():
    some = random_batch((4, 1, 6), seed=2)
    some.extras["near"] = torch.randn(some.num_nodes, 2, 3)
    both = some.repeated(3)
    assert both.ptr.tolist() == [0, 4, 5, 11, 15, 16, 22, 26, 27, 33]
    parts, one = both.to_data_list(), some.to_data_list()
    for n, part in enumerate(parts):
        for name in ("x", "edge_index", "edge_attr", "near"):
            assert part[name].equal(one[n % 3][name])
    assert both.edge_index[1].diff().min() >= 0


def test_an_edge_that_is_taken_away_is_missed_as_in_the_whole_graph():
    """By a convolution that goes by degrees, which a part of a graph does not have."""
    net, whole = small_network(partial(ParallelBlock, local=GCN), Hops(0)), graph()
    node = 7

    def answer(predictions):
        return predictions.view(-1, len(part.nodes), 4)[:, part.centre, 1]

    part = neighbourhood(whole, node, hops_read(net), NODES)
    pairs, falls = edge_occlusion(net, part.copies, answer)
    assert len(falls) > 5
    with torch.no_grad():
        before = net(whole)[node, 1]
        for pair, fall in zip(part.nodes[pairs].T.tolist(), falls, strict=True):
            kept = (whole.edge_index.sort(0).values != torch.tensor(sorted(pair))[:, None]).any(0)
            without = GraphBatch(whole.ptr, whole.edge_index[:, kept], NODES, whole.x, whole.edge_attr[kept])
            assert float(fall) == pytest.approx(float(before - net(without)[node, 1]), abs=1e-5)


def papers(folder: Path, count: int, *overrides: str) -> Path:
    """A run on a path of so many papers, each of which reads the one before it."""
    (folder / "mine").mkdir()
    rows = [f"paper {n},{n % 3 + n // 150},{'ab'[n % 2]},{('train', 'valid', 'test')[n % 3]}" for n in range(count)]
    (folder / "mine" / "nodes.csv").write_text("\n".join(["node,size,label,split", *rows]))
    joined = [f"paper {n},paper {n + 1}" for n in range(count - 2)]  # the last paper is joined to nobody
    (folder / "mine" / "edges.csv").write_text("\n".join(["source,target", *joined]))
    return run_of(folder, CSVGraphs, network("encoding=none", *overrides), NodeData, path=str(folder / "mine"))


def explained(run: Path, *words: str, capsys) -> str:
    program.main([str(run), *words])
    return capsys.readouterr().out


def test_a_node_is_explained_by_its_name_and_looked_at_with_what_it_reads(tmp_path, capsys):
    run = papers(tmp_path, 450, "model=gin", "model.depth=2")
    said = explained(run, "--node", "paper 30", capsys=capsys)
    assert "\nnode paper 30: predicted " in said
    assert "true a" in said
    assert "3 of the graph's 450 nodes" in said
    assert "the answer for these alone is the same" in said
    page = (run / "explanation-node-30.html").read_text()
    assert str(run / "explanation-node-30.html") in said
    assert "the answer for these alone is the same" in page
    edges = set(re.findall(r"paper \d+ - paper \d+", page))
    assert edges == {f"paper {n} - paper {n + 1}" for n in range(28, 30)}
    alone = explained(run, capsys=capsys)  # the last node, unless told
    assert "\nnode paper 449: predicted" in alone
    assert "1 of the graph's 450 nodes" in alone


def test_a_model_that_reads_the_graph_is_told_of_in_the_part_that_is_looked_at(tmp_path, capsys):
    run = papers(tmp_path, 450, "model=transformer", "mask=hops", "mask.hops=null", "model.depth=1")
    said = explained(run, "--node", "paper 30", "--out", str(tmp_path / "page.html"), capsys=capsys)
    assert "200 of the graph's 450 nodes" in said
    assert "Nodes beyond them matter too" in said
    task, data = gt.load(run), NodeData(CSVGraphs(str(tmp_path / "mine"), root=str(tmp_path)))
    data.open([])
    why = explain(task, data, "test", 0, node="paper 30")
    with torch.no_grad():
        whole = task.net(data.whole.batch(None))[30].softmax(0)
        part = why.batch
        near = task.net(part)[why.node].softmax(0)
    assert why.prediction == f"{task.schema.names[int(whole.argmax())]} ({float(whole.max()):.2f})"
    assert f"the answer is {task.schema.names[int(near.argmax())]} ({float(near.max()):.2f})" in why.note


def test_a_node_of_a_name_too_long_for_a_file_has_its_number_there(tmp_path):
    run = papers(tmp_path, 20, "model=gin", "model.depth=1")
    for name in ("nodes.csv", "edges.csv"):
        file = tmp_path / "mine" / name
        file.write_text(file.read_text().replace("paper ", "p" * 300))
    task, data = gt.load(run), NodeData(CSVGraphs(str(tmp_path / "mine"), root=str(tmp_path)))
    data.open([])
    assert explain(task, data, "test", 0, node="p" * 300 + "7").name == "node-7"


def test_a_model_that_is_evaluated_on_samples_alone_is_asked_of_the_part_alone(tmp_path, capsys):
    run = papers(tmp_path, 450, "model=gps_performer", "mask=hops", "mask.hops=null", "model.depth=1")
    sampled = ["data.evaluate=sampled", "data.chunk=50"]
    said = explained(run, "--node", "paper 30", *sampled, "--out", str(tmp_path / "page.html"), capsys=capsys)
    assert "200 of the graph's 450 nodes" in said
    assert "the answer is for these nodes alone" in said
    with pytest.raises(UserError, match=r"data\.evaluate=sampled"):
        explained(run, "--node", "paper 30", "data.chunk=50", capsys=capsys)


def test_small_answers_are_the_same_where_they_are_so_in_their_own_unit(tmp_path, capsys, monkeypatch):
    run = papers(tmp_path, 450, "model=transformer", "mask=hops", "mask.hops=null", "model.depth=1")
    task, data = gt.load(run), NodeData(CSVGraphs(str(tmp_path / "mine"), root=str(tmp_path)))
    data.open([])
    task.schema = replace(task.schema, mean=(0.0, 0.0), scale=(1e-6, 1e-6))
    monkeypatch.setattr(explanation_subject, "predict", lambda net, whole: torch.full((450, 2), 1e-5))
    monkeypatch.setattr(type(task.net), "forward", lambda net, batch: torch.full((batch.num_nodes, 2), 2e-5))
    assert "matter too" in explanation_subject.subject(task, data, "test", 0, "paper 30").note


@pytest.mark.parametrize("words", [["--node", "paper 99"], ["--sample", "1"], ["--output", "2"]])
def test_what_is_not_there_is_refused(words, tmp_path, capsys):
    run = papers(tmp_path, 20, "model=gin", "model.depth=1")
    with pytest.raises(UserError, match=words[0]):
        program.main([str(run), *words])
