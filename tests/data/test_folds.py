"""k-fold cross-validation: folds against scikit-learn, one store for all, scaling and vocabularies per fold."""

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
from tests.data.modules import make_data

RNG = np.random.default_rng(0)
CLASSES = RNG.permutation(np.repeat([0, 1, 2, 3], [97, 41, 12, 3]))


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("folds", [3, 5, 10])
def test_folds_are_stratified_as_in_scikit_learn(folds):
    found = [k_fold(CLASSES, folds, fold, seed=1) for fold in range(folds)]
    reference = StratifiedKFold(folds, shuffle=True, random_state=1).split(CLASSES, CLASSES)
    wanted = [np.bincount(CLASSES[test], minlength=4) for _, test in reference]
    counts = [np.bincount(CLASSES[splits["test"]], minlength=4) for splits in found]
    assert sorted(map(tuple, np.transpose(np.sort(counts, 0)))) == sorted(map(tuple, np.transpose(np.sort(wanted, 0))))
    assert {count.sum() for count in counts} == {count.sum() for count in wanted}
    for fold, splits in enumerate(found):
        assert sorted(np.concatenate(list(splits.values()))) == list(range(len(CLASSES)))
        assert (splits["valid"] == found[fold - 1]["test"]).all()
    assert sorted(np.concatenate([splits["test"] for splits in found])) == list(range(len(CLASSES)))


def test_folds_depend_only_on_seed():
    first, repeated, other_seed = (k_fold(CLASSES, 5, 2, seed)["test"].tolist() for seed in (0, 0, 1))
    assert first == repeated != other_seed


class Toy(InMemoryDataset):
    """Twenty small graphs with real-valued features and a target each, of which one is missing."""

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


def sample_ids(data) -> dict[str, list[int]]:
    return {split: np.asarray(data.graphs.splits[split]).tolist() for split in SPLITS}


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_folds_share_a_store_but_not_the_scaling(kind, tmp_path, capsys):
    tested = []
    for fold in range(5):
        data = GraphData(PyG(partial(Toy, kind=kind), folds=5, fold=fold, root=str(tmp_path)))
        data.open([])
        found = sample_ids(data)
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
    ("options", "message"),
    [
        ({"folds": 2}, "folds=2"),
        ({"folds": 5, "fold": 5}, "fold=5"),
        ({"fold": -1}, "fold=-1"),
        ({"folds": 20}, "19 samples"),
        ({"fold": 1}, "data.folds"),
    ],
)
def test_invalid_folds_are_rejected(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        make_data(GraphData, PyG, Toy, root=str(tmp_path), **options).open([])


class OfficialSplits(InMemoryDataset):
    """One graph of thirty nodes with four official splits, as in Geom-GCN and the heterophilous graphs."""

    def __init__(self) -> None:
        super().__init__()
        order = torch.stack([torch.randperm(30, generator=torch.Generator().manual_seed(n)) for n in range(4)], 1)
        data = Data(x=torch.arange(60.0).view(30, 2), edge_index=torch.tensor([[0], [1]]), y=torch.arange(30) % 3)
        data.train_mask, data.val_mask = order < 15, (order >= 15) & (order < 23)
        data.test_mask = order >= 23
        self.data, self.slices = self.collate([data])


def test_fold_selects_an_official_split(tmp_path):
    for fold in range(4):
        data = NodeData(PyG(OfficialSplits, fold=fold, root=str(tmp_path)))
        data.open([])
        for split, mask in zip(SPLITS, ("train_mask", "val_mask", "test_mask"), strict=True):
            assert sample_ids(data)[split] == OfficialSplits()[0][mask][:, fold].nonzero()[:, 0].tolist()
            assert len(data.targets(split)) == len(sample_ids(data)[split])
        assert data.batches("train").steps == 1
    assert len(list(tmp_path.glob("stores/*/facts.json"))) == 1
    with pytest.raises(UserError, match="0 to 3"):
        NodeData(PyG(OfficialSplits, fold=4, root=str(tmp_path))).open([])


def test_folds_of_nodes(tmp_path):
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
def test_folds_of_few_samples(count, tmp_path):
    """The split that the store is built with does not require more samples."""
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


def test_folds_of_molecules(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("smiles,active\n" + "".join(f"{'C' * n}O,{int(n % 3 == 0)}\n" for n in range(1, 31)))
    tested = []
    for fold in range(5):
        data = GraphData(Molecules(str(path), folds=5, fold=fold, root=str(tmp_path), processes=1), weights="balanced")
        data.open([])
        found = sample_ids(data)
        assert [int(sum(data.targets(split))) for split in ("valid", "test")] == [2, 2]
        assert data.schema.weights
        tested += found["test"]
    assert sorted(tested) == list(range(30))
    assert len(list(tmp_path.glob("stores/*/facts.json"))) == 1


def test_folds_of_texts_have_their_own_vocabulary(tmp_path):
    path = tmp_path / "some.tsv"
    path.write_text("text\tlabel\n" + "".join(f"word{n} again\t{n % 2}\n" for n in range(12)))
    tested = []
    for fold in range(4):
        data = GraphData(TextClassification(str(path), folds=4, fold=fold, root=str(tmp_path)))
        data.open([])
        names, found = data.source.names(data.graphs)["text"], sample_ids(data)
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


def test_class_with_a_single_text_is_known_in_every_fold(tmp_path):
    path = tmp_path / "texts.csv"
    rows = [f"word {n},{'ab'[n % 2]}" for n in range(20)]
    path.write_text("\n".join(["text,label", *rows, "odd one,rare"]))
    for fold in range(5):
        graphs = TextClassification(str(path), folds=5, fold=fold, root=str(tmp_path)).build()
        assert graphs.schema.names == ("a", "b", "rare")
        assert len(graphs) == 21


def test_sweep_over_folds_ranks_them_as_one_row(monkeypatch, tmp_path, capsys):
    from tests.cli.sweeps import run_sweep

    (tmp_path / "nodes.csv").write_text(
        "graph,node,kind\n" + "".join(f"{g},{n},{'ab'[g % 2]}\n" for g in range(12) for n in "xy")
    )
    (tmp_path / "edges.csv").write_text("graph,source,target\n" + "".join(f"{g},x,y\n" for g in range(12)))
    (tmp_path / "graphs.csv").write_text("graph,label\n" + "".join(f"{g},{g % 2}\n" for g in range(12)))
    command = ("data=csv_graphs", f"data.path={tmp_path}", "data.folds=3", "data.fold=range(3)", "data.batch_size=3",
               "model=gin", "model.width=8", "model.depth=1", "encoding=[none]", "logger=csv", "trainer=cpu",
               "trainer.max_epochs=1", f"data.root={tmp_path}")  # fmt: skip
    assert run_sweep(monkeypatch, tmp_path / "sweep", *command) == 0
    GlobalHydra.instance().clear()
    ranking = (tmp_path / "sweep" / "ranking.txt").read_text()
    (row,) = (line for line in ranking.splitlines() if "±" in line and "0 1 2" in line)
    assert [cell.strip() for cell in row.split("│")][4] == "3"
    assert len(list(tmp_path.glob("stores/*/facts.json"))) == 1
    capsys.readouterr()
