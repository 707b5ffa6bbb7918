"""Real numbers, whatever their unit, as a network learns from them: what the training split says of their scale.

A store keeps numbers as its source has them. What is learned here goes into the schema, and with that into every
checkpoint: the network applies it, so that new data, in the same unit, are read and predicted rightly.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gt.data.batching import runs
from gt.data.packed import Graphs
from gt.errors import UserError
from gt.schema import Kind, Schema

ROWS = 1 << 16  # that are looked at together
FEW = 1000  # training nodes of a single graph, below which all of its nodes say how features are scaled
DECADES = 2.0  # between the small and the large targets, from which on logarithms are worth a thought

Moments = tuple[tuple[float, ...], tuple[float, ...]]


def moments(values: np.ndarray) -> Moments:
    """Mean and standard deviation of each column of numbers (rows, columns), NaN left out.

    A column that is constant has a deviation of 1, one without numbers a mean of 0 too.
    """
    blocks = [values[low : low + ROWS] for low in range(0, len(values), ROWS)]
    count = sum(((~np.isnan(block)).sum(0) for block in blocks), np.zeros(values.shape[1]))
    total = sum((np.nansum(block, 0, dtype=np.float64) for block in blocks), np.zeros(values.shape[1]))
    mean = total / count.clip(min=1)
    squares = sum((np.nansum((block - mean) ** 2, 0) for block in blocks), np.zeros(values.shape[1]))
    deviation = np.sqrt(squares / count.clip(min=1))
    varies = deviation > np.maximum(1e-7 * np.abs(mean), 1e-30)  # else it is rounding, in float32
    return tuple(mean.tolist()), tuple(np.where(varies, deviation, 1.0).tolist())


def feature_moments(values: np.ndarray) -> Moments:
    """Mean and deviation of each column (rows, columns), but 0 and 1 of those that hold nothing but 0 and 1."""
    indicator = np.ones(values.shape[1], bool)
    for low in range(0, len(values), ROWS):
        block = values[low : low + ROWS]
        indicator &= ((block == 0) | (block == 1)).all(0)
    mean, deviation = map(np.array, moments(values))
    return tuple(np.where(indicator, 0.0, mean).tolist()), tuple(np.where(indicator, 1.0, deviation).tolist())


def decades(targets: np.ndarray) -> float:
    """Powers of ten between the small and the large of targets (rows, outputs), at most; 0 where one is not above 0.

    Logarithms are learned of all columns or of none.
    """
    spans = [0.0]
    for column in targets.T if not (targets <= 0).any() else ():
        known = column[~np.isnan(column)]
        if len(known):
            low, high = np.quantile(np.log10(known), (0.02, 0.98))
            spans.append(float(high - low))
    return max(spans)


@dataclass(frozen=True)
class Numbers:
    """How the real numbers of a dataset are scaled; what that takes is learned from its training split.

    Attributes:
        normalise: let the network predict numbers in units of the training targets' standard deviation, from their
            mean; metrics stay in the data's unit.
        log: let it learn the logarithms of targets, which are above 0; metrics stay as they are.
        standardise: let it read real features in units of their deviation, from their mean. Columns of nothing but 0
            and 1 stay as they are. Of many graphs those for training count; of a single graph its training nodes, or
            all of its nodes where fewer than 1,000 are for training (the network reads the others' features anyway) or
            links are to be found, and all of its edges.
    """

    normalise: bool = True
    log: bool = False
    standardise: bool = True

    def facts(self) -> dict[str, Any]:
        """JSON-able: what a store depends on."""
        return asdict(self)

    def kind(self, kind: Kind | None) -> Kind | None:
        """The kind of targets that is asked for: what has a logarithm is a number."""
        return "regression" if kind is None and self.log else kind

    def check(self, kind: Kind, y: np.ndarray, where: Callable[[int], str]) -> None:
        """Whether targets (rows, ...) of a kind may be learned like this.

        Raises:
            UserError: names the first row whose target has no logarithm.
        """
        if not self.log:
            return
        if kind != "regression":
            raise UserError("data.log=true is for targets that are numbers: set data.kind=regression, or log=false")
        wrong = np.argwhere(y <= 0)
        if len(wrong):
            row = tuple(wrong[0])
            raise UserError(f"{where(int(row[0]))}: a target of {y[row]:g} has no logarithm: set data.log=false")

    def units(self, y: np.ndarray) -> dict[str, Any]:
        """The units of training targets (rows, outputs), as the fields of a `Schema`."""
        y = np.log(y.astype(np.float64)) if self.log else y
        mean, scale = moments(y) if self.normalise else ((), ())
        return {"mean": mean, "scale": scale, "log": self.log}

    def learn(self, graphs: Graphs) -> Graphs:
        """The same graphs, split already; their schema says how the numbers in them are scaled."""
        return replace(graphs, schema=replace(graphs.schema, **self._of_targets(graphs), **self._of_features(graphs)))

    def _of_targets(self, graphs: Graphs) -> dict[str, Any]:
        if graphs.schema.kind != "regression":
            return {}
        train = np.asarray(graphs.splits["train"], np.int64)
        if graphs.schema.level == "graph":
            return self.units(graphs.graphs["y"][train])
        rows = train if len(graphs) == 1 else runs(graphs.node_ptr[train], graphs.sizes[train])
        return self.units(graphs.nodes["y"][rows])

    def _of_features(self, graphs: Graphs) -> dict[str, Any]:
        schema: Schema = graphs.schema
        train = np.asarray(graphs.splits["train"], np.int64)
        moments: dict[str, Any] = {}
        if self.standardise and schema.node_floats:
            rows = runs(graphs.node_ptr[train], graphs.sizes[train]) if len(graphs) > 1 else train
            x, every = graphs.nodes["x"], len(graphs) == 1 and (schema.level == "link" or len(train) < FEW)
            moments["node_mean"], moments["node_scale"] = feature_moments(x if every else x[rows])
        if self.standardise and schema.edge_floats:
            attributes, edges = graphs.edges["edge_attr"], np.diff(graphs.edge_ptr)
            if len(graphs) > 1:
                attributes = attributes[runs(graphs.edge_ptr[train], edges[train])]
            moments["edge_mean"], moments["edge_scale"] = feature_moments(attributes)
        return moments
