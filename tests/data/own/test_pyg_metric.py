"""What PyG's benchmarks are published with: the value against sklearn or by definition, and which one has which."""

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, mean_absolute_error
from torch_geometric.datasets import ZINC, GNNBenchmarkDataset, LRGBDataset, MalNetTiny, TUDataset

from gt.data.graphs import GraphData
from gt.data.own.pyg import PyG
from gt.data.own.pyg_metric import measures
from gt.link_metrics import LinkRanks
from gt.schema import UNLABELLED, Schema
from tests.data.own.test_pyg import tu_files

SPLITS = ("train", "val", "test")


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parts(seed: int, edge: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nodes with 9 categories, edges with features like ``edge``, and a path of 4 nodes both ways."""
    ends = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    return torch.randint(3, (4, 9), generator=drawn(seed)), edge.expand(6, -1), ends


def peptides(root: Path, name: str, target: torch.Tensor) -> None:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for place, split in enumerate(SPLITS):
        bonds = torch.ones(1, 3, dtype=torch.long)
        graphs = [(*parts(10 * place + i, bonds), target[(i + place) % len(target)][None]) for i in range(4)]
        torch.save(graphs, raw / f"{split}.pt")


def superpixels(root: Path, name: str) -> None:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for split in SPLITS:
        graphs = [(torch.rand(4, 14), torch.rand(6, 2), parts(0, torch.ones(1))[2], [0, 2, 1, 2]) for _ in range(3)]
        (raw / f"{split}.pickle").write_bytes(pickle.dumps(graphs))


def contacts(root: Path, graphs: int = 6) -> None:
    """The raw files of PCQM-Contact: molecules and pairs of their atoms, in both directions, with a label each."""
    raw = root / "pcqm-contact" / "raw"
    raw.mkdir(parents=True)
    for place, split in enumerate(SPLITS):
        molecules = []
        for number in range(graphs):
            x, bonds, ends = parts(10 * place + number, torch.ones(1, 3, dtype=torch.long))
            pairs = torch.tensor([[0, 3, 0, 2, 1][: 3 + number % 3], [3, 0, 1, 0, 1][: 3 + number % 3]])
            label = torch.tensor([1, 1, 0, 0, 0][: 3 + number % 3], dtype=torch.int32)
            molecules.append((x, bonds, ends, pairs, label))
        torch.save(molecules, raw / f"{split}.pt")


def blocks(root: Path, name: str) -> None:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    graph = {"x": torch.eye(4, 3), "edge_index": parts(0, torch.ones(1))[2], "y": torch.tensor([0, 1, 1, 0])}
    torch.save([[graph] * 3] * 3, raw / f"{name}_v2.pt")


def digits(root: Path, name: str) -> None:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    graph = {"x": torch.rand(4, 3), "pos": torch.rand(4, 2), "edge_index": parts(0, torch.ones(1))[2]}
    torch.save([[graph | {"y": torch.tensor([i])} for i in range(3)]] * 3, raw / f"{name}_v2.pt")


def zinc(root: Path) -> None:
    (root / "raw").mkdir(parents=True)
    bonds = torch.zeros(4, 4, dtype=torch.long)
    bonds[0, 1] = bonds[1, 0] = 1
    bonds[1, 2] = bonds[2, 1] = bonds[2, 3] = bonds[3, 2] = 2
    for split in SPLITS:
        graphs = [
            {"atom_type": torch.arange(4), "bond_type": bonds, "logP_SA_cycle_normalized": torch.tensor([i / 3])}
            for i in range(5)
        ]
        (root / "raw" / f"{split}.pickle").write_bytes(pickle.dumps(graphs))
        (root / "raw" / f"{split}.index").write_text("0,2,4\n")


def malnet(root: Path) -> None:
    raw = root / "raw"
    (raw / "split_info_tiny" / "type").mkdir(parents=True)
    for split in SPLITS:
        names = [f"{kind}/{split}{i}" for kind in ("adware", "trojan") for i in range(2)]
        (raw / "split_info_tiny" / "type" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            path = raw / "malnet-graphs-tiny" / f"{name}.edgelist"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("# a comment\n" * 5 + "0 1\n1 2\n2 0\n")


YES = torch.randint(2, (5, 10), generator=drawn(0)).float()
REALS = torch.randn(5, 11, generator=drawn(1))


CLASSES = ("accuracy", "f1")
BENCHMARKS = [  # files, dataset, its criterion, all its metrics
    (
        partial(peptides, name="peptides-func", target=YES),
        partial(LRGBDataset, name="Peptides-func"),
        "ap",
        ("auroc", "ap"),
    ),
    (
        partial(peptides, name="peptides-struct", target=REALS),
        partial(LRGBDataset, name="Peptides-struct"),
        "mae",
        ("mae", "rmse"),
    ),
    (partial(superpixels, name="pascalvoc-sp"), partial(LRGBDataset, name="PascalVOC-SP"), "f1", CLASSES),
    (partial(superpixels, name="coco-sp"), partial(LRGBDataset, name="coco-sp"), "f1", CLASSES),
    (contacts, partial(LRGBDataset, name="PCQM-Contact"), "mrr", LinkRanks.scores),
    *(
        (
            partial(blocks, name=name),
            partial(GNNBenchmarkDataset, name=name),
            "weighted_accuracy",
            ("accuracy", "weighted_accuracy"),
        )
        for name in ("PATTERN", "CLUSTER")
    ),
    (partial(digits, name="MNIST"), partial(GNNBenchmarkDataset, name="MNIST"), "accuracy", CLASSES),
    (zinc, partial(ZINC, subset=True), "mae", ("mae", "rmse")),
    (malnet, MalNetTiny, "accuracy", CLASSES),
    (tu_files, partial(TUDataset, name="TINY"), "accuracy", CLASSES),
]


@pytest.mark.parametrize(("files", "make", "criterion", "every"), BENCHMARKS)
def test_each_benchmark_decides_by_what_it_is_published_with(tmp_path, files, make, criterion, every):
    files(tmp_path / "pyg")
    data = GraphData(PyG(partial(make, root=str(tmp_path / "pyg")), root=str(tmp_path)))
    data.open([])
    found, deciding = data.measures()
    assert (deciding.name, deciding.mode) == (criterion, "min" if criterion == "mae" else "max")
    schema = data.schema
    for batch in data.loader("valid"):  # the metrics take what a network gives for such a batch
        rows = {"node": batch.num_nodes, "graph": batch.num_graphs, "link": len(batch.y)}[schema.level]
        found.update(torch.randn(rows, schema.outputs, generator=drawn(2)), batch.y)
    assert set(found.compute()) == set(every)


def test_a_kind_that_is_set_otherwise_goes_by_its_own_metrics(tmp_path):
    peptides(tmp_path / "pyg", "peptides-func", YES)
    make = partial(LRGBDataset, root=str(tmp_path / "pyg"), name="Peptides-func")
    data = GraphData(PyG(make, kind="regression", root=str(tmp_path)))
    data.open([])
    assert data.measures()[1].name == "mae"


def of(name: str, schema: Schema, prediction: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """The metrics of a dataset, of samples that come in three batches."""
    found, _ = measures(partial(LRGBDataset if "-" in name else GNNBenchmarkDataset, name=name), schema)
    for rows in torch.arange(len(target)).tensor_split([1, 30]):
        found.update(prediction[rows], target[rows])
    return {name: float(value) for name, value in found.compute().items()}


def node_classes() -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Scores of 6 classes, one of them only guessed and one absent; targets; truth and answers of the labelled."""
    scores = torch.randn(200, 6, generator=drawn(3))
    scores[:, 5] = -9
    target = torch.randint(4, (200,), generator=drawn(4)).where(torch.rand(200, generator=drawn(5)) < 0.7, 0)
    target[::9] = UNLABELLED
    known = target != UNLABELLED
    return scores, target, target[known].numpy(), scores[known].argmax(1).numpy()


def test_macro_f1_of_nodes_is_sklearns():
    scores, target, truth, answers = node_classes()
    found = of("PascalVOC-SP", Schema(level="node", outputs=6), scores, target)
    assert found["f1"] == pytest.approx(f1_score(truth, answers, average="macro"), rel=1e-5)
    assert found["f1"] != pytest.approx(found["accuracy"], rel=1e-2)


def test_weighted_accuracy_is_the_mean_over_classes_of_the_share_that_is_right():
    scores, target, truth, answers = node_classes()
    found = of("PATTERN", Schema(level="node", outputs=6), scores, target)
    shares = []
    for each in sorted({*truth.tolist(), *answers.tolist()}):  # one that is only guessed counts as wrong throughout
        members = [answer == each for is_, answer in zip(truth, answers, strict=True) if is_ == each]
        shares.append(sum(members) / max(len(members), 1))
    assert found["weighted_accuracy"] == pytest.approx(sum(shares) / len(shares), rel=1e-5)
    assert found["weighted_accuracy"] != pytest.approx(found["accuracy"], rel=1e-2)


def test_absolute_error_of_structures_is_sklearns():
    target, rated = (torch.randn(50, 11, generator=drawn(seed)) for seed in (6, 7))
    found = of("Peptides-struct", Schema(kind="regression", outputs=11), rated, target)
    assert found["mae"] == pytest.approx(mean_absolute_error(target, rated), rel=1e-5)
