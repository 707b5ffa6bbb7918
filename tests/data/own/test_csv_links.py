"""Links of one's own graph: each once, shared out, beside pairs that are none; asked for by the ids of the file."""

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
from tests.runs import network, numbers, predictions, run_of

DRAW = np.random.default_rng(0)
NODES = 40


def write(folder: Path, nodes: bool = True, told: bool = False, **columns: list) -> set[frozenset[str]]:
    """A random graph whose table lists some links again and some loops; returns its links."""
    folder.mkdir(parents=True, exist_ok=True)
    source, target = DRAW.integers(0, NODES, (2, 120))
    table = pd.DataFrame({"source": source, "target": target}).map(lambda n: f"n{n}")
    if told:
        table["split"] = ["train", "valid", "test", "train"] * 30
    weight = {frozenset(ends): n / 7 for n, ends in enumerate(table[["source", "target"]].to_numpy().tolist())}
    table["weight"] = [weight[frozenset(ends)] for ends in table[["source", "target"]].to_numpy().tolist()]
    table.assign(**columns).to_csv(folder / "edges.csv", index=False)
    if nodes:
        ids = DRAW.permutation(NODES)
        about = {"node": [f"n{n}" for n in ids], "age": ids / 3, "team": [f"t{n % 3}" for n in ids]}
        pd.DataFrame(about).to_csv(folder / "nodes.csv", index=False)
    return {ends for ends in map(frozenset, table[["source", "target"]].to_numpy().tolist()) if len(ends) == 2}


def keys(pairs: np.ndarray, names: pd.Index) -> list[frozenset[str]]:
    return [frozenset(names[ends].tolist()) for ends in pairs]


@pytest.mark.parametrize("nodes", [True, False])
def test_every_link_is_in_one_split_and_beside_pairs_that_are_none(nodes, tmp_path):
    links = write(tmp_path / "mine", nodes)
    source = CSVLinks(str(tmp_path / "mine"), root=str(tmp_path))
    graphs, names = source.build(), source.ids()
    parts = {name: keys(graphs.splits[name], names) for name in ("train", "valid", "test")}
    every = [link for part in parts.values() for link in part]
    assert len(every) == len(links)
    assert set(every) == links
    assert len(parts["valid"]) == pytest.approx(0.1 * len(links), abs=1)
    shown = [frozenset(names[ends].tolist()) for ends in graphs.edge_index.T]
    assert sorted(map(sorted, shown)) == sorted(map(sorted, 2 * parts["train"]))
    for name in ("valid", "test"):
        none = graphs.splits[f"{name}_negatives"]
        assert len(none) == len(parts[name])
        assert not {*keys(none, names)} & links
        assert (none[:, 0] != none[:, 1]).all()
    if nodes:
        of = {f"n{n}": (n / 3, n % 3) for n in range(NODES)}
        np.testing.assert_allclose(graphs.nodes["x"][:, 0], [of[name][0] for name in names], rtol=1e-6)
        assert (graphs.nodes["x"][:, 1:].argmax(1) == [of[name][1] for name in names]).all()
        assert graphs.schema.node_mean[0] == pytest.approx(graphs.nodes["x"][:, 0].mean())
    else:
        assert graphs.schema.node_vocab == (len(names),)
        assert graphs.nodes["x"][:, 0].tolist() == list(range(len(names)))


def test_the_features_of_a_link_are_those_of_its_row_both_ways(tmp_path):
    write(tmp_path / "mine")
    table = pd.read_csv(tmp_path / "mine" / "edges.csv")
    weight = {frozenset(row[:2]): row[2] for row in table[["source", "target", "weight"]].itertuples(index=False)}
    source = CSVLinks(str(tmp_path / "mine"), root=str(tmp_path))
    graphs, names = source.build(), source.ids()
    expected = [weight[frozenset(names[ends].tolist())] for ends in graphs.edge_index.T]
    np.testing.assert_allclose(graphs.edges["edge_attr"][:, 0], expected, rtol=1e-6)
    late = [weight[link] for link in keys(graphs.splits["valid"], names)]
    np.testing.assert_allclose(graphs.splits["valid_edge_attr"][:, 0], late, rtol=1e-6)


