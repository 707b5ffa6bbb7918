"""The metrics of OGB's leaderboards (Hu et al. 2020, 2021), computed by OGB's own Evaluators."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gt.data.ogb.catalogue import metadata
from gt.losses import both_answers
from gt.schema import UNLABELLED
from gt.task_metrics import SampleMetric


def evaluator_of(name: str) -> Any:
    """OGB's Evaluator of a graph-level dataset, imported lazily, as it pulls in OGB's dataset classes and PyG."""
    metadata(name, "graph")  # raises if the name is unknown
    if name == "pcqm4m-v2":
        from ogb.lsc.pcqm4mv2 import PCQM4Mv2Evaluator

        return PCQM4Mv2Evaluator()
    from ogb.graphproppred import Evaluator

    return Evaluator(name)


class LeaderboardMetric(SampleMetric):
    """A leaderboard metric over all samples; NaN, rather than an error, where it is undefined.

    Args:
        measure: the Evaluator's name of the metric.
        columns: how many numbers are stored of each sample's prediction, and of its target.

    Attributes:
        measure: ``rocauc``, ``ap``, ``rmse``, ``acc``, ``F1`` or ``mae``.
    """

    def __init__(self, measure: str, columns: tuple[int, int]) -> None:
        super().__init__(columns)
        self.measure = measure

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        return self.measure not in ("rmse", "mae")

    @abstractmethod
    def score(self, preds: Tensor, target: Tensor) -> float:
        """The metric over all samples; NaN where it is undefined."""

    def compute(self) -> Tensor:
        """The metric, a scalar."""
        preds, target = self.samples()
        return torch.tensor(self.score(preds, target) if len(target) else torch.nan, device=self.device)


class OGBMetric(LeaderboardMetric):
    """ROC-AUC, average precision or root mean squared error, averaged over tasks, of logits or values (B, tasks).

    Targets (B, tasks) are NaN where there is no label. It is undefined if no task has both classes, if a regression
    task has no label, or if a prediction is not finite.

    Args:
        name: the dataset, such as ``ogbg-molhiv``.
    """

    def __init__(self, name: str) -> None:
        evaluator = evaluator_of(name)
        super().__init__(evaluator.eval_metric, (evaluator.num_tasks, evaluator.num_tasks))
        self.evaluator = evaluator

    def score(self, preds: Tensor, target: Tensor) -> float:
        labelled = ~target.isnan()
        defined = labelled.any(0).all() if self.measure == "rmse" else both_answers(target).any()
        if not (defined and preds[labelled].isfinite().all()):
            return np.nan
        return self.evaluator.eval({"y_true": target, "y_pred": preds})[self.measure]


class OGBAccuracy(LeaderboardMetric):
    """Accuracy of scores (B, classes) and targets (B,) or (B, 1); unlabelled samples are ignored.

    Args:
        name: the dataset, such as ``ogbg-ppa``.
    """

    def __init__(self, name: str) -> None:
        super().__init__("acc", (1, 1))
        self.evaluator = evaluator_of(name)

    def answers(self, preds: Tensor) -> Tensor:
        return preds.argmax(1, keepdim=True)

    def score(self, preds: Tensor, target: Tensor) -> float:
        labelled = target[:, 0] != UNLABELLED
        if not labelled.any():
            return np.nan
        return self.evaluator.eval({"y_true": target[labelled], "y_pred": preds[labelled]})["acc"]


class OGBWords(LeaderboardMetric):
    """F1 of predicted words against the words of a name, as sets, averaged over samples (ogbg-code2).

    A prediction holds scores over the vocabulary at each position; it ends at the first end token, and an unknown word
    counts as a wrong word. The reference is all words of the name, including those outside the vocabulary or beyond the
    last position.

    Args:
        words: the vocabulary, with the unknown word and the end as its last two entries.
        positions: number of predicted words.
        references: columns of a target after its positions: the ids of the name's words, padded with `UNLABELLED`; ids
            from the vocabulary's length on are words outside it.
    """

    def __init__(self, words: Sequence[str], positions: int, references: int) -> None:
        super().__init__("F1", (positions, positions + references))
        self.evaluator = evaluator_of("ogbg-code2")
        self.words, self.positions = tuple(words), positions

    def answers(self, preds: Tensor) -> Tensor:
        return preds.reshape(len(preds), self.positions, -1).argmax(2)

    def score(self, preds: Tensor, target: Tensor) -> float:
        references = target[:, self.positions :].long().tolist()
        names = [[self.word(n) for n in row if n != UNLABELLED] for row in references]
        return self.evaluator.eval({"seq_ref": names, "seq_pred": self.decoded(preds)})["F1"]

    def word(self, number: int) -> str:
        """The word with an id; a placeholder for one outside the vocabulary."""
        return self.words[number] if number < len(self.words) else f"word {number}"

    def decoded(self, answers: Tensor) -> list[list[str]]:
        """The words of predicted ids (B, positions), each up to the first end token."""
        end = len(self.words) - 1
        rows = answers.long().tolist()
        return [[self.words[n] for n in (row[: row.index(end)] if end in row else row)] for row in rows]


class PCQM4Mv2Metric(LeaderboardMetric):
    """The mean absolute error of energies (B, 1) in eV, NaN where unlabelled, by the challenge's own Evaluator."""

    def __init__(self) -> None:
        super().__init__("mae", (1, 1))
        self.evaluator = evaluator_of("pcqm4m-v2")

    def score(self, preds: Tensor, target: Tensor) -> float:
        labelled = ~target.isnan()
        if not labelled.any():
            return np.nan
        return self.evaluator.eval({"y_true": target[labelled], "y_pred": preds[labelled]})["mae"]
