"""k-fold cross-validation: folds beside scikit-learn's, one store for all, and what each learns from its own."""

from functools import partial

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from sklearn.model_selection import StratifiedKFold
from torch_geometric.data import Data, InMemoryDataset

from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.molecules.molecules import Molecules
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.pyg import PyG
from gt.data.splits import SPLITS, k_fold
from gt.data.text.classification import TextClassification
from gt.errors import UserError
from gt.schema import UNLABELLED
from tests.data.modules import over

DRAW = np.random.default_rng(0)
CLASSES = DRAW.permutation(np.repeat([0, 1, 2, 3], [97, 41, 12, 3]))


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("folds", [3, 5, 10])
def test_every_class_is_dealt_out_alike_as_scikit_learn_does(folds):
    found = [k_fold(CLASSES, folds, fold, seed=1) for fold in range(folds)]
    theirs = StratifiedKFold(folds, shuffle=True, random_state=1).split(CLASSES, CLASSES)
    counts = [np.bincount(CLASSES[test], minlength=4) for _, test in theirs]
    ours = [np.bincount(CLASSES[splits["test"]], minlength=4) for splits in found]
    assert sorted(map(tuple, np.transpose(np.sort(ours, 0)))) == sorted(map(tuple, np.transpose(np.sort(counts, 0))))
    assert {count.sum() for count in ours} == {count.sum() for count in counts}
    for fold, splits in enumerate(found):
        assert sorted(np.concatenate(list(splits.values()))) == list(range(len(CLASSES)))
        assert (splits["valid"] == found[fold - 1]["test"]).all()
    assert sorted(np.concatenate([splits["test"] for splits in found])) == list(range(len(CLASSES)))


def test_folds_depend_on_their_seed_alone():
    one, same, other = (k_fold(CLASSES, 5, 2, seed)["test"].tolist() for seed in (0, 0, 1))
    assert one == same != other


class Toy(InMemoryDataset):
    """Twenty little graphs with a real feature, a target each, and now and then none."""

    def __init__(self, kind: str = "classes") -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        graphs = []
        for number in range(20):
            y = torch.tensor([number % 2]) if kind == "classes" else torch.tensor([10.0 * number**2])
            if number == 7:
                y = torch.full_like(y, UNLABELLED if kind == "classes" else torch.nan)
            graphs.append(
                Data(x=torch.randn(3, 2, generator=draw) * (number + 1), edge_index=torch.tensor([[0], [1]]), y=y)
            )
        self.data, self.slices = self.collate(graphs)


def splits(data) -> dict[str, list[int]]:
    return {split: np.asarray(data.graphs.splits[split]).tolist() for split in SPLITS}


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_one_store_serves_all_folds_and_each_learns_scales_from_its_own_training_graphs(kind, tmp_path, capsys):
    tested = []
    for fold in range(5):
        data = GraphData(PyG(partial(Toy, kind=kind), folds=5, fold=fold, root=str(tmp_path)))
        data.open([])
        found = splits(data)
        assert f"fold {fold} of 5" in capsys.readouterr().out
        tested += found["test"]
        assert sorted(n for part in found.values() for n in part) == [n for n in range(20) if n != 7]
        train = found["train"]
        x = np.concatenate([Toy(kind)[n].x for n in train])
        np.testing.assert_allclose(data.schema.node_mean, x.mean(0), rtol=1e-5)
        if kind == "numbers":
            y = np.array([Toy(kind)[n].y.item() for n in train])
            np.testing.assert_allclose([data.schema.mean[0], data.schema.scale[0]], [y.mean(), y.std()], rtol=1e-5)
        else:
            assert abs(sum(n % 2 for n in found["test"]) - len(found["test"]) / 2) <= 1
    assert sorted(tested) == [n for n in range(20) if n != 7]
    assert len(list(tmp_path.glob("stores/*/facts.json"))) == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"folds": 2}, "folds=2"),
        ({"folds": 5, "fold": 5}, "fold=5"),
        ({"fold": -1}, "fold=-1"),
        ({"folds": 20}, "19 samples"),
        ({"fold": 1}, "data.folds"),
    ],
)
def test_folds_that_cannot_be_are_refused(wrong, named, tmp_path):
    with pytest.raises(UserError, match=named):
        over(GraphData, PyG, Toy, root=str(tmp_path), **wrong).open([])


class Official(InMemoryDataset):
    """One graph of thirty nodes with four official splits, as Geom-GCN and the heterophilous graphs have them."""

    def __init__(self) -> None:
        super().__init__()
        order = torch.stack([torch.randperm(30, generator=torch.Generator().manual_seed(n)) for n in range(4)], 1)
        data = Data(x=torch.arange(60.0).view(30, 2), edge_index=torch.tensor([[0], [1]]), y=torch.arange(30) % 3)
        data.train_mask, data.val_mask = order < 15, (order >= 15) & (order < 23)
        data.test_mask = order >= 23
        self.data, self.slices = self.collate([data])


def test_the_number_of_an_official_split_is_followed(tmp_path):
    for fold in range(4):
        data = NodeData(PyG(Official, fold=fold, root=str(tmp_path)))
        data.open([])
        for split, mask in zip(SPLITS, ("train_mask", "val_mask", "test_mask"), strict=True):
            assert splits(data)[split] == Official()[0][mask][:, fold].nonzero()[:, 0].tolist()
            assert len(data.targets(split)) == len(splits(data)[split])
        assert data.batches("train").steps == 1
    assert len(list(tmp_path.glob("stores/*/facts.json"))) == 1
    with pytest.raises(UserError, match="0 to 3"):
        NodeData(PyG(Official, fold=4, root=str(tmp_path))).open([])