def test_a_column_says_which_link_is_for_what_and_is_no_feature(tmp_path):
    write(tmp_path / "mine", told=True)
    table = pd.read_csv(tmp_path / "mine" / "edges.csv")
    first: dict[frozenset[str], str] = {}
    for a, b, split in table[["source", "target", "split"]].itertuples(index=False):
        first.setdefault(frozenset((a, b)), split)
    source = CSVLinks(str(tmp_path / "mine"), root=str(tmp_path))
    graphs, names = source.build(), source.ids()
    for part in ("train", "valid", "test"):
        assert {*keys(graphs.splits[part], names)} == {k for k, v in first.items() if v == part and len(k) == 2}
    assert graphs.schema.edge_names == ("weight",)


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"split": ["train"] * 119 + ["tset"]}, {}, r"edges\.csv, line 121: split 'tset': a link needs"),
        ({"split": ["train"] * 119 + [""]}, {}, r"edges\.csv, line 121: 'split' is empty: a link needs"),
        ({"split": ["train"] * 60 + ["valid"] * 60}, {}, r"edges\.csv: none of the \d+ links is for test"),
        ({}, {"features": ["wieght"]}, "did you mean 'weight'"),
    ],
)
def test_what_is_wrong_is_one_line(columns, options, said, tmp_path):
    write(tmp_path / "mine", **columns)
    with pytest.raises(UserError, match=said):
        CSVLinks(str(tmp_path / "mine"), root=str(tmp_path), **options).build()


def test_a_link_of_an_unknown_node_and_of_several_graphs_is_refused(tmp_path):
    write(tmp_path / "mine")
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


def test_pairs_are_asked_for_by_the_ids_of_the_file(tmp_path):
    write(tmp_path / "mine")
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


@pytest.mark.parametrize("name", ["u{}", "{}"])
def test_a_table_of_predictions_names_nodes_as_the_file_does_and_can_be_asked_for_again(name, tmp_path):
    (tmp_path / "mine").mkdir()
    links = np.random.default_rng(3).choice(900, (150, 2)) + 100  # numbers that are no places in a table, or others
    ends = [[name.format(end) for end in link] for link in links.tolist()]
    pd.DataFrame(ends, columns=["source", "target"]).to_csv(tmp_path / "mine" / "edges.csv", index=False)
    run = run_of(tmp_path, CSVLinks, network("model=gcn"), LinkData, path=str(tmp_path / "mine"))
    split = predictions(run, "--split", "test")
    linked = [set(ends) for ends in split.loc[split["target"] == "1.0", ["from_node", "to_node"]].to_numpy()]
    assert linked
    assert all(link in [*map(set, ends)] for link in linked)
    (tmp_path / "split.csv").write_text(split[["from_node", "to_node"]].to_csv(index=False))
    again = predictions(run, "--pairs", str(tmp_path / "split.csv"))
    np.testing.assert_allclose(numbers(again, "prediction"), numbers(split, "prediction"), rtol=1e-5)


def test_features_may_be_chosen_where_hydra_hands_over_a_list_of_its_own(tmp_path):
    write(tmp_path / "mine")
    source = CSVLinks(str(tmp_path / "mine"), features=OmegaConf.create(["age", "weight"]), root=str(tmp_path))
    json.dumps(source.key())
    schema = source.build().schema
    assert (schema.node_names, schema.edge_names) == (("age",), ("weight",))


def test_batches_hide_the_links_that_they_ask_for_and_answers_can_be_ranked(tmp_path):
    links = write(tmp_path / "mine")
    data = LinkData(CSVLinks(str(tmp_path / "mine"), root=str(tmp_path)), batch_size=16)
    data.open([])
    names, asked = data.source.ids(), []
    for batch in data.loader("train"):
        yes = keys(batch.links.T.numpy()[batch.y[:, 0].numpy() == 1], names)
        assert not {*yes} & {*keys(batch.edge_index.T.numpy(), names)}
        assert not {*keys(batch.links.T.numpy()[batch.y[:, 0].numpy() == 0], names)} & {
            *keys(data.graphs.splits["train"], names)
        }
        asked += yes
    assert sorted(map(sorted, asked)) == sorted(map(sorted, keys(data.graphs.splits["train"], names)))
    measures, criterion = data.measures()
    rating = torch.randn(len(data.targets("test")), 1)
    measures.update(rating, data.targets("test"))
    assert criterion.name == "auroc"
    right = roc_auc_score(data.targets("test")[:, 0], rating[:, 0])
    assert float(measures.compute()["auroc"]) == pytest.approx(right)
    assert len(links) == sum(len(data.graphs.splits[part]) for part in ("train", "valid", "test"))


