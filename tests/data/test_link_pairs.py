"""Links within many graphs: reading, batching, negatives, training and prediction."""

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
from tests.data.own.pyg_datasets import CollatedDataset
from tests.data.own.test_pyg_metric import write_contacts
from tests.runs import network, predictions
from tests.train.test_link_metrics import batch_with_links


def rings(sizes=(5, 3, 8, 1, 4, 7, 6, 2, 9, 3, 5, 4), seed=0) -> list[Data]:
    """Rings of nodes with categorical features; opposite nodes are linked, further random pairs, if any, are not."""
    graphs, draw = [], torch.Generator().manual_seed(seed)
    for number, size in enumerate(sizes):
        node = torch.arange(size)
        ends = torch.stack([node, (node + 1) % size])
        pairs = torch.stack([node, (node + size // 2) % size])
        random_pairs = torch.randint(size, (2, number % 4), generator=draw)
        graphs.append(
            Data(
                x=torch.randint(4, (size, 2), generator=draw),
                edge_index=torch.cat([ends, ends.flip(0)], 1)[:, : 2 * size],
                edge_label_index=torch.cat([pairs, random_pairs], 1),
                edge_label=(torch.arange(size + random_pairs.shape[1]) < size).long(),
            )
        )
    return graphs


def open_data(graphs, tmp_path, batch_size=4, encodings=(), **options) -> GraphData:
    data = GraphData(PyG(partial(CollatedDataset, graphs), root=str(tmp_path), **options), batch_size=batch_size)
    data.open(list(encodings))
    return data


def test_batches_hold_the_pairs_of_their_graphs(tmp_path):
    graphs = rings()
    data = open_data(graphs, tmp_path)
    assert data.schema.level == "link"
    assert data.schema.task() == "predicts for each link: edge_label, 1 yes/no answer"
    for split in ("train", "valid"):
        dataset = data.dataset(split)
        for request in data.batches(split):
            batch = dataset[request]
            pairs, labels = [], []
            for position, number in enumerate(dataset.ids[list(request.samples)]):
                pairs.append(graphs[number].edge_label_index + batch.ptr[position])
                labels.append(graphs[number].edge_label)
            rows = query_rows(batch)
            assert torch.equal(batch.links[:, rows], torch.cat(pairs, 1))
            assert torch.equal(batch.y[rows, 0], torch.cat(labels).float())
    assert len(data.targets("train")) == sum(len(graphs[n].edge_label) for n in data.graphs.splits["train"])
    assert data.targets("valid").shape[1] == 3


def test_store_written_in_chunks_keeps_links(tmp_path):
    from gt.data.store import load, save

    graphs = open_data(rings(), tmp_path).graphs
    chunks = [graphs.between(0, 5), graphs.between(5, 5), graphs.between(5, 12)]
    save(iter(chunks), tmp_path / "again")
    loaded = load(tmp_path / "again")
    assert np.array_equal(loaded.link_ptr, graphs.link_ptr)
    assert np.array_equal(loaded.links["ends"], graphs.links["ends"])
    assert np.array_equal(loaded.links["y"], graphs.links["y"])


@pytest.mark.parametrize("head", [{"dot": True, "hidden": 0}, {"hidden": 1}], ids=["scalar product", "product"])
def test_predictions_are_independent_of_batch_and_node_order(tmp_path, head):
    data = open_data(rings(), tmp_path, batch_size=12, fractions=(0.4, 0.6, 0.0))
    net = build(network("model=gps", *(f"+model.head.{k}={v}" for k, v in head.items() if k == "dot")), data.schema)
    net = net.eval()
    batch = data.dataset("valid")[Request(tuple(range(7)))]
    expected, metric = net(batch), data.measures()[0]
    single = [data.dataset("valid")[Request((number,))] for number in range(7)]
    torch.testing.assert_close(torch.cat([net(each) for each in single]), expected, rtol=1e-4, atol=1e-5)
    metric.update(expected, batch.y)
    scores = metric.compute()
    for each in single:
        metric.update(net(each), each.y)
    permuted = GraphData(
        PyG(partial(CollatedDataset, [permute(graph) for graph in rings()]), root=str(tmp_path / "permuted"))
    )
    permuted.source.fractions = (0.4, 0.6, 0.0)
    permuted.open([])
    permuted_batch = permuted.dataset("valid")[Request(tuple(range(7)))]
    rows = [query_rows(each) for each in (batch, permuted_batch)]
    torch.testing.assert_close(net(permuted_batch)[rows[1]], expected[rows[0]], rtol=1e-4, atol=1e-5)
    metric.reset()
    metric.update(net(permuted_batch), permuted_batch.y)
    for name, score in metric.compute().items():
        torch.testing.assert_close(score, scores[name])


def permute(graph: Data) -> Data:
    """The same graph with its nodes renumbered."""
    size = len(graph.x)
    permutation = torch.randperm(size, generator=torch.Generator().manual_seed(size))
    return Data(
        x=torch.empty_like(graph.x).index_copy(0, permutation, graph.x),
        edge_index=permutation[graph.edge_index],
        edge_label_index=permutation[graph.edge_label_index],
        edge_label=graph.edge_label,
    )


def draw_negatives(batch: GraphBatch, seed: int, count: int = 2) -> tuple[GraphBatch, list[tuple[int, int]]]:
    """The batch with negatives, and the negatives."""
    entropy = np.random.default_rng(seed).integers(1 << 60, size=batch.num_graphs).astype(np.uint64)
    result = Negatives(count)(batch, entropy)
    return result, [
        pair for pair, linked in zip(result.links.T.tolist(), result.y[:, 0].tolist(), strict=True) if not linked
    ]


def test_negatives_replace_the_target_of_each_link():
    batch = batch_with_links()
    links = batch.links[:, batch.y[:, 0] == 1].T.tolist()
    sampled, pairs = draw_negatives(batch, 0)
    assert sampled.links[:, : len(links)].T.tolist() == links
    assert len({tuple(pair) for pair in pairs}) == len(pairs)
    assert not {tuple(pair) for pair in pairs} & {tuple(pair) for pair in links}
    link_counts, negative_counts = Counter(u for u, _ in links), Counter(u for u, _ in pairs)
    for source, times in link_counts.items():
        free = int(batch.sizes[batch.batch[source]]) - len({v for u, v in links if u == source})
        assert negative_counts[source] == min(2 * times, free)
    assert negative_counts.keys() <= link_counts.keys()
    assert all(batch.batch[u] == batch.batch[v] for u, v in pairs)
    assert draw_negatives(batch, 1)[1] != pairs
    assert batch.y.isnan().any()  # the original batch is unchanged


def test_negatives_are_uniform_over_unlinked_nodes():
    batch = batch_with_links((7,), empty=())
    batch.links, batch.y = torch.tensor([[2], [5]]), torch.ones(1, 1)
    counts = Counter(v for seed in range(1200) for _, v in draw_negatives(batch, seed, count=1)[1])
    assert counts.keys() == {0, 1, 2, 3, 4, 6}
    assert max(abs(count - 200) for count in counts.values()) < 60


def test_negatives_without_links_or_unlinked_nodes():
    batch = batch_with_links((1, 2), empty=())
    batch.links, batch.y = torch.tensor([[0, 1, 1, 2], [0, 1, 2, 1]]), torch.ones(4, 1)
    sampled, pairs = draw_negatives(batch, 0)
    assert pairs == [[2, 2]]
    batch.y = torch.zeros(4, 1)
    assert draw_negatives(batch, 0)[0].links.shape == (2, 0)
    assert len(sampled.y) == 5


def test_negatives_are_redrawn_each_epoch_only_in_training(tmp_path):
    data = open_data(rings(), tmp_path, negatives=1, fractions=(0.5, 0.5, 0.0))

    def pairs(split: str, samples: tuple[int, ...], epoch: tuple[int, ...]) -> list[list[int]]:
        batch = data.dataset(split)[Request(samples, draw=epoch)]
        return batch.links[:, query_rows(batch)].T.tolist()

    assert pairs("train", (0, 1, 2, 3), (0,)) != pairs("train", (0, 1, 2, 3), (1,))
    assert pairs("train", (0, 1, 2, 3), (0,)) == pairs("train", (0, 1, 2, 3), (0,))
    batch = data.dataset("train")[Request((2, 0), draw=(0,))]
    for position, sample in enumerate((2, 0)):  # independent of the rest of the batch
        here = batch.links[:, batch.batch[batch.links[0]] == position] - batch.ptr[position]
        assert sorted(here.T.tolist()) == sorted(pairs("train", (sample,), (0,)))
    assert pairs("valid", (0, 1), ()) == pairs("valid", (0, 1), ())


def rings_with(number: int, **values) -> list[Data]:
    graphs = rings()
    for name, value in values.items():
        graphs[number][name] = value
    return graphs


INVALID_LINKS = [
    (
        rings_with(2, edge_label_index=torch.tensor([[0], [8]]), edge_label=torch.ones(1)),
        r"graph 2: .* \[0, 8\], .*0\.\.7",
    ),
    (rings_with(1, edge_label=torch.ones(1).long()), "graph 1: 1 edge_label for 4 node pairs"),
    (rings_with(1, edge_label=torch.full((4,), 2)), "graph 1: 2 in edge_label is neither 0 nor 1"),
    ([Data(x=g.x, edge_label_index=g.edge_label_index) for g in rings()], "no edge_label, but"),
    (rings()[:1], "choose data=pyg_nodes|one graph|data.level=link"),
    ([g.update({"edge_label": 0 * g.edge_label}) for g in rings()], "no pair of the training graphs is linked"),
    ([g.update({"edge_label": 0 * g.edge_label + 1}) for g in rings()], "draw some by data.negatives=2"),
]


@pytest.mark.parametrize(("graphs", "message"), INVALID_LINKS)
def test_invalid_links_are_reported(tmp_path, graphs, message):
    with pytest.raises(UserError, match=message):
        open_data(graphs, tmp_path)


def test_incompatible_options_are_reported(tmp_path):
    with pytest.raises(UserError, match="does not apply to links"):
        open_data(rings(), tmp_path, kind="regression")
    with pytest.raises(UserError, match="learns links from some graphs and predicts them in others"):
        open_data(rings()[:1], tmp_path, level="link")
    graphs = [Data(x=g.x, edge_index=g.edge_index, y=torch.tensor([i % 2])) for i, g in enumerate(rings())]
    with pytest.raises(UserError, match=r"data\.negatives is for links"):
        open_data(graphs, tmp_path, negatives=2)
    with pytest.raises(UserError, match="no edge_label_index"):
        open_data(graphs, tmp_path, level="link")
    data = GraphData(PyG(partial(CollatedDataset, rings()), root=str(tmp_path)))
    data.spread = True
    with pytest.raises(UserError, match="trainer=context_parallel"):
        data.open([])


def test_level_selects_between_graph_and_link_targets(tmp_path):
    graphs = rings()
    for number, graph in enumerate(graphs):
        graph.y = torch.tensor([number % 2])
    assert open_data(graphs, tmp_path).schema.level == "graph"
    assert open_data(graphs, tmp_path, level="link").schema.level == "link"


def test_folds_and_static_shapes(tmp_path):
    data = open_data(rings(), tmp_path, folds=4, fold=1)
    parts = [set(data.graphs.splits[split].tolist()) for split in ("train", "valid", "test")]
    assert set.union(*parts) == set(range(12))
    assert sum(map(len, parts)) == 12
    batch = next(iter(data.loader("valid")))
    data.static = True
    padded = next(iter(data.loader("valid")))
    assert padded.num_nodes > batch.num_nodes
    assert torch.equal(padded.links, batch.links)
    assert torch.equal(padded.y.nan_to_num(9), batch.y.nan_to_num(9))


def test_pcqm_contact_training_and_prediction(tmp_path):
    """A few steps of the training command on the raw files; then predictions for these and for graphs in memory."""
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
    from_files = predictions(run, "--split", ALL)
    dataset = [LRGBDataset(str(tmp_path / "pyg"), "PCQM-Contact", split) for split in ("train", "val", "test")]
    graphs = [graph for split in dataset for graph in split]
    expected = torch.cat([graph.edge_label_index.T for graph in graphs]).tolist()
    assert from_files[["from_node", "to_node"]].astype(int).to_numpy().tolist() == expected
    assert from_files["target"].astype(float).tolist() == torch.cat([graph.edge_label for graph in graphs]).tolist()
    in_memory = gt.load(run).predict([Data.from_dict({**g.to_dict(), "edge_label": None}) for g in graphs])
    assert "target" not in in_memory
    np.testing.assert_allclose(in_memory["prediction"], from_files["prediction"].astype(float), rtol=1e-4, atol=1e-5)
    single = gt.load(run).predict(graphs[:1])
    np.testing.assert_allclose(single["prediction"], in_memory["prediction"][: len(single)], rtol=1e-4, atol=1e-5)
