"""One or more trained models as an ensemble: their mean prediction and its deviation."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gt.attention import Reading
from gt.encodings import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.model import GraphTransformer
from gt.schema import Schema, pluralise
from gt.train.meaning import difference
from gt.train.network import encodings_of
from gt.train.task import Task

SEED = 0  # of the dropout masks, so that predictions are reproducible


@dataclass(frozen=True)
class Answer:
    """The predictions for R rows.

    Attributes:
        prediction: (R, outputs * positions) logits of classes, or of yes; numbers in the unit of the data.
        deviation: standard deviation of probabilities, or numbers, over members; None for a single member.
        embedding: (R, d) the input of the last layers of the head; None unless requested.
    """

    prediction: Tensor
    deviation: Tensor | None = None
    embedding: Tensor | None = None

    def cpu(self) -> "Answer":
        deviation, embedding = (None if part is None else part.cpu() for part in (self.deviation, self.embedding))
        return Answer(self.prediction.cpu(), deviation, embedding)


class Models:
    """Trained tasks as an ensemble (Lakshminarayanan et al. 2017), with Monte Carlo dropout, or both.

    The prediction is the mean of the members' numbers or probabilities.

    Args:
        tasks: tasks in eval mode that read the same data and predict the same targets.
        passes: forward passes of each task with dropout on (Gal & Ghahramani 2016); 0: one without dropout.
        embed: return embeddings, those of the first task.
        answers: whether the outputs of the heads are needed, not just what comes before them.

    Raises:
        UserError: a task does not match the first, no model has dropout, a head has no embeddings, or answers are
            needed from a task trained without labels.
    """

    def __init__(self, tasks: Sequence[Task], passes: int = 0, embed: bool = False, answers: bool = True) -> None:
        if answers:
            check_answers(tasks)
        self.tasks, self.passes, self.embed = list(tasks), passes, embed
        self.schema: Schema = tasks[0].schema
        for number, task in enumerate(tasks[1:], 2):
            if mismatch := difference(self.schema, task.schema):
                raise UserError(f"model {number} cannot be combined with model 1: they differ in {mismatch}")
        if passes and not any(dropout_modules(task.net) for task in tasks):
            raise UserError("the model has no dropout to leave on: give several runs instead")
        if embed and not hasattr(getattr(tasks[0].net, "head", None), "mlp"):
            raise UserError("embeddings are what gt.heads.Head predicts from, but this model has another head")
        if embed and getattr(getattr(tasks[0].net, "head", None), "dot", False):
            raise UserError(
                "this model has no embeddings of links: its head maps nodes and multiplies the results of two"
            )

    def to(self, device: torch.device) -> "Models":
        for task in self.tasks:
            task.to(device)
        return self

    @property
    def supervised(self) -> bool:
        """Whether all were trained on labels."""
        return all(task.supervised for task in self.tasks)

    @property
    def members(self) -> int:
        """The number of predictions that are averaged."""
        return len(self.tasks) * max(1, self.passes)

    @property
    def largest(self) -> int | None:
        """The number of nodes up to which all can read a graph, by their position tables; None for no limit."""
        modules = [module for task in self.tasks for module in task.net.modules() if isinstance(module, Encoding)]
        return min((module.longest for module in modules if module.longest), default=None)

    @property
    def encodings(self) -> list[Encoding]:
        """The encodings to precompute; those that several tasks share are computed once."""
        return [encoding for task in self.tasks for encoding in encodings_of(task.hparams["config"])]

    def readings(self, device: str) -> set[Reading]:
        """What the loader prepares for them, see `GraphTransformer.readings`."""
        readings: set[Reading] = set()
        with ExitStack() as stack:
            for task in self.tasks:
                if self.passes:
                    stack.enter_context(dropout_on(task.net))
                if isinstance(task.net, GraphTransformer):
                    readings |= task.net.readings(device, False)
        return readings

    def __call__(self, batch: GraphBatch) -> Answer:
        """The predictions for a batch, on its device."""
        embedding: Tensor | None = None
        if self.embed:
            with captured_embeddings(self.tasks[0].net) as parts:
                single = self.tasks[0](batch).float()
            rows, draws = torch.cat(parts).float(), max(1, getattr(self.tasks[0].net, "redraw", 0))
            # with redrawn random masks the head runs once per draw, and the prediction is the mean
            embedding = rows.view(draws, len(rows) // draws, rows.shape[1]).mean(0)
            if len(embedding) != len(single):
                raise UserError("a model that chooses among the nodes of a graph has no graph embedding")
        if self.members == 1:
            return Answer(self.tasks[0](batch).float() if embedding is None else single, None, embedding)
        total = squares = torch.zeros((), dtype=torch.float64, device=batch.device)
        for prediction in self._member_predictions(batch):
            value = self._averaged(prediction).double()
            total, squares = total + value, squares + value.square()
        mean = total / self.members
        variance = (squares - self.members * mean.square()) / (self.members - 1)
        return Answer(self._prediction(mean).float(), variance.clamp(min=0).sqrt().float(), embedding)

    def _member_predictions(self, batch: GraphBatch) -> Iterator[Tensor]:
        for task in self.tasks:
            if not self.passes:
                yield task(batch).float()
            else:
                with dropout_on(task.net), torch.random.fork_rng(devices=[batch.device] if batch.ptr.is_cuda else []):
                    torch.manual_seed(SEED)
                    for _ in range(self.passes):
                        yield task(batch).float()

    def _averaged(self, prediction: Tensor) -> Tensor:
        """The quantity that is averaged: probabilities, or numbers."""
        schema = self.schema
        if schema.kind == "multiclass":
            return prediction.view(-1, schema.positions, schema.outputs).softmax(2).view_as(prediction)
        return prediction.sigmoid() if schema.kind == "binary" else prediction

    def _prediction(self, mean: Tensor) -> Tensor:
        """The inverse of `_averaged`: logits from probabilities."""
        tiny = torch.finfo(mean.dtype).tiny
        if self.schema.kind == "multiclass":
            return mean.clamp(min=tiny).log()
        return mean.logit(eps=1e-12) if self.schema.kind == "binary" else mean

    def __str__(self) -> str:
        runs = pluralise(len(self.tasks), "model")
        return f"{runs}, {self.passes} passes each with dropout on" if self.passes else runs


def check_answers(tasks: Sequence[Task]) -> None:
    """Check that the heads of trained tasks have been trained.

    Raises:
        UserError: one task was trained without labels, so its head is randomly initialised.
    """
    if not all(task.supervised for task in tasks):
        raise UserError(
            "this model was trained without labels (supervised=0), so its head is untrained: train it on labels with "
            "init=RUN_FOLDER, or ask for embeddings: python -m gt.predict RUN_FOLDER --embeddings FILE"
        )


def dropout_modules(net: nn.Module) -> list[nn.Module]:
    """The modules with dropout: dropout layers, and attention with dropout of its weights."""

    def has_dropout(module: nn.Module) -> bool:
        names = ("p",) if isinstance(module, nn.modules.dropout._DropoutNd) else ("dropout", "attention_dropout")
        return any(isinstance(p := getattr(module, name, None), float) and p > 0 for name in names)

    return list(filter(has_dropout, net.modules()))


@contextmanager
def dropout_on(net: nn.Module) -> Iterator[None]:
    """Switch on the dropout of a network in eval mode; all else stays in eval mode."""
    modules = dropout_modules(net)
    for module in modules:
        module.training = True  # not train(), which would include submodules, such as norms
    try:
        yield
    finally:
        for module in modules:
            module.training = False


@contextmanager
def captured_embeddings(net: Any) -> Iterator[list[Tensor]]:
    """Collect the inputs of the head's last layers while a network runs, one tensor for each call of these layers."""
    parts: list[Tensor] = []
    handle = net.head.mlp.register_forward_pre_hook(lambda module, arguments: parts.append(arguments[0]))
    try:
        yield parts
    finally:
        handle.remove()
