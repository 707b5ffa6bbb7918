"""The metrics that benchmarks among PyG's datasets are published with, where these are not those of the kind of target.

The Long Range Graph Benchmark (Dwivedi et al. 2022) ranks by average precision (Peptides-func), by macro F1 of nodes
(PascalVOC-SP, COCO-SP) and by the mean reciprocal rank of links (PCQM-Contact), as all datasets of links are here;
Benchmarking GNNs (Dwivedi et al. 2020) ranks PATTERN and CLUSTER by an accuracy in which each class weighs the same.
ZINC and Peptides-struct go by the absolute error, the others by accuracy, as in `gt.metrics`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from gt import metrics
from gt.link_metrics import LinkRanks
from gt.losses import Criterion
from gt.schema import UNLABELLED, Kind, Schema


@dataclass(frozen=True)
class Published:
    """What a dataset is ranked by: higher is better; ``make`` takes the number of outputs, None is measured anyway."""

    name: str
    kind: Kind
    make: Callable[[int], Metric] | None = None


def _each_class_alike(metric: type[Metric]) -> Callable[[int], Metric]:
    return partial(metric, average="macro", ignore_index=UNLABELLED)


AP = Published("ap", "binary")
MACRO_F1 = Published("f1", "multiclass", _each_class_alike(MulticlassF1Score))
WEIGHTED = Published("weighted_accuracy", "multiclass", _each_class_alike(MulticlassAccuracy))
PUBLISHED = {
    ("LRGBDataset", "peptides-func"): AP,
    ("LRGBDataset", "pascalvoc-sp"): MACRO_F1,
    ("LRGBDataset", "coco-sp"): MACRO_F1,
    ("GNNBenchmarkDataset", "pattern"): WEIGHTED,
    ("GNNBenchmarkDataset", "cluster"): WEIGHTED,
}


def measures(make: "partial[Any]", schema: Schema) -> tuple[MetricCollection, Criterion]:
    """The metrics of a kind of target; where ``make`` makes a dataset of `PUBLISHED` its own, which then decides."""
    if schema.level == "link":
        return MetricCollection({"ranks": LinkRanks()}), Criterion("mrr", "max")
    collection, criterion = metrics.metrics(schema)
    published = PUBLISHED.get((getattr(make.func, "__name__", ""), str(make.keywords.get("name")).lower()))
    if published is None or published.kind != schema.kind:
        return collection, criterion
    if published.make is not None:
        collection.add_metrics({published.name: published.make(schema.outputs)})
    return collection, Criterion(published.name, "max")
