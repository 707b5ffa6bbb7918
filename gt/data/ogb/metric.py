"""The metrics of OGB's leaderboards (Hu et al. 2020, 2021), by OGB's own Evaluators."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gt.data.ogb.catalogue import facts
from gt.losses import both_answers
from gt.schema import UNLABELLED
from gt.task_metrics import SampleMetric


def evaluator_of(name: str) -> Any:
    """OGB's own Evaluator of a graph-level dataset, imported now: with it come OGB's classes, and PyG for them."""
    facts(name, "graph")  # raises where the name is unknown
    if name == "pcqm4m-v2":
        from ogb.lsc.pcqm4mv2 import PCQM4Mv2Evaluator

        return PCQM4Mv2Evaluator()
    from ogb.graphproppred import Evaluator

    return Evaluator(name)


class LeaderboardMetric(SampleMetric):
    """A metric of all samples, as a leaderboard takes it; NaN, and nothing fails, where it is not defined.

    Args:
        measure: what the Evaluator calls it.
        columns: numbers that are kept of the prediction of a sample, and of its target.

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
        """The metric of all samples; NaN where it is not defined."""

    def compute(self) -> Tensor:
        """The metric, a scalar."""
        preds, target = self.samples()
        return torch.tensor(self.score(preds, target) if len(target) else torch.nan, device=self.device)


class OGBMetric(LeaderboardMetric):
    """ROC-AUC, average precision or root mean squared error, averaged over tasks, of logits or values (B, tasks).

    Targets (B, tasks) are NaN where there is no label. It is not defined where no task has both classes, where a task
    of a regression has no label, or where a prediction is not finite.

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
    """The share of right classes, of scores (B, classes) and targets (B,) or (B, 1); unlabelled ones do not count.

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

    A prediction holds scores of the vocabulary at each position; words from the first end on are cut off, and an
    unknown word counts as a word that is wrong. The reference is all words of the name, also those that are outside of
    the vocabulary or past the last position.

    Args:
        words: the vocabulary, of which the last two are the unknown word and the end.
        positions: words that are predicted.
        references: columns of a target that follow its positions: the numbers of the name's words, those outside of
            the vocabulary numbered from its length on; `UNLABELLED` fills up.
    """

    def __init__(self, words: Sequence[str], positions: int, references: int) -> None:
        super().__init__("F1", (positions, positions + references))
        self.evaluator = evaluator_of("ogbg-code2")
        self.words, self.positions = tuple(words), positions

    def answers(self, preds: Tensor) -> Tensor:
        return preds.reshape(len(preds), self.positions, -1).argmax(2)

    def score(self, preds: Tensor, target: Tensor) -> float:
        references = target[:, self.positions :].long().tolist()
        named = [[self.word(n) for n in row if n != UNLABELLED] for row in references]
        return self.evaluator.eval({"seq_ref": named, "seq_pred": self.decoded(preds)})["F1"]

    def word(self, number: int) -> str:
        """A word by its number; one outside of the vocabulary has no spelling, only a number."""
        return self.words[number] if number < len(self.words) else f"word {number}"

    def decoded(self, answers: Tensor) -> list[list[str]]:
        """The words of predictions (B, positions) of word numbers, each up to the first end."""
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
