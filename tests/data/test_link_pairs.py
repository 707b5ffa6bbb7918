"""Links within each of many graphs: read, batched, told from pairs that are drawn, learned, and predicted."""

import json
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.datasets import LRGBDataset

import gt
from gt.data.batch_sampler import Request
from gt.data.datamodule import ALL
from gt.data.graphs import GraphData
from gt.data.link_pairs import Negatives, query_rows
from gt.data.own.pyg import PyG
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.train.network import build
from tests.data.large.test_nodes_run import train
from tests.data.own.pyg_datasets import Kept
from tests.data.own.test_pyg_metric import write_contacts
from tests.runs import network, predictions
from tests.train.test_link_metrics import with_links


def rings(sizes=(5, 3, 8, 1, 4, 7, 6, 2, 9, 3, 5, 4), seed=0) -> list[Data]:
    """Rings of nodes with categories; nodes that are opposite are linked, and other pairs, if any, are not."""
    graphs, draw = [], torch.Generator().manual_seed(seed)
    for number, size in enumerate(sizes):
        node = torch.arange(size)
        ends = torch.stack([node, (node + 1) % size])
        pairs = torch.stack([node, (node + size // 2) % size])
        others = torch.randint(size, (2, number % 4), generator=draw)
        graphs.append(
            Data(
                x=torch.randint(4, (size, 2), generator=draw),
                edge_index=torch.cat([ends, ends.flip(0)], 1)[:, : 2 * size],
                edge_label_index=torch.cat([pairs, others], 1),
                edge_label=(torch.arange(size + others.shape[1]) < size).long(),
            )
        )
    return graphs


def opened(graphs, tmp_path, batch_size=4, encodings=(), **options) -> GraphData:
    data = GraphData(PyG(partial(Kept, graphs), root=str(tmp_path), **options), batch_size=batch_size)
    data.open(list(encodings))
    return data


def test_batches_hold_the_pairs_of_their_graphs(tmp_path):
    graphs = rings()
    data = opened(graphs, tmp_path)
    assert data.schema.level == "link"
    assert data.schema.task() == "predicts for each link: edge_label, 1 yes/no answer"
    for split in ("train", "valid"):
        dataset = data.dataset(split)
        for request in data.batches(split):
            batch = dataset[request]
            ends, labels = [], []
            for place, number in enumerate(dataset.ids[list(request.samples)]):
                ends.append(graphs[number].edge_label_index + batch.ptr[place])
                labels.append(graphs[number].edge_label)
            rows = query_rows(batch)
            assert torch.equal(batch.links[:, rows], torch.cat(ends, 1))
            assert torch.equal(batch.y[rows, 0], torch.cat(labels).float())
    assert len(data.targets("train")) == sum(len(graphs[n].edge_label) for n in data.graphs.splits["train"])
    assert data.targets("valid").shape[1] == 3


def test_a_store_of_several_chunks_keeps_them(tmp_path):
    from gt.data.store import load, save

    graphs = opened(rings(), tmp_path).graphs
    parts = [graphs.between(0, 5), graphs.between(5, 5), graphs.between(5, 12)]
    save(iter(parts), tmp_path / "again")
    again = load(tmp_path / "again")
    assert np.array_equal(again.link_ptr, graphs.link_ptr)
    assert np.array_equal(again.links["ends"], graphs.links["ends"])
    assert np.array_equal(again.links["y"], graphs.links["y"])


@pytest.mark.parametrize("head", [{"dot": True, "hidden": 0}, {"hidden": 1}], ids=["scalar product", "product"])
def test_neither_company_nor_the_order_of_nodes_changes_an_answer(tmp_path, head):
    data = opened(rings(), tmp_path, batch_size=12, fractions=(0.4, 0.6, 0.0))
    net = build(network("model=gps", *(f"+model.head.{k}={v}" for k, v in head.items() if k == "dot")), data.schema)
    net = net.eval()
    together = data.dataset("valid")[Request(tuple(range(7)))]
    expected, metric = net(together), data.measures()[0]
    alone = [data.dataset("valid")[Request((number,))] for number in range(7)]
    torch.testing.assert_close(torch.cat([net(each) for each in alone]), expected, rtol=1e-4, atol=1e-5)
    metric.update(expected, together.y)
    scores = metric.compute()
    for each in alone:
        metric.update(net(each), each.y)
    again = GraphData(PyG(partial(Kept, [permuted(graph) for graph in rings()]), root=str(tmp_path / "permuted")))
    again.source.fractions = (0.4, 0.6, 0.0)
    again.open([])
    turned = again.dataset("valid")[Request(tuple(range(7)))]
    rows = [query_rows(each) for each in (together, turned)]
    torch.testing.assert_close(net(turned)[rows[1]], expected[rows[0]], rtol=1e-4, atol=1e-5)
    metric.reset()
    metric.update(net(turned), turned.y)
    for name, score in metric.compute().items():
        torch.testing.assert_close(score, scores[name])


def permuted(graph: Data) -> Data:
    """The same graph whose nodes have other numbers."""
    size = len(graph.x)
    place = torch.randperm(size, generator=torch.Generator().manual_seed(size))
    return Data(
        x=torch.empty_like(graph.x).index_copy(0, place, graph.x),
        edge_index=place[graph.edge_index],
        edge_label_index=place[graph.edge_label_index],
        edge_label=graph.edge_label,
    )


def drawn(batch: GraphBatch, seed: int, count: int = 2) -> tuple[GraphBatch, list[tuple[int, int]]]:
    """A batch with negatives, and these."""
    random = np.random.default_rng(seed).integers(1 << 60, size=batch.num_graphs).astype(np.uint64)
    shown = Negatives(count)(batch, random)
    return shown, [pair for pair, yes in zip(shown.links.T.tolist(), shown.y[:, 0].tolist(), strict=True) if not yes]


def test_negatives_are_other_nodes_for_the_source_of_each_link():
    batch = with_links()
    links = batch.links[:, batch.y[:, 0] == 1].T.tolist()
    shown, pairs = drawn(batch, 0)
    assert shown.links[:, : len(links)].T.tolist() == links
    assert len({tuple(pair) for pair in pairs}) == len(pairs)
    assert not {tuple(pair) for pair in pairs} & {tuple(pair) for pair in links}
    asks, found = Counter(u for u, _ in links), Counter(u for u, _ in pairs)
    for source, times in asks.items():
        free = int(batch.sizes[batch.batch[source]]) - len({v for u, v in links if u == source})
        assert found[source] == min(2 * times, free)
    assert found.keys() <= asks.keys()
    assert all(batch.batch[u] == batch.batch[v] for u, v in pairs)
    assert drawn(batch, 1)[1] != pairs
    assert batch.y.isnan().any()  # the batch itself stays as it was


def test_every_free_node_is_as_likely():
    batch = with_links((7,), empty=())
    batch.links, batch.y = torch.tensor([[2], [5]]), torch.ones(1, 1)
    counts = Counter(v for seed in range(1200) for _, v in drawn(batch, seed, count=1)[1])
    assert counts.keys() == {0, 1, 2, 3, 4, 6}
    assert max(abs(count - 200) for count in counts.values()) < 60


def test_no_link_and_no_free_node_are_no_trouble():
    batch = with_links((1, 2), empty=())
    batch.links, batch.y = torch.tensor([[0, 1, 1, 2], [0, 1, 2, 1]]), torch.ones(4, 1)
    shown, pairs = drawn(batch, 0)
    assert pairs == [[2, 2]]
    batch.y = torch.zeros(4, 1)
    assert drawn(batch, 0)[0].links.shape == (2, 0)
    assert len(shown.y) == 5


def test_negatives_are_drawn_anew_in_each_epoch_of_training_and_kept_in_evaluation(tmp_path):
    data = opened(rings(), tmp_path, negatives=1, fractions=(0.5, 0.5, 0.0))

    def pairs(split: str, samples: tuple[int, ...], epoch: tuple[int, ...]) -> list[list[int]]:
        batch = data.dataset(split)[Request(samples, draw=epoch)]
        return batch.links[:, query_rows(batch)].T.tolist()

    assert pairs("train", (0, 1, 2, 3), (0,)) != pairs("train", (0, 1, 2, 3), (1,))
    assert pairs("train", (0, 1, 2, 3), (0,)) == pairs("train", (0, 1, 2, 3), (0,))
    batch = data.dataset("train")[Request((2, 0), draw=(0,))]
    for place, sample in enumerate((2, 0)):  # whatever else is in the batch
        here = batch.links[:, batch.batch[batch.links[0]] == place] - batch.ptr[place]
        assert sorted(here.T.tolist()) == sorted(pairs("train", (sample,), (0,)))
    assert pairs("valid", (0, 1), ()) == pairs("valid", (0, 1), ())


def changed(number: int, **values) -> list[Data]:
    graphs = rings()
    for name, value in values.items():
        graphs[number][name] = value
    return graphs


UNREADABLE = [
    (
        changed(2, edge_label_index=torch.tensor([[0], [8]]), edge_label=torch.ones(1)),
        r"graph 2: .* \[0, 8\], .*0\.\.7",
    ),
    (changed(1, edge_label=torch.ones(1).long()), "graph 1: 1 edge_label for 4 node pairs"),
    (changed(1, edge_label=torch.full((4,), 2)), "graph 1: 2 in edge_label is neither 0 nor 1"),
    ([Data(x=g.x, edge_label_index=g.edge_label_index) for g in rings()], "no edge_label, but"),
    (rings()[:1], "choose data=pyg_nodes|one graph|data.level=link"),
    ([g.update({"edge_label": 0 * g.edge_label}) for g in rings()], "no pair of the training graphs is linked"),
    ([g.update({"edge_label": 0 * g.edge_label + 1}) for g in rings()], "draw some by data.negatives=2"),
]


@pytest.mark.parametrize(("graphs", "why"), UNREADABLE)
def test_what_cannot_be_read_is_said(tmp_path, graphs, why):
    with pytest.raises(UserError, match=why):
        opened(graphs, tmp_path)


def test_what_does_not_fit_is_said(tmp_path):
    with pytest.raises(UserError, match="does not apply to links"):
        opened(rings(), tmp_path, kind="regression")
    with pytest.raises(UserError, match="learns links from some graphs and predicts them in others"):
        opened(rings()[:1], tmp_path, level="link")
    graphs = [Data(x=g.x, edge_index=g.edge_index, y=torch.tensor([i % 2])) for i, g in enumerate(rings())]
    with pytest.raises(UserError, match=r"data\.negatives is for links"):
        opened(graphs, tmp_path, negatives=2)
    with pytest.raises(UserError, match="no edge_label_index"):
        opened(graphs, tmp_path, level="link")
    data = GraphData(PyG(partial(Kept, rings()), root=str(tmp_path)))
    data.spread = True
    with pytest.raises(UserError, match="trainer=context_parallel"):
        data.open([])


def test_graphs_with_both_kinds_of_target_are_read_as_is_said(tmp_path):
    graphs = rings()
    for number, graph in enumerate(graphs):
        graph.y = torch.tensor([number % 2])
    assert opened(graphs, tmp_path).schema.level == "graph"
    assert opened(graphs, tmp_path, level="link").schema.level == "link"


def test_folds_and_static_shapes(tmp_path):
    data = opened(rings(), tmp_path, folds=4, fold=1)
    parts = [set(data.graphs.splits[split].tolist()) for split in ("train", "valid", "test")]
    assert set.union(*parts) == set(range(12))
    assert sum(map(len, parts)) == 12
    batch = next(iter(data.loader("valid")))
    data.static = True
    filled = next(iter(data.loader("valid")))
    assert filled.num_nodes > batch.num_nodes
    assert torch.equal(filled.links, batch.links)
    assert torch.equal(filled.y.nan_to_num(9), batch.y.nan_to_num(9))


def test_contacts_are_learned_ranked_and_predicted(tmp_path):
    """A few steps by the ordinary command, from the raw files; then predictions of them, and of graphs in memory."""
    write_contacts(tmp_path / "pyg")
    options = [f"data.root={tmp_path}", f"data.dataset.root={tmp_path / 'pyg'}", "data.batch_size=3"]
    run = tmp_path / "run"
    scores = train(run, "experiment=pcqm_contact_gcn", *options, "encoding.laplacian.dim=4")
    result = json.loads((run / "result.json").read_text())
    assert result["criterion"] == "mrr"
    assert scores.keys() == {"loss", "mrr", "mrr_filtered", "mrr_extended", "hits@1", "hits@3", "hits@10"}
    assert result["baseline"]["mrr"] == pytest.approx(0.4)  # 4 nodes, all tied: rank 2.5
    assert result["baseline"]["mrr_extended"] == pytest.approx(0.5)
    assert result["baseline"]["loss"] == pytest.approx(float(np.log(3) - np.log(2) * 2 / 3))  # one in three is linked

    table = predictions(run, "--split", "test")
    assert table.columns.tolist() == ["graph", "from_node", "to_node", "prediction", "target"]
    assert table["graph"].astype(int).is_monotonic_increasing
    of_files = predictions(run, "--split", ALL)
    dataset = [LRGBDataset(str(tmp_path / "pyg"), "PCQM-Contact", split) for split in ("train", "val", "test")]
    graphs = [graph for split in dataset for graph in split]
    expected = torch.cat([graph.edge_label_index.T for graph in graphs]).tolist()
    assert of_files[["from_node", "to_node"]].astype(int).to_numpy().tolist() == expected
    assert of_files["target"].astype(float).tolist() == torch.cat([graph.edge_label for graph in graphs]).tolist()
    found = gt.load(run).predict([Data.from_dict({**g.to_dict(), "edge_label": None}) for g in graphs])
    assert "target" not in found
    np.testing.assert_allclose(found["prediction"], of_files["prediction"].astype(float), rtol=1e-4, atol=1e-5)
    one = gt.load(run).predict(graphs[:1])
    np.testing.assert_allclose(one["prediction"], found["prediction"][: len(one)], rtol=1e-4, atol=1e-5)
