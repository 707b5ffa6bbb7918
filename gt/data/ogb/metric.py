"""The metrics of OGB's leaderboards (Hu et al. 2020, 2021), by OGB's own Evaluators."""

import sys
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from gt.data.ogb.catalogue import facts
from gt.schema import UNLABELLED


def evaluator_of(name: str) -> Any:
    """OGB's own Evaluator of a graph-level dataset, imported now: with it come OGB's classes, and PyG for them."""
    facts(name, "graph")  # raises where the name is unknown
    # importing ogb starts a thread that asks PyPI for a newer release, without time-out; lacking `outdated` it does not
    sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
    if name == "pcqm4m-v2":
        from ogb.lsc.pcqm4mv2 import PCQM4Mv2Evaluator

        return PCQM4Mv2Evaluator()
    from ogb.graphproppred import Evaluator

    return Evaluator(name)


class LeaderboardMetric(Metric):
    """A metric that looks at all samples of all processes at once, as a leaderboard does.

    It is NaN, and nothing fails, where it is not defined.

    Args:
        measure: what the Evaluator calls it.
        columns: numbers that are kept of the prediction of a sample, and of its target.

    Attributes:
        measure: ``rocauc``, ``ap``, ``rmse``, ``acc``, ``F1`` or ``mae``.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, measure: str, columns: tuple[int, int]) -> None:
        super().__init__()
        self.measure, self.columns = measure, columns
        # flat, and float32 whatever the precision of the run: a process without samples joins in with an empty vector
        self.set_dtype(torch.float32)
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        return self.measure not in ("rmse", "mae")

    def answers(self, preds: Tensor) -> Tensor:
        """(B, columns of a prediction) what is kept of predictions (B, ...) as the network makes them."""
        return preds

    @abstractmethod
    def score(self, preds: Tensor, target: Tensor) -> float:
        """The metric of all samples; NaN where it is not defined."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take predictions (B, ...) and targets (B, columns of a target)."""
        kept = self.answers(preds.detach())
        for values, columns, what in ((kept, self.columns[0], "predictions"), (target, self.columns[1], "targets")):
            if values.ndim != 2 or values.shape[1] != columns or len(values) != len(target):
                raise ValueError(f"{tuple(values.shape)} {what} of {len(target)} samples: expected (B, {columns})")
        self.preds.append(kept.float().flatten())
        self.target.append(target.detach().float().flatten())

    def compute(self) -> Tensor:
        """The metric, a scalar."""
        value = torch.tensor(torch.nan, device=self.device)
        if len(self.preds):
            states = zip((self.preds, self.target), self.columns, strict=True)
            preds, target = (dim_zero_cat(state).view(-1, columns) for state, columns in states)
            value.fill_(self.score(preds, target) if len(target) else torch.nan)
        return value


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
        if self.measure == "rmse":
            defined = labelled.any(0).all()
        else:
            defined = ((target == 0).any(0) & (target == 1).any(0)).any()
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
