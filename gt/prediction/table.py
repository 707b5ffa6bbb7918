"""Predictions of a trained model as a table: a row for each graph, node, token or link, or for each row of a file."""

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

EMBEDDING = "embedding "  # begins the name of a column of a table that is not finished
BETWEEN = " | "  # two classes of a set


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split.

    Attributes:
        table: a row for each sample in the order of the split; of new data for each row of their source.
        scores: the metrics of the samples with a target; none where no sample has one.
        unreadable: by number of a row without a prediction, where it stands and why.
        embeddings: (rows of the table, d), NaN where there is none; None unless asked for.
        answers: the columns that say what the models answer, not what the rows are or have as targets.
    """

    table: pd.DataFrame
    scores: dict[str, float]
    unreadable: dict[int, str]
    embeddings: np.ndarray | None = None
    answers: Sequence[str] = ()

    def parted(self) -> "Predictions":
        """The same with embeddings apart, if the table has columns of them."""
        names = [name for name in self.table if str(name).startswith(EMBEDDING)]
        if not names:
            return self
        return replace(self, table=self.table.drop(columns=names), embeddings=self.table[names].to_numpy(np.float32))


def located(schema: Schema, dataset: Any, samples: np.ndarray, batch: GraphBatch) -> dict[str, np.ndarray]:
    """What each row of a batch's predictions is about, by columns.

    Raises:
        UserError: the batch is a sample of a graph, whose nodes have lost their numbers.
    """
    if schema.level == "link" and batch.links is not None:
        if not isinstance(dataset, GraphDataset):
            return {"from_node": batch.links[0].numpy(), "to_node": batch.links[1].numpy()}
        ends = batch.position[batch.links].numpy()
        graph = dataset.ids[samples][batch.batch[batch.links[0]].numpy()]
        return {"graph": graph, "from_node": ends[0], "to_node": ends[1]}
    if schema.level == "node" and hasattr(dataset, "roots"):
        if batch.num_nodes != int(dataset.graphs.node_ptr[-1]):
            raise UserError("predictions for nodes are made on the whole graph: set data.evaluate=full")
        return {"node": np.arange(batch.num_nodes)}
    numbers = dataset.ids[samples] if isinstance(dataset, GraphDataset) else samples
    if schema.level == "graph":
        return {"graph": numbers}
    if not isinstance(dataset, GraphDataset):  # an item of a text is where its block begins
        return {"token": numbers[batch.batch.numpy()] + batch.position.numpy()}
    return {"graph": numbers[batch.batch.numpy()], "node": batch.position.numpy()}


def named(table: pd.DataFrame, data: Stored) -> pd.DataFrame:
    """The same table, with what the source calls each graph or node instead of, or beside, its number."""
    if data.schema.level == "link":
        ids = data.source.ids() if isinstance(data, LinkData) else None
        return table if ids is None else table.assign(**{end: ids[table[end]] for end in ("from_node", "to_node")})
    rows = data.graphs.node_ptr[table["graph"]] if "graph" in table and "node" in table else 0
    rows = rows + table["node" if "node" in table else "graph"].to_numpy()
    numbered = {name: table[name] for name in ("graph", "node") if name in table}
    about: dict[Any, Any] = {} if data.source.identifies else dict(numbered)
    about |= {name: values[rows] for name, values in data.source.names(data.graphs).items()}
    return pd.DataFrame(about | {name: table[name] for name in table if name not in {*about, *numbered}})


@dataclass(frozen=True)
class Columns:
    """How predictions are spelled in a table.

    Attributes:
        schema: of the model.
        calibration: says temperature, intervals and sets.
        every: whether there is a probability for each class, of a yes/no task for its no and its yes, beside that of
            the predicted one.
    """

    schema: Schema
    calibration: Calibration = field(default_factory=Calibration)
    every: bool = False

    def __call__(
        self, answer: Answer, target: Tensor | None, spell: Callable[[Tensor], list[str] | None]
    ) -> dict[str, Any]:
        """Answers as a person reads them, by columns: classes and probabilities, or numbers; then targets.

        Args:
            answer: on the CPU, at the temperature.
            target: of the rows, where they have any.
            spell: the words of predicted classes (rows, positions), where the source has such.
        """
        if self.schema.kind == "multiclass":
            rows = self._of_classes(answer, spell)
            if target is not None:
                answers = target.view(len(target), -1)[:, : self.schema.positions]
                rows["target"] = _classes(self.schema, answers, spell)
        else:
            rows = self._of_numbers(answer, target)
        if answer.embedding is not None:
            rows |= {f"{EMBEDDING}{n}": values for n, values in enumerate(answer.embedding.T.numpy())}
        return rows

    def _of_classes(self, answer: Answer, spell: Callable[[Tensor], list[str] | None]) -> dict[str, Any]:
        schema, prediction = self.schema, answer.prediction
        of_classes = prediction.view(len(prediction), schema.positions, schema.outputs).softmax(2)
        best = of_classes.max(2)
        rows: dict[str, Any] = {"prediction": _classes(schema, best.indices, spell)}
        if schema.positions > 1:
            return rows
        rows["probability"] = best.values[:, 0].numpy()
        if answer.deviation is not None:
            rows["deviation"] = answer.deviation.gather(1, best.indices)[:, 0].numpy()
        names = schema.names or tuple(map(str, range(schema.outputs)))
        if self.every:
            rows |= {f"probability_{name}": of_classes[:, 0, n].numpy() for n, name in enumerate(names)}
        if self.calibration.margin is not None:
            rows["set"] = _joined(self.calibration.sets(schema, prediction)[:, 0], names)
        return rows

    def _of_numbers(self, answer: Answer, target: Tensor | None) -> dict[str, Any]:
        """Numbers, or the probability of yes, for each output."""
        schema, prediction = self.schema, answer.prediction
        binary, margin = schema.kind == "binary", self.calibration.margin
        values = {"prediction": prediction.sigmoid() if binary else prediction}
        if answer.deviation is not None:
            values["deviation"] = answer.deviation
        if margin is not None and not binary:
            values["low"], values["high"] = self.calibration.interval(schema, prediction)
        names = schema.names or [str(number) for number in range(schema.outputs)]
        ends = [""] if schema.outputs == 1 else [f"_{name}" for name in names]
        rows: dict[str, Any] = {
            f"{k}{end}": each[:, n].numpy() for k, each in values.items() for n, end in enumerate(ends)
        }
        words = schema.answers or [("0", "1")] * schema.outputs
        if binary and self.every:
            of_yes = values["prediction"].T
            for end, (no, yes), share in zip(ends, words, of_yes, strict=True):
                rows |= {f"probability{end}_{no}": (1 - share).numpy(), f"probability{end}_{yes}": share.numpy()}
        if binary and margin is not None:
            sets = self.calibration.sets(schema, prediction)
            rows |= {f"set{end}": _joined(sets[:, n], words[n]) for n, end in enumerate(ends)}
        if target is not None:
            target = output_targets(schema, target).view_as(prediction)
            rows |= {f"target{end}": target[:, n].numpy() for n, end in enumerate(ends)}
        return rows


def _joined(members: Tensor, names: Sequence[str]) -> list[str]:
    """The names of the members (rows, classes) of each row's set."""
    return [BETWEEN.join(names[n] for n, inside in enumerate(row) if inside) for row in members.tolist()]


