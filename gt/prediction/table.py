"""Predictions as a table, with a row for each graph, node, token or link, or for each row of a file."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gt.data.batching import GraphDataset
from gt.data.graphs import Stored
from gt.data.large.links import LinkData
from gt.data.source import Records
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.losses import output_targets
from gt.prediction.calibration import Calibration
from gt.prediction.models import Answer
from gt.schema import UNLABELLED, Schema

EMBEDDING = "embedding "  # prefix of temporary columns
SEPARATOR = " | "  # between the classes of a set


@dataclass(frozen=True)
class Predictions:
    """The predictions for a split.

    Attributes:
        table: a row for each sample in the order of the split, or for each row of the source of new data.
        scores: metrics of the samples with a target; empty if no sample has one.
        unreadable: for each row without a prediction, by number, its location and the reason.
        embeddings: (rows of the table, d), NaN for unreadable rows; None unless requested.
        answers: the columns with predictions, rather than identifiers or targets.
    """

    table: pd.DataFrame
    scores: dict[str, float]
    unreadable: dict[int, str]
    embeddings: np.ndarray | None = None
    answers: Sequence[str] = ()

    def split_embeddings(self) -> "Predictions":
        """Move the columns of embeddings, if any, out of the table."""
        names = [name for name in self.table if str(name).startswith(EMBEDDING)]
        if not names:
            return self
        return replace(self, table=self.table.drop(columns=names), embeddings=self.table[names].to_numpy(np.float32))


def row_columns(schema: Schema, dataset: Any, samples: np.ndarray, batch: GraphBatch) -> dict[str, np.ndarray]:
    """The columns that identify the graph, node, token or link of each predicted row of a batch.

    Raises:
        UserError: the batch is a sampled subgraph, whose nodes have lost their numbers.
    """
    if schema.level == "link" and batch.links is not None:
        if not isinstance(dataset, GraphDataset):
            return {"from_node": batch.links[0].numpy(), "to_node": batch.links[1].numpy()}
        ends = batch.position[batch.links].numpy()
        graph = dataset.ids[samples][batch.batch[batch.links[0]].numpy()]
        return {"graph": graph, "from_node": ends[0], "to_node": ends[1]}
    if schema.level == "node" and hasattr(dataset, "roots"):
        if batch.num_nodes != int(dataset.graphs.node_ptr[-1]):
            raise UserError("predictions for nodes need the whole graph: set data.evaluate=full")
        return {"node": np.arange(batch.num_nodes)}
    numbers = dataset.ids[samples] if isinstance(dataset, GraphDataset) else samples
    if schema.level == "graph":
        return {"graph": numbers}
    if not isinstance(dataset, GraphDataset):  # a sample of a text is the start of its block
        return {"token": numbers[batch.batch.numpy()] + batch.position.numpy()}
    return {"graph": numbers[batch.batch.numpy()], "node": batch.position.numpy()}


def with_names(table: pd.DataFrame, data: Stored) -> pd.DataFrame:
    """Replace the numbers of graphs and nodes by the names that the source has for them, or add these."""
    if data.schema.level == "link":
        ids = data.source.ids() if isinstance(data, LinkData) else None
        return table if ids is None else table.assign(**{end: ids[table[end]] for end in ("from_node", "to_node")})
    rows = data.graphs.node_ptr[table["graph"]] if "graph" in table and "node" in table else 0
    rows = rows + table["node" if "node" in table else "graph"].to_numpy()
    numbered = {name: table[name] for name in ("graph", "node") if name in table}
    columns: dict[Any, Any] = {} if data.source.identifies else dict(numbered)
    columns |= {name: values[rows] for name, values in data.source.names(data.graphs).items()}
    return pd.DataFrame(columns | {name: table[name] for name in table if name not in {*columns, *numbered}})


@dataclass(frozen=True)
class Columns:
    """Formats predictions as columns of a table.

    Attributes:
        schema: schema of the model.
        calibration: temperature, intervals and sets.
        every: add the probability of each class (of no and yes, for a binary task), not just of the predicted one.
    """

    schema: Schema
    calibration: Calibration = field(default_factory=Calibration)
    every: bool = False

    def __call__(
        self, answer: Answer, target: Tensor | None, spell: Callable[[Tensor], list[str] | None]
    ) -> dict[str, Any]:
        """Columns of predictions: classes and probabilities, or numbers; then targets.

        Args:
            answer: on the CPU, with the temperature applied.
            target: targets of the rows, if there are any.
            spell: returns names of classes (rows, positions), or None if the source has no names.
        """
        if self.schema.kind == "multiclass":
            rows = self._of_classes(answer, spell)
            if target is not None:
                labels = target.view(len(target), -1)[:, : self.schema.positions]
                rows["target"] = _classes(self.schema, labels, spell)
        else:
            rows = self._of_numbers(answer, target)
        if answer.embedding is not None:
            rows |= {f"{EMBEDDING}{n}": values for n, values in enumerate(answer.embedding.T.numpy())}
        return rows

    def _of_classes(self, answer: Answer, spell: Callable[[Tensor], list[str] | None]) -> dict[str, Any]:
        schema, prediction = self.schema, answer.prediction
        probabilities = prediction.view(len(prediction), schema.positions, schema.outputs).softmax(2)
        best = probabilities.max(2)
        rows: dict[str, Any] = {"prediction": _classes(schema, best.indices, spell)}
        if schema.positions > 1:
            return rows
        rows["probability"] = best.values[:, 0].numpy()
        if answer.deviation is not None:
            rows["deviation"] = answer.deviation.gather(1, best.indices)[:, 0].numpy()
        names = schema.names or tuple(map(str, range(schema.outputs)))
        if self.every:
            rows |= {f"probability_{name}": probabilities[:, 0, n].numpy() for n, name in enumerate(names)}
        if self.calibration.margin is not None:
            rows["set"] = _joined(self.calibration.sets(schema, prediction)[:, 0], names)
        return rows

    def _of_numbers(self, answer: Answer, target: Tensor | None) -> dict[str, Any]:
        """Columns of numbers, or of the probability of yes, for each output."""
        schema, prediction = self.schema, answer.prediction
        binary, margin = schema.kind == "binary", self.calibration.margin
        values = {"prediction": prediction.sigmoid() if binary else prediction}
        if answer.deviation is not None:
            values["deviation"] = answer.deviation
        if margin is not None and not binary:
            values["low"], values["high"] = self.calibration.interval(schema, prediction)
        names = schema.names or [str(number) for number in range(schema.outputs)]
        suffixes = [""] if schema.outputs == 1 else [f"_{name}" for name in names]
        rows: dict[str, Any] = {
            f"{k}{suffix}": columns[:, n].numpy() for k, columns in values.items() for n, suffix in enumerate(suffixes)
        }
        answer_names = schema.answers or [("0", "1")] * schema.outputs
        if binary and self.every:
            yes_probabilities = values["prediction"].T
            for suffix, (no, yes), share in zip(suffixes, answer_names, yes_probabilities, strict=True):
                rows |= {f"probability{suffix}_{no}": (1 - share).numpy(), f"probability{suffix}_{yes}": share.numpy()}
        if binary and margin is not None:
            sets = self.calibration.sets(schema, prediction)
            rows |= {f"set{suffix}": _joined(sets[:, n], answer_names[n]) for n, suffix in enumerate(suffixes)}
        if target is not None:
            target = output_targets(schema, target).view_as(prediction)
            rows |= {f"target{suffix}": target[:, n].numpy() for n, suffix in enumerate(suffixes)}
        return rows


def _joined(members: Tensor, names: Sequence[str]) -> list[str]:
    """The joined names of the classes in the set of each row; ``members`` (rows, classes)."""
    return [SEPARATOR.join(names[n] for n, inside in enumerate(row) if inside) for row in members.tolist()]


def _classes(schema: Schema, answers: Tensor, spell: Callable[[Tensor], list[str] | None]) -> list[Any]:
    """The names of classes (rows, positions), one entry for each row, empty for unlabelled."""
    if (spelled := spell(answers)) is not None:
        return spelled
    names = [
        ["" if n == UNLABELLED else schema.names[n] if schema.names else n for n in row] for row in answers.tolist()
    ]
    return [row[0] if schema.positions == 1 else " ".join(map(str, row)) for row in names]


def merge_records(
    records: Records,
    predicted: pd.DataFrame,
    left_out: np.ndarray,
    reason: str,
    schema: Schema,
    scores: dict[str, float],
) -> Predictions:
    """Append predictions to the rows of a source; rows without a prediction are left empty.

    Args:
        predicted: predictions of the samples that are not left out, in order.
        left_out: (S,) which samples are left out; empty if none.
        reason: why they are.
    """
    rows, unreadable = records.row, dict(records.unreadable)
    if len(left_out):
        unreadable |= {int(row): f"row {row}: {reason}" for row in rows[left_out]}
        rows = rows[~left_out]
    source_columns = set(map(str, records.table.columns))
    redundant = {"graph", "node", "from_node", "to_node"} | (
        {name for name in predicted if str(name).startswith("target")} if {*schema.target} <= source_columns else set()
    )
    predicted = predicted.drop(columns=[name for name in predicted if name in redundant])
    predicted.index = pd.Index(rows)
    table = records.table.rename(columns={name: f"{name} of the file" for name in predicted if name in source_columns})
    return Predictions(
        pd.concat([table, predicted.reindex(range(len(table)))], axis=1), scores, dict(sorted(unreadable.items()))
    )


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, atomically, with each number in the fewest digits that represent it exactly.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.part-") as part:
            table.to_csv(Path(part) / path.name, index=False)
            os.replace(Path(part) / path.name, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another path with --out FILE") from None
