"""Links of a user's own graph: splits, negatives, features, and predictions for pairs named by the ids of the file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score

from gt.cli.pairs import ask_pairs
from gt.data.datamodule import ALL
from gt.data.large.links import LinkData
from gt.data.own.csv_links import CSVLinks
from gt.errors import UserError
from tests.runs import float_columns, network, predictions, write_run

RNG = np.random.default_rng(0)
NODES = 40


def write_tables(folder: Path, nodes: bool = True, with_splits: bool = False, **columns: list) -> set[frozenset[str]]:
    """Write a random graph whose table has duplicate links and self-loops; return its links."""
    folder.mkdir(parents=True, exist_ok=True)
    source, target = RNG.integers(0, NODES, (2, 120))
    table = pd.DataFrame({"source": source, "target": target}).map(lambda n: f"n{n}")
    if with_splits:
        table["split"] = ["train", "valid", "test", "train"] * 30
    weight = {frozenset(ends): n / 7 for n, ends in enumerate(table[["source", "target"]].to_numpy().tolist())}
    table["weight"] = [weight[frozenset(ends)] for ends in table[["source", "target"]].to_numpy().tolist()]
    table.assign(**columns).to_csv(folder / "edges.csv", index=False)
    if nodes:
        ids = RNG.permutation(NODES)
        attributes = {"node": [f"n{n}" for n in ids], "age": ids / 3, "team": [f"t{n % 3}" for n in ids]}
        pd.DataFrame(attributes).to_csv(folder / "nodes.csv", index=False)
    return {ends for ends in map(frozenset, table[["source", "target"]].to_numpy().tolist()) if len(ends) == 2}


def as_sets(pairs: np.ndarray, names: pd.Index) -> list[frozenset[str]]:
    return [frozenset(names[ends].tolist()) for ends in pairs]


@pytest.mark.parametrize("nodes", [True, False])
def test_splits_partition_the_links_beside_negatives(nodes, tmp_path):
    links = write_tables(tmp_path / "mine", nodes)
    source = CSVLinks(str(tmp_path / "mine"), root=str(tmp_path))
    graphs, names = source.build(), source.ids()
    parts = {name: as_sets(graphs.splits[name], names) for name in ("train", "valid", "test")}
    assigned = [link for part in parts.values() for link in part]
    assert len(assigned) == len(links)
    assert set(assigned) == links
    assert len(parts["valid"]) == pytest.approx(0.1 * len(links), abs=1)
    message_links = [frozenset(names[ends].tolist()) for ends in graphs.edge_index.T]
    assert sorted(map(sorted, message_links)) == sorted(map(sorted, 2 * parts["train"]))
    for name in ("valid", "test"):
        negatives = graphs.splits[f"{name}_negatives"]
        assert len(negatives) == len(parts[name])
        assert not {*as_sets(negatives, names)} & links
        assert (negatives[:, 0] != negatives[:, 1]).all()
    if nodes:
        features = {f"n{n}": (n / 3, n % 3) for n in range(NODES)}
        np.testing.assert_allclose(graphs.nodes["x"][:, 0], [features[name][0] for name in names], rtol=1e-6)
        assert (graphs.nodes["x"][:, 1:].argmax(1) == [features[name][1] for name in names]).all()
        assert graphs.schema.node_mean[0] == pytest.approx(graphs.nodes["x"][:, 0].mean())
    else:
        assert graphs.schema.node_vocab == (len(names),)
        assert graphs.nodes["x"][:, 0].tolist() == list(range(len(names)))


def test_edge_features_hold_in_both_directions(tmp_path):
    write_tables(tmp_path / "mine")
    table = pd.read_csv(tmp_path / "mine" / "edges.csv")
    weight = {frozenset(row[:2]): row[2] for row in table[["source", "target", "weight"]].itertuples(index=False)}
    source = CSVLinks(str(tmp_path / "mine"), root=str(tmp_path))
    graphs, names = source.build(), source.ids()
    expected = [weight[frozenset(names[ends].tolist())] for ends in graphs.edge_index.T]
    np.testing.assert_allclose(graphs.edges["edge_attr"][:, 0], expected, rtol=1e-6)
    held_out = [weight[link] for link in as_sets(graphs.splits["valid"], names)]
    np.testing.assert_allclose(graphs.splits["valid_edge_attr"][:, 0], held_out, rtol=1e-6)


def test_split_column_assigns_links_and_is_no_feature(tmp_path):
    write_tables(tmp_path / "mine", with_splits=True)
    table = pd.read_csv(tmp_path / "mine" / "edges.csv")
    split_of: dict[frozenset[str], str] = {}
    for a, b, split in table[["source", "target", "split"]].itertuples(index=False):
        split_of.setdefault(frozenset((a, b)), split)
    source = CSVLinks(str(tmp_path / "mine"), root=str(tmp_path))
    graphs, names = source.build(), source.ids()
    for part in ("train", "valid", "test"):
        assert {*as_sets(graphs.splits[part], names)} == {k for k, v in split_of.items() if v == part and len(k) == 2}
    assert graphs.schema.edge_names == ("weight",)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"split": ["train"] * 119 + ["tset"]}, {}, r"edges\.csv, line 121: split 'tset': a link needs"),
        ({"split": ["train"] * 119 + [""]}, {}, r"edges\.csv, line 121: 'split' is empty: a link needs"),
        ({"split": ["train"] * 60 + ["valid"] * 60}, {}, r"edges\.csv: none of the \d+ links is for test"),
        ({}, {"features": ["wieght"]}, "did you mean 'weight'"),
    ],
)
def test_invalid_tables_and_options_are_rejected(columns, options, message, tmp_path):
    write_tables(tmp_path / "mine", **columns)
    with pytest.raises(UserError, match=message):
        CSVLinks(str(tmp_path / "mine"), root=str(tmp_path), **options).build()


def test_unknown_node_and_graph_column_are_rejected(tmp_path):
    write_tables(tmp_path / "mine")
    path = tmp_path / "mine" / "edges.csv"
    path.write_text(path.read_text() + "n1,stranger,0.5\n")
    with pytest.raises(UserError, match=r"edges\.csv, line 122: there is no node 'stranger'"):
        CSVLinks(str(tmp_path / "mine")).check_files()
    table = pd.read_csv(tmp_path / "mine" / "nodes.csv")
    table.assign(graph="g").to_csv(tmp_path / "mine" / "nodes.csv", index=False)
    with pytest.raises(UserError, match="remove the column 'graph'"):
        CSVLinks(str(tmp_path / "mine")).build()
    with pytest.raises(ValueError, match="fractions"):
        CSVLinks(str(tmp_path / "mine"), fractions=[0.9, 0.1, 0.0])


def test_requested_pairs_use_the_ids_of_the_file(tmp_path):
    write_tables(tmp_path / "mine")
    data = LinkData(CSVLinks(str(tmp_path / "mine"), root=str(tmp_path)), batch_size=16)
    data.open([])
    names = data.source.ids()
    (tmp_path / "pairs.csv").write_text("from_node,to_node\nn3,n4\nn3,nobody\n n7 ,n0\n")
    ask_pairs(data, tmp_path / "pairs.csv")
    assert names.to_numpy()[data.stored.splits[ALL]].tolist() == [["n3", "n4"], ["n7", "n0"]]
    assert list(data.source.records.unreadable) == [1]
    assert "to_node is 'nobody', which is not a node of the graph" in data.source.records.unreadable[1]
    (tmp_path / "pairs.csv").write_text("from_node,to_node\n")
    ask_pairs(data, tmp_path / "pairs.csv")
    assert data.stored.splits[ALL].shape == (0, 2)


@pytest.mark.parametrize("id_format", ["u{}", "{}"])
def test_predictions_name_file_ids_and_serve_as_request(id_format, tmp_path):
    (tmp_path / "mine").mkdir()
    links = np.random.default_rng(3).choice(900, (150, 2)) + 100  # ids that cannot pass for row numbers
    ends = [[id_format.format(end) for end in link] for link in links.tolist()]
    pd.DataFrame(ends, columns=["source", "target"]).to_csv(tmp_path / "mine" / "edges.csv", index=False)
    run = write_run(tmp_path, CSVLinks, network("model=gcn"), LinkData, path=str(tmp_path / "mine"))
    table = predictions(run, "--split", "test")
    linked = [set(ends) for ends in table.loc[table["target"] == "1.0", ["from_node", "to_node"]].to_numpy()]
    assert linked
    assert all(link in [*map(set, ends)] for link in linked)
    (tmp_path / "split.csv").write_text(table[["from_node", "to_node"]].to_csv(index=False))
    repeated = predictions(run, "--pairs", str(tmp_path / "split.csv"))
    np.testing.assert_allclose(float_columns(repeated, "prediction"), float_columns(table, "prediction"), rtol=1e-5)


def test_features_may_be_an_omegaconf_list(tmp_path):
    write_tables(tmp_path / "mine")
    source = CSVLinks(str(tmp_path / "mine"), features=OmegaConf.create(["age", "weight"]), root=str(tmp_path))
    json.dumps(source.key())
    schema = source.build().schema
    assert (schema.node_names, schema.edge_names) == (("age",), ("weight",))


def test_training_batches_hide_their_links_and_auroc_matches(tmp_path):
    links = write_tables(tmp_path / "mine")
    data = LinkData(CSVLinks(str(tmp_path / "mine"), root=str(tmp_path)), batch_size=16)
    data.open([])
    names, seen = data.source.ids(), []
    for batch in data.loader("train"):
        positives = as_sets(batch.links.T.numpy()[batch.y[:, 0].numpy() == 1], names)
        assert not {*positives} & {*as_sets(batch.edge_index.T.numpy(), names)}
        assert not {*as_sets(batch.links.T.numpy()[batch.y[:, 0].numpy() == 0], names)} & {
            *as_sets(data.graphs.splits["train"], names)
        }
        seen += positives
    assert sorted(map(sorted, seen)) == sorted(map(sorted, as_sets(data.graphs.splits["train"], names)))
    measures, criterion = data.measures()
    scores = torch.randn(len(data.targets("test")), 1)
    measures.update(scores, data.targets("test"))
    assert criterion.name == "auroc"
    expected = roc_auc_score(data.targets("test")[:, 0], scores[:, 0])
    assert float(measures.compute()["auroc"]) == pytest.approx(expected)
    assert len(links) == sum(len(data.graphs.splits[part]) for part in ("train", "valid", "test"))


def test_pairs_of_a_grown_graph(tmp_path):
    write_tables(tmp_path / "mine")
    run = write_run(tmp_path, CSVLinks, network("model=gcn"), LinkData, path=str(tmp_path / "mine"))
    (tmp_path / "pairs.csv").write_text("source,target\nn1,n2\nn5,new\n")
    with pytest.raises(UserError, match=r"a table of pairs, --pairs FILE, on the training graph or"):
        predictions(run, f"data.path={tmp_path / 'mine'}")
    original = predictions(run, "--pairs", str(tmp_path / "pairs.csv"), "--split", "all")
    assert original["prediction"].ne("").tolist() == [True, False]

    grown = tmp_path / "grown"
    grown.mkdir()
    source = CSVLinks(str(tmp_path / "mine"), root=str(tmp_path))
    nodes, edges = (pd.read_csv(tmp_path / "mine" / f"{part}.csv") for part in ("nodes", "edges"))
    training_edges = source.build().edge_index.T
    names = source.ids()
    known = {frozenset(names[ends].tolist()) for ends in training_edges}
    kept = [frozenset(ends) in known for ends in edges[["source", "target"]].to_numpy().tolist()]
    nodes[::-1].to_csv(grown / "nodes.csv", index=False)
    edges[kept].to_csv(grown / "edges.csv", index=False)
    same_links = predictions(run, f"data.path={grown}", "--pairs", str(tmp_path / "pairs.csv"))
    before = float_columns(original[:1], "prediction")
    np.testing.assert_allclose(float_columns(same_links[:1], "prediction"), before, rtol=1e-4)

    nodes.iloc[:1].assign(node="new").to_csv(grown / "nodes.csv", index=False, mode="a", header=False)
    edges.iloc[:1].assign(source="n1", target="new").to_csv(grown / "edges.csv", index=False, mode="a", header=False)
    extended = predictions(run, f"data.path={grown}", "--pairs", str(tmp_path / "pairs.csv"))
    assert extended["prediction"].ne("").all()
    assert float_columns(extended[:1], "prediction") != pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("team", "t9", r"nodes\.csv, line 2: 'team' is 't9', which the model has not learned"),
        ("team", None, "no column"),
    ],
)
def test_incompatible_new_graph_is_rejected(column, value, message, tmp_path):
    write_tables(tmp_path / "mine")
    run = write_run(tmp_path, CSVLinks, network("model=gcn"), LinkData, path=str(tmp_path / "mine"))
    path = tmp_path / "mine" / "nodes.csv"
    nodes = pd.read_csv(path)
    changed = nodes.drop(columns=column) if value is None else nodes.assign(**{column: value})
    changed.to_csv(path, index=False)
    (tmp_path / "pairs.csv").write_text("source,target\nn1,n2\n")
    with pytest.raises(UserError, match=message):
        predictions(run, f"data.path={tmp_path / 'mine'}", "--pairs", str(tmp_path / "pairs.csv"))


def test_node_embeddings_do_not_transfer_to_new_graphs(tmp_path):
    write_tables(tmp_path / "mine", nodes=False)
    run = write_run(tmp_path, CSVLinks, network("model=gcn"), LinkData, path=str(tmp_path / "mine"))
    (tmp_path / "pairs.csv").write_text("source,target\nn1,n2\n")
    with pytest.raises(UserError, match="predict pairs of that graph, by --pairs FILE without other data"):
        predictions(run, f"data.path={tmp_path / 'mine'}", "--pairs", str(tmp_path / "pairs.csv"))
