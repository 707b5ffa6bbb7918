"""The published metrics of benchmarks among PyG's datasets, where they differ from those of the kind of target.

The Long Range Graph Benchmark (Dwivedi et al. 2022) uses average precision (Peptides-func), macro F1 over nodes
(PascalVOC-SP, COCO-SP) and the mean reciprocal rank of links (PCQM-Contact), which is used here for all link datasets;
Benchmarking GNNs (Dwivedi et al. 2020) uses class-balanced accuracy for PATTERN and CLUSTER. ZINC and Peptides-struct
use the absolute error, all others accuracy, as in `gt.metrics`.
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
    """The published metric of a dataset, higher is better; ``make`` takes the number of outputs, None if standard."""

    name: str
    kind: Kind
    make: Callable[[int], Metric] | None = None


def _macro_average(metric: type[Metric]) -> Callable[[int], Metric]:
    return partial(metric, average="macro", ignore_index=UNLABELLED)


AP = Published("ap", "binary")
MACRO_F1 = Published("f1", "multiclass", _macro_average(MulticlassF1Score))
BALANCED_ACCURACY = Published("weighted_accuracy", "multiclass", _macro_average(MulticlassAccuracy))
PUBLISHED = {
    ("LRGBDataset", "peptides-func"): AP,
    ("LRGBDataset", "pascalvoc-sp"): MACRO_F1,
    ("LRGBDataset", "coco-sp"): MACRO_F1,
    ("GNNBenchmarkDataset", "pattern"): BALANCED_ACCURACY,
    ("GNNBenchmarkDataset", "cluster"): BALANCED_ACCURACY,
}


def measures(make: "partial[Any]", schema: Schema) -> tuple[MetricCollection, Criterion]:
    """The metrics of a kind of target; for a dataset in `PUBLISHED`, its own metric is added and is the criterion."""
    if schema.level == "link":
        return MetricCollection({"ranks": LinkRanks()}), Criterion("mrr", "max")
    collection, criterion = metrics.metrics(schema)
    published = PUBLISHED.get((getattr(make.func, "__name__", ""), str(make.keywords.get("name")).lower()))
    if published is None or published.kind != schema.kind:
        return collection, criterion
    if published.make is not None:
        collection.add_metrics({published.name: published.make(schema.outputs)})
    return collection, Criterion(published.name, "max")