def _classes(schema: Schema, answers: Tensor, spell: Callable[[Tensor], list[str] | None]) -> list[Any]:
    """Rows of classes (rows, positions) by their names, empty where there is none."""
    if (words := spell(answers)) is not None:
        return words
    named = [
        ["" if n == UNLABELLED else schema.names[n] if schema.names else n for n in row] for row in answers.tolist()
    ]
    return [row[0] if schema.positions == 1 else " ".join(map(str, row)) for row in named]


def beside(
    records: Records, predicted: pd.DataFrame, left_out: np.ndarray, why: str, schema: Schema, scores: dict[str, float]
) -> Predictions:
    """The rows of a source, each with its prediction after its own columns, empty where there is none.

    Args:
        predicted: predictions of the samples that are not left out, in order.
        left_out: (S,) of all samples; none where none is.
        why: that is so.
    """
    rows, unreadable = records.row, dict(records.unreadable)
    if len(left_out):
        unreadable |= {int(row): f"row {row}: {why}" for row in rows[left_out]}
        rows = rows[~left_out]
    own = set(map(str, records.table.columns))
    repeated = {"graph", "node", "from_node", "to_node"} | (
        {name for name in predicted if str(name).startswith("target")} if {*schema.target} <= own else set()
    )
    predicted = predicted.drop(columns=[name for name in predicted if name in repeated])
    predicted.index = pd.Index(rows)
    table = records.table.rename(columns={name: f"{name} of the file" for name in predicted if name in own})
    return Predictions(
        pd.concat([table, predicted.reindex(range(len(table)))], axis=1), scores, dict(sorted(unreadable.items()))
    )


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all; each number in the fewest digits that say it exactly.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.part-") as part:
            table.to_csv(Path(part) / path.name, index=False)
            os.replace(Path(part) / path.name, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another place by --out FILE") from None
