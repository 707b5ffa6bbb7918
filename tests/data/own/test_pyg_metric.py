"""Published metrics of PyG's benchmarks: which dataset has which, and their values against scikit-learn or a loop."""

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
from tests.data.own.pyg_datasets import write_tu_dataset

SPLITS = ("train", "val", "test")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_parts(seed: int, edge: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nodes with 9 categories, edges with the features ``edge``, and a path of 4 nodes in both directions."""
    ends = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    return torch.randint(3, (4, 9), generator=seeded(seed)), edge.expand(6, -1), ends


def write_peptides(root: Path, name: str, target: torch.Tensor) -> None:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for index, split in enumerate(SPLITS):
        bonds = torch.ones(1, 3, dtype=torch.long)
        graphs = [(*random_parts(10 * index + i, bonds), target[(i + index) % len(target)][None]) for i in range(4)]
        torch.save(graphs, raw / f"{split}.pt")


def write_superpixels(root: Path, name: str) -> None:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for split in SPLITS:
        graphs = [
            (torch.rand(4, 14), torch.rand(6, 2), random_parts(0, torch.ones(1))[2], [0, 2, 1, 2]) for _ in range(3)
        ]
        (raw / f"{split}.pickle").write_bytes(pickle.dumps(graphs))


def write_contacts(root: Path, graphs: int = 6) -> None:
    """Raw files of PCQM-Contact: molecules with labelled pairs of their atoms, in both directions."""
    raw = root / "pcqm-contact" / "raw"
    raw.mkdir(parents=True)
    for index, split in enumerate(SPLITS):
        molecules = []
        for number in range(graphs):
            x, bonds, ends = random_parts(10 * index + number, torch.ones(1, 3, dtype=torch.long))
            pairs = torch.tensor([[0, 3, 0, 2, 1][: 3 + number % 3], [3, 0, 1, 0, 1][: 3 + number % 3]])
            label = torch.tensor([1, 1, 0, 0, 0][: 3 + number % 3], dtype=torch.int32)
            molecules.append((x, bonds, ends, pairs, label))
        torch.save(molecules, raw / f"{split}.pt")


def write_block_models(root: Path, name: str) -> None:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    graph = {"x": torch.eye(4, 3), "edge_index": random_parts(0, torch.ones(1))[2], "y": torch.tensor([0, 1, 1, 0])}
    torch.save([[graph] * 3] * 3, raw / f"{name}_v2.pt")


def write_digits(root: Path, name: str) -> None:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    graph = {"x": torch.rand(4, 3), "pos": torch.rand(4, 2), "edge_index": random_parts(0, torch.ones(1))[2]}
    torch.save([[graph | {"y": torch.tensor([i])} for i in range(3)]] * 3, raw / f"{name}_v2.pt")


def write_zinc(root: Path) -> None:
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


def write_malnet(root: Path) -> None:
    raw = root / "raw"
    (raw / "split_info_tiny" / "type").mkdir(parents=True)
    for split in SPLITS:
        names = [f"{kind}/{split}{i}" for kind in ("adware", "trojan") for i in range(2)]
        (raw / "split_info_tiny" / "type" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            path = raw / "malnet-graphs-tiny" / f"{name}.edgelist"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("# a comment\n" * 5 + "0 1\n1 2\n2 0\n")


BINARY_TARGETS = torch.randint(2, (5, 10), generator=seeded(0)).float()
REAL_TARGETS = torch.randn(5, 11, generator=seeded(1))


CLASS_METRICS = ("accuracy", "f1")
BENCHMARKS = [  # writer of the raw files, dataset, criterion, all metrics
    (
        partial(write_peptides, name="peptides-func", target=BINARY_TARGETS),
        partial(LRGBDataset, name="Peptides-func"),
        "ap",
        ("auroc", "ap"),
    ),
    (
        partial(write_peptides, name="peptides-struct", target=REAL_TARGETS),
        partial(LRGBDataset, name="Peptides-struct"),
        "mae",
        ("mae", "rmse"),
    ),
    (partial(write_superpixels, name="pascalvoc-sp"), partial(LRGBDataset, name="PascalVOC-SP"), "f1", CLASS_METRICS),
    (partial(write_superpixels, name="coco-sp"), partial(LRGBDataset, name="coco-sp"), "f1", CLASS_METRICS),
    (write_contacts, partial(LRGBDataset, name="PCQM-Contact"), "mrr", LinkRanks.scores),
    *(
        (
            partial(write_block_models, name=name),
            partial(GNNBenchmarkDataset, name=name),
            "weighted_accuracy",
            ("accuracy", "weighted_accuracy"),
        )
        for name in ("PATTERN", "CLUSTER")
    ),
    (partial(write_digits, name="MNIST"), partial(GNNBenchmarkDataset, name="MNIST"), "accuracy", CLASS_METRICS),
    (write_zinc, partial(ZINC, subset=True), "mae", ("mae", "rmse")),
    (write_malnet, MalNetTiny, "accuracy", CLASS_METRICS),
    (write_tu_dataset, partial(TUDataset, name="TINY"), "accuracy", CLASS_METRICS),
]


@pytest.mark.parametrize(("write_raw_files", "make", "criterion", "names"), BENCHMARKS)
def test_benchmarks_use_their_published_metrics(tmp_path, write_raw_files, make, criterion, names):
    write_raw_files(tmp_path / "pyg")
    data = GraphData(PyG(partial(make, root=str(tmp_path / "pyg")), root=str(tmp_path)))
    data.open([])
    collection, objective = data.measures()
    assert (objective.name, objective.mode) == (criterion, "min" if criterion == "mae" else "max")
    schema = data.schema
    for batch in data.loader("valid"):  # the metrics accept outputs as a model gives them for a batch
        rows = {"node": batch.num_nodes, "graph": batch.num_graphs, "link": len(batch.y)}[schema.level]
        collection.update(torch.randn(rows, schema.outputs, generator=seeded(2)), batch.y)
    assert set(collection.compute()) == set(names)


def test_explicit_kind_uses_the_metrics_of_that_kind(tmp_path):
    write_peptides(tmp_path / "pyg", "peptides-func", BINARY_TARGETS)
    make = partial(LRGBDataset, root=str(tmp_path / "pyg"), name="Peptides-func")
    data = GraphData(PyG(make, kind="regression", root=str(tmp_path)))
    data.open([])
    assert data.measures()[1].name == "mae"


def dataset_metrics(name: str, schema: Schema, prediction: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """The metrics of a dataset on samples that arrive in three batches."""
    collection, _ = measures(partial(LRGBDataset if "-" in name else GNNBenchmarkDataset, name=name), schema)
    for rows in torch.arange(len(target)).tensor_split([1, 30]):
        collection.update(prediction[rows], target[rows])
    return {name: float(value) for name, value in collection.compute().items()}


def node_classes() -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Scores for 6 classes, one only predicted and one absent; targets; true and predicted classes where labelled."""
    scores = torch.randn(200, 6, generator=seeded(3))
    scores[:, 5] = -9
    target = torch.randint(4, (200,), generator=seeded(4)).where(torch.rand(200, generator=seeded(5)) < 0.7, 0)
    target[::9] = UNLABELLED
    labelled = target != UNLABELLED
    return scores, target, target[labelled].numpy(), scores[labelled].argmax(1).numpy()


def test_macro_f1_matches_sklearn():
    scores, target, true, predicted = node_classes()
    values = dataset_metrics("PascalVOC-SP", Schema(level="node", outputs=6), scores, target)
    assert values["f1"] == pytest.approx(f1_score(true, predicted, average="macro"), rel=1e-5)
    assert values["f1"] != pytest.approx(values["accuracy"], rel=1e-2)


def test_weighted_accuracy_is_mean_recall_over_classes():
    scores, target, true, predicted = node_classes()
    values = dataset_metrics("PATTERN", Schema(level="node", outputs=6), scores, target)
    recalls = []
    for label in sorted({*true.tolist(), *predicted.tolist()}):  # a class that is only predicted has recall 0
        hits = [p == label for t, p in zip(true, predicted, strict=True) if t == label]
        recalls.append(sum(hits) / max(len(hits), 1))
    assert values["weighted_accuracy"] == pytest.approx(sum(recalls) / len(recalls), rel=1e-5)
    assert values["weighted_accuracy"] != pytest.approx(values["accuracy"], rel=1e-2)


def test_mean_absolute_error_matches_sklearn():
    target, prediction = (torch.randn(50, 11, generator=seeded(seed)) for seed in (6, 7))
    values = dataset_metrics("Peptides-struct", Schema(kind="regression", outputs=11), prediction, target)
    assert values["mae"] == pytest.approx(mean_absolute_error(target, prediction), rel=1e-5)