def test_nodes_are_dealt_out_where_a_number_of_folds_is_given(tmp_path):
    (tmp_path / "nodes.csv").write_text(
        "node,size,label\n" + "".join(f"{n},{n / 3},{'uv'[n % 2]}\n" for n in range(12))
    )
    (tmp_path / "edges.csv").write_text("source,target\n0,1\n")
    data = NodeData(CSVGraphs(str(tmp_path), folds=3, fold=1, root=str(tmp_path)))
    data.open([])
    assert {split: sorted(data.targets(split).tolist()) for split in SPLITS} == {
        split: [0, 0, 1, 1] for split in SPLITS
    }


@pytest.mark.parametrize("count", [3, 4, 7])
def test_as_few_samples_as_folds_are_dealt_out(count, tmp_path):
    """The split that the store is built with needs no more of them."""
    path = tmp_path / "few.csv"
    path.write_text("smiles,y\n" + "".join(f"{'C' * (n + 2)},{n / 7}\n" for n in range(count)))
    nodes = tmp_path / "graph"
    nodes.mkdir()
    (nodes / "nodes.csv").write_text("node,f,label\n" + "".join(f"{n},{n}.5,{n / 7}\n" for n in range(count)))
    (nodes / "edges.csv").write_text("source,target\n0,1\n")
    options = {"folds": 3, "root": str(tmp_path)}
    for data in (GraphData(Molecules(str(path), **options)), NodeData(CSVGraphs(str(nodes), **options))):
        data.open([])
        assert sorted(np.concatenate(list(data.graphs.splits.values()))) == list(range(count))
        assert len(data.graphs.splits) == 3


def test_molecules_are_dealt_out_whatever_their_split(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("smiles,active\n" + "".join(f"{'C' * n}O,{int(n % 3 == 0)}\n" for n in range(1, 31)))
    tested = []
    for fold in range(5):
        data = GraphData(Molecules(str(path), folds=5, fold=fold, root=str(tmp_path), processes=1), weights="balanced")
        data.open([])
        found = splits(data)
        assert [int(sum(data.targets(split))) for split in ("valid", "test")] == [2, 2]
        assert data.schema.weights
        tested += found["test"]
    assert sorted(tested) == list(range(30))
    assert len(list(tmp_path.glob("stores/*/facts.json"))) == 1


def test_texts_are_dealt_out_and_the_vocabulary_is_that_of_the_training_texts(tmp_path):
    path = tmp_path / "some.tsv"
    path.write_text("text\tlabel\n" + "".join(f"word{n} again\t{n % 2}\n" for n in range(12)))
    tested = []
    for fold in range(4):
        data = GraphData(TextClassification(str(path), folds=4, fold=fold, root=str(tmp_path)))
        data.open([])
        names, found = data.source.names(data.graphs)["text"], splits(data)
        assert {len(part) for part in found.values()} == {6, 3}
        tested += names[found["test"]].tolist()
        assert "word" + names[found["train"][0]].split()[0][4:] in data.schema.tokenizer
        assert not any(f'"{names[n].split()[0]}"' in data.schema.tokenizer for n in found["test"])
    assert len(set(tested)) == 12
    with pytest.raises(UserError, match="fold=1"):
        GraphData(TextClassification(str(path), fold=1, root=str(tmp_path)))
    (tmp_path / "folder").mkdir()
    for split in ("train", "test"):
        (tmp_path / "folder" / f"{split}.tsv").write_text(path.read_text())
    with pytest.raises(UserError, match="folds"):
        GraphData(TextClassification(str(tmp_path / "folder"), folds=4, root=str(tmp_path))).open([])


def test_a_class_of_a_single_text_is_known_in_every_fold(tmp_path):
    path = tmp_path / "texts.csv"
    rows = [f"word {n},{'ab'[n % 2]}" for n in range(20)]
    path.write_text("\n".join(["text,label", *rows, "odd one,rare"]))
    for fold in range(5):
        graphs = TextClassification(str(path), folds=5, fold=fold, root=str(tmp_path)).build()
        assert graphs.schema.names == ("a", "b", "rare")
        assert len(graphs) == 21


def test_all_folds_in_one_command_end_in_one_row(monkeypatch, tmp_path, capsys):
    from tests.cli.test_sweep import sweep

    (tmp_path / "nodes.csv").write_text(
        "graph,node,kind\n" + "".join(f"{g},{n},{'ab'[g % 2]}\n" for g in range(12) for n in "xy")
    )
    (tmp_path / "edges.csv").write_text("graph,source,target\n" + "".join(f"{g},x,y\n" for g in range(12)))
    (tmp_path / "graphs.csv").write_text("graph,label\n" + "".join(f"{g},{g % 2}\n" for g in range(12)))
    command = ("data=csv_graphs", f"data.path={tmp_path}", "data.folds=3", "data.fold=range(3)", "data.batch_size=3",
               "model=gin", "model.width=8", "model.depth=1", "encoding=[none]", "logger=csv", "trainer=cpu",
               "trainer.max_epochs=1", f"data.root={tmp_path}")  # fmt: skip
    assert sweep(monkeypatch, tmp_path / "sweep", *command) == 0
    GlobalHydra.instance().clear()
    ranking = (tmp_path / "sweep" / "ranking.txt").read_text()
    (row,) = (line for line in ranking.splitlines() if "±" in line and "0 1 2" in line)
    assert [cell.strip() for cell in row.split("│")][4] == "3"
    assert len(list(tmp_path.glob("stores/*/facts.json"))) == 1
    capsys.readouterr()