def test_pairs_may_be_asked_of_a_graph_that_has_grown(tmp_path):
    write(tmp_path / "mine")
    run = run_of(tmp_path, CSVLinks, network("model=gcn"), LinkData, path=str(tmp_path / "mine"))
    (tmp_path / "pairs.csv").write_text("source,target\nn1,n2\nn5,new\n")
    with pytest.raises(UserError, match=r"a table of pairs, --pairs FILE, on the training graph or"):
        predictions(run, f"data.path={tmp_path / 'mine'}")
    of_training = predictions(run, "--pairs", str(tmp_path / "pairs.csv"), "--split", "all")
    assert of_training["prediction"].ne("").tolist() == [True, False]

    grown = tmp_path / "grown"
    grown.mkdir()
    source = CSVLinks(str(tmp_path / "mine"), root=str(tmp_path))
    nodes, edges = (pd.read_csv(tmp_path / "mine" / f"{part}.csv") for part in ("nodes", "edges"))
    shown = source.build().edge_index.T
    names = source.ids()
    known = {frozenset(names[ends].tolist()) for ends in shown}
    kept = [frozenset(ends) in known for ends in edges[["source", "target"]].to_numpy().tolist()]
    nodes[::-1].to_csv(grown / "nodes.csv", index=False)
    edges[kept].to_csv(grown / "edges.csv", index=False)
    again = predictions(run, f"data.path={grown}", "--pairs", str(tmp_path / "pairs.csv"))
    first = numbers(of_training[:1], "prediction")
    np.testing.assert_allclose(numbers(again[:1], "prediction"), first, rtol=1e-4)

    nodes.iloc[:1].assign(node="new").to_csv(grown / "nodes.csv", index=False, mode="a", header=False)
    edges.iloc[:1].assign(source="n1", target="new").to_csv(grown / "edges.csv", index=False, mode="a", header=False)
    more = predictions(run, f"data.path={grown}", "--pairs", str(tmp_path / "pairs.csv"))
    assert more["prediction"].ne("").all()
    assert numbers(more[:1], "prediction") != pytest.approx(first, rel=1e-4)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("team", "t9", r"nodes\.csv, line 2: 'team' is 't9', which the model has not learned"),
        ("team", None, "no column"),
    ],
)
def test_a_grown_graph_that_the_model_cannot_read_is_refused(column, value, said, tmp_path):
    write(tmp_path / "mine")
    run = run_of(tmp_path, CSVLinks, network("model=gcn"), LinkData, path=str(tmp_path / "mine"))
    path = tmp_path / "mine" / "nodes.csv"
    nodes = pd.read_csv(path)
    changed = nodes.drop(columns=column) if value is None else nodes.assign(**{column: value})
    changed.to_csv(path, index=False)
    (tmp_path / "pairs.csv").write_text("source,target\nn1,n2\n")
    with pytest.raises(UserError, match=said):
        predictions(run, f"data.path={tmp_path / 'mine'}", "--pairs", str(tmp_path / "pairs.csv"))


def test_nodes_that_are_told_by_an_embedding_alone_are_those_of_the_training(tmp_path):
    write(tmp_path / "mine", nodes=False)
    run = run_of(tmp_path, CSVLinks, network("model=gcn"), LinkData, path=str(tmp_path / "mine"))
    (tmp_path / "pairs.csv").write_text("source,target\nn1,n2\n")
    with pytest.raises(UserError, match="predict pairs of that graph, by --pairs FILE without other data"):
        predictions(run, f"data.path={tmp_path / 'mine'}", "--pairs", str(tmp_path / "pairs.csv"))
