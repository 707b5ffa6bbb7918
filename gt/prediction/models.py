"""One trained model or several, asked as one: the mean of what they say, and how far they disagree."""

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
from gt.schema import Schema, many
from gt.train.meaning import difference
from gt.train.network import encodings_of
from gt.train.task import Task

SEED = 0  # of the dropout: the same data are answered alike twice


@dataclass(frozen=True)
class Answer:
    """What is said of R rows.

    Attributes:
        prediction: (R, outputs * positions) log-odds of classes and of yes; numbers in the unit of the data.
        deviation: the standard deviation over the members of their probabilities, or numbers; None of a single one.
        embedding: (R, d) what the last layers of the head make their prediction of; None unless asked for.
    """

    prediction: Tensor
    deviation: Tensor | None = None
    embedding: Tensor | None = None

    def cpu(self) -> "Answer":
        deviation, embedding = (None if part is None else part.cpu() for part in (self.deviation, self.embedding))
        return Answer(self.prediction.cpu(), deviation, embedding)


class Models:
    """Trained tasks as one: an ensemble (Lakshminarayanan et al. 2017), Monte-Carlo dropout, or both.

    Its prediction is the mean of its members' numbers or probabilities.

    Args:
        tasks: in eval mode, all of which read the same data and predict the same of them.
        passes: how often each is asked with its dropout on (Gal & Ghahramani 2016); 0: once, without.
        embed: whether to give embeddings, those of the first task.
        answers: whether what their heads say is wanted, and not only what lies before.

    Raises:
        UserError: a task that does not fit the first, a model without dropout, or with a head that tells no embedding;
            answers are wanted of a task that has learned none.
    """

    def __init__(self, tasks: Sequence[Task], passes: int = 0, embed: bool = False, answers: bool = True) -> None:
        if answers:
            check_answers(tasks)
        self.tasks, self.passes, self.embed = list(tasks), passes, embed
        self.schema: Schema = tasks[0].schema
        for number, task in enumerate(tasks[1:], 2):
            if apart := difference(self.schema, task.schema):
                raise UserError(f"model {number} cannot be asked beside model 1, for they differ in {apart}")
        if passes and not any(dropping(task.net) for task in tasks):
            raise UserError("the model has no dropout that could be left on: ask several runs instead")
        if embed and not hasattr(getattr(tasks[0].net, "head", None), "mlp"):
            raise UserError("embeddings are what gt.heads.Head predicts from: this model has another head")
        if embed and getattr(getattr(tasks[0].net, "head", None), "dot", False):
            raise UserError(
                "embeddings are of what is predicted: this model's head maps nodes, and multiplies two of them"
            )

    def to(self, device: torch.device) -> "Models":
        for task in self.tasks:
            task.to(device)
        return self

    @property
    def supervised(self) -> bool:
        """Whether all have learned answers."""
        return all(task.supervised for task in self.tasks)

    @property
    def members(self) -> int:
        """Predictions whose mean is taken."""
        return len(self.tasks) * max(1, self.passes)

    @property
    def largest(self) -> int | None:
        """Nodes of the largest graph that all read: a table of positions has an end. None where they read any."""
        modules = [module for task in self.tasks for module in task.net.modules() if isinstance(module, Encoding)]
        return min((module.longest for module in modules if module.longest), default=None)

    @property
    def encodings(self) -> list[Encoding]:
        """What is to be computed of the data beforehand; what several share is computed once."""
        return [encoding for task in self.tasks for encoding in encodings_of(task.hparams["config"])]

    def readings(self, device: str) -> set[Reading]:
        """What the loader makes ready for them, see `GraphTransformer.readings`."""
        read: set[Reading] = set()
        with ExitStack() as stack:
            for task in self.tasks:
                if self.passes:
                    stack.enter_context(dropout_on(task.net))
                if isinstance(task.net, GraphTransformer):
                    read |= task.net.readings(device, False)
        return read

    def __call__(self, batch: GraphBatch) -> Answer:
        """What they say of a batch, on its device."""
        embedding: Tensor | None = None
        if self.embed:
            with embedded(self.tasks[0].net) as parts:
                single = self.tasks[0](batch).float()
            rows, draws = torch.cat(parts).float(), max(1, getattr(self.tasks[0].net, "redraw", 0))
            # where random masks are redrawn the head is asked of each draw, and the prediction is a mean
            embedding = rows.view(draws, len(rows) // draws, rows.shape[1]).mean(0)
            if len(embedding) != len(single):
                raise UserError("a model that chooses among the nodes of a graph has no embedding of the graph")
        if self.members == 1:
            return Answer(self.tasks[0](batch).float() if embedding is None else single, None, embedding)
        total = squares = torch.zeros((), dtype=torch.float64, device=batch.device)
        for prediction in self._member_predictions(batch):
            value = self._mean_of(prediction).double()
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

    def _mean_of(self, prediction: Tensor) -> Tensor:
        """That of which the mean is taken: probabilities, or numbers."""
        schema = self.schema
        if schema.kind == "multiclass":
            return prediction.view(-1, schema.positions, schema.outputs).softmax(2).view_as(prediction)
        return prediction.sigmoid() if schema.kind == "binary" else prediction

    def _prediction(self, mean: Tensor) -> Tensor:
        """The inverse."""
        tiny = torch.finfo(mean.dtype).tiny
        if self.schema.kind == "multiclass":
            return mean.clamp(min=tiny).log()
        return mean.logit(eps=1e-12) if self.schema.kind == "binary" else mean

    def __str__(self) -> str:
        runs = many(len(self.tasks), "model")
        return f"{runs}, each asked {self.passes} times with its dropout on" if self.passes else runs


def check_answers(tasks: Sequence[Task]) -> None:
    """Whether the heads of trained tasks have learned what they say.

    Raises:
        UserError: one of them learned without labels, and its head is as it was drawn.
    """
    if not all(task.supervised for task in tasks):
        raise UserError(
            "this model was trained without labels (supervised=0), so its head is untrained: train it on labels with "
            "init=RUN_FOLDER, or ask for embeddings: python -m gt.predict RUN_FOLDER --embeddings FILE"
        )


def dropping(net: nn.Module) -> list[nn.Module]:
    """The modules that drop something in training: layers of dropout, and attention that drops weights."""

    def drops(module: nn.Module) -> bool:
        names = ("p",) if isinstance(module, nn.modules.dropout._DropoutNd) else ("dropout", "attention_dropout")
        return any(isinstance(p := getattr(module, name, None), float) and p > 0 for name in names)

    return list(filter(drops, net.modules()))


@contextmanager
def dropout_on(net: nn.Module) -> Iterator[None]:
    """Around a network in eval mode: its dropout is at work, and nothing else does what it does in training."""
    modules = dropping(net)
    for module in modules:
        module.training = True  # not train(): what is in it, such as a norm, is not meant
    try:
        yield
    finally:
        for module in modules:
            module.training = False


@contextmanager
def embedded(net: Any) -> Iterator[list[Tensor]]:
    """Around calls of a network: the list has the rows that the last layers of its head are given, in parts."""
    parts: list[Tensor] = []
    handle = net.head.mlp.register_forward_pre_hook(lambda module, arguments: parts.append(arguments[0]))
    try:
        yield parts
    finally:
        handle.remove()
