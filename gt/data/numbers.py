"""Scaling of real-valued targets and features, learned from the training split.

A store keeps numbers in the units of its source. The scaling goes into the schema, and so into every checkpoint, and is
applied by the network: new data in the same units are handled correctly.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gt.data.batching import runs
from gt.data.packed import Graphs
from gt.errors import UserError
from gt.schema import Kind, Schema

CHUNK_ROWS = 1 << 16  # rows processed at a time
MIN_TRAIN_NODES = 1000  # of a single graph; with fewer, features are scaled by all of its nodes
DECADES = 2.0  # span of targets in powers of ten from which logarithms are suggested

Moments = tuple[tuple[float, ...], tuple[float, ...]]


def moments(values: np.ndarray) -> Moments:
    """Mean and standard deviation of each column (rows, columns), ignoring NaN.

    A constant column has deviation 1; one without numbers also has mean 0.
    """
    blocks = [values[low : low + CHUNK_ROWS] for low in range(0, len(values), CHUNK_ROWS)]
    count = sum(((~np.isnan(block)).sum(0) for block in blocks), np.zeros(values.shape[1]))
    total = sum((np.nansum(block, 0, dtype=np.float64) for block in blocks), np.zeros(values.shape[1]))
    mean = total / count.clip(min=1)
    squares = sum((np.nansum((block - mean) ** 2, 0) for block in blocks), np.zeros(values.shape[1]))
    deviation = np.sqrt(squares / count.clip(min=1))
    varies = deviation > np.maximum(1e-7 * np.abs(mean), 1e-30)  # otherwise the deviation is float32 rounding error
    return tuple(mean.tolist()), tuple(np.where(varies, deviation, 1.0).tolist())


def feature_moments(values: np.ndarray) -> Moments:
    """Mean and deviation of each column (rows, columns), but 0 and 1 for indicator columns, which hold only 0 and 1."""
    indicator = np.ones(values.shape[1], bool)
    for low in range(0, len(values), CHUNK_ROWS):
        block = values[low : low + CHUNK_ROWS]
        indicator &= ((block == 0) | (block == 1)).all(0)
    mean, deviation = map(np.array, moments(values))
    return tuple(np.where(indicator, 0.0, mean).tolist()), tuple(np.where(indicator, 1.0, deviation).tolist())


def decades(targets: np.ndarray) -> float:
    """The largest span, in powers of ten, between quantiles of targets (rows, outputs); 0 if any is not positive.

    Logarithms are learned for all columns or none.
    """
    spans = [0.0]
    for column in targets.T if not (targets <= 0).any() else ():
        present = column[~np.isnan(column)]
        if len(present):
            low, high = np.quantile(np.log10(present), (0.02, 0.98))
            spans.append(float(high - low))
    return max(spans)


@dataclass(frozen=True)
class Numbers:
    """How the real numbers of a dataset are scaled, by statistics of its training split.

    Attributes:
        normalise: the network predicts targets standardised by the mean and deviation of the training targets; metrics
            stay in the units of the data.
        log: the network learns the logarithms of targets, which must be positive; metrics are unaffected.
        standardise: the network reads real-valued features standardised by their mean and deviation, except indicator
            columns of 0 and 1. The statistics are those of the training graphs; for a single graph, those of its
            training nodes and all of its edges, or of all nodes if fewer than 1,000 are for training (the network sees
            the features of the others anyway) or links are predicted.
    """

    normalise: bool = True
    log: bool = False
    standardise: bool = True

    def facts(self) -> dict[str, Any]:
        """The JSON-serialisable values that a store depends on."""
        return asdict(self)

    def kind(self, kind: Kind | None) -> Kind | None:
        """The requested kind of targets; regression if logarithms are requested."""
        return "regression" if kind is None and self.log else kind

    def check(self, kind: Kind, y: np.ndarray, where: Callable[[int], str]) -> None:
        """Check that targets (rows, ...) of a kind can be scaled like this.

        Raises:
            UserError: names the first row whose target has no logarithm.
        """
        if not self.log:
            return
        if kind != "regression":
            raise UserError("data.log=true is for numeric targets: set data.kind=regression, or data.log=false")
        wrong = np.argwhere(y <= 0)
        if len(wrong):
            row = tuple(wrong[0])
            raise UserError(f"{where(int(row[0]))}: a target of {y[row]:g} has no logarithm: set data.log=false")

    def units(self, y: np.ndarray) -> dict[str, Any]:
        """The scaling of training targets (rows, outputs), as fields of a `Schema`."""
        y = np.log(y.astype(np.float64)) if self.log else y
        mean, scale = moments(y) if self.normalise else ((), ())
        return {"mean": mean, "scale": scale, "log": self.log}

    def learn(self, graphs: Graphs) -> Graphs:
        """The same graphs, which must be split, with the scaling of their numbers in the schema."""
        return replace(
            graphs, schema=replace(graphs.schema, **self._target_scaling(graphs), **self._feature_scaling(graphs))
        )

    def _target_scaling(self, graphs: Graphs) -> dict[str, Any]:
        if graphs.schema.kind != "regression":
            return {}
        train = np.asarray(graphs.splits["train"], np.int64)
        if graphs.schema.level == "graph":
            return self.units(graphs.graphs["y"][train])
        rows = train if len(graphs) == 1 else runs(graphs.node_ptr[train], graphs.sizes[train])
        return self.units(graphs.nodes["y"][rows])

    def _feature_scaling(self, graphs: Graphs) -> dict[str, Any]:
        schema: Schema = graphs.schema
        train = np.asarray(graphs.splits["train"], np.int64)
        moments: dict[str, Any] = {}
        if self.standardise and schema.node_floats:
            rows = runs(graphs.node_ptr[train], graphs.sizes[train]) if len(graphs) > 1 else train
            x, whole = graphs.nodes["x"], len(graphs) == 1 and (schema.level == "link" or len(train) < MIN_TRAIN_NODES)
            moments["node_mean"], moments["node_scale"] = feature_moments(x if whole else x[rows])
        if self.standardise and schema.edge_floats:
            attributes, edges = graphs.edges["edge_attr"], np.diff(graphs.edge_ptr)
            if len(graphs) > 1:
                attributes = attributes[runs(graphs.edge_ptr[train], edges[train])]
            moments["edge_mean"], moments["edge_scale"] = feature_moments(attributes)
        return moments
