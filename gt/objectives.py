"""Losses that need no labels: something of a batch is hidden, or disturbed, and the network is asked for it.

atoms  C C O C        the network reads  C ? O C        and is asked what stands at ?
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.encodings import EdgePath
from gt.encodings.edges import EdgeFeatures
from gt.errors import UserError
from gt.features import Features
from gt.graph import GraphBatch
from gt.linear import Linear
from gt.masks.random import hashed
from gt.ranges import positive
from gt.schema import Schema
from gt.units import Units

BITS = 32  # of a draw that are looked at, the uppermost of 63


@dataclass(frozen=True)
class Question:
    """What a network is asked for: values (rows, columns), at those rows (rows,) bool that are marked."""

    values: Tensor
    asked: Tensor


class Objective(nn.Module, ABC):
    """A loss of what a batch itself holds. `build` is called once, before anything else.

    Args:
        weight: by which it counts beside other losses.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        positive(weight, "weight")
        self.weight = weight

    @abstractmethod
    def build(self, net: Any, schema: Schema) -> None:
        """Make the parameters, for a `gt.model.GraphTransformer` on data of a schema.

        Raises:
            UserError: the data, or the network, have nothing that could be asked for.
        """

    @abstractmethod
    def disturb(self, batch: GraphBatch, draw: int) -> tuple[GraphBatch, Question]:
        """The batch that is read instead, and what is asked of it; the same for the same draw, on any device."""

    def reading(self, question: Question) -> AbstractContextManager[None]:
        """Around the network's pass over the disturbed batch."""
        return nullcontext()

    @abstractmethod
    def losses(self, x: Tensor, batch: GraphBatch, question: Question) -> Tensor:
        """(rows,) the loss at each row of the question, asked or not, by the states (N, width) that a head reads."""


class Masked(Objective):
    """Attributes are hidden: the network reads a learned vector in the place of their embedding (Hu et al. 2020).

    The loss is the cross-entropy of each column of categories, or the squared error of each real number in units of the
    data's scale, averaged over columns.

    Args:
        share: chance of each to be hidden.
    """

    def __init__(self, share: float = 0.15, weight: float = 1.0) -> None:
        super().__init__(weight)
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        self.share = share

    def hide(self, features: Sequence[Features], schema: Schema, kind: str, width: int) -> None:
        """Make the vectors that stand for what is hidden, and a linear map from states to each column of a kind."""
        vocab, floats = getattr(schema, f"{kind}_vocab"), getattr(schema, f"{kind}_floats")
        if not (vocab or floats):
            raise UserError(f"{type(self).__name__}: the data describe no {kind}, so that nothing could be hidden")
        self.features = tuple(features)  # which registers nothing: they are the network's
        self.hidden = nn.ParameterList(torch.zeros(part.width) for part in features)
        self.vocab = tuple(vocab)
        self.units = Units(getattr(schema, f"{kind}_mean"), getattr(schema, f"{kind}_scale"))
        self.columns = Linear(width, sum(vocab) or floats)

    def drawn(self, draw: int, parts: Sequence[Tensor], real: Tensor | None) -> Tensor:
        """(rows,) bool: which are hidden, of those that are no padding; rows with equal parts are so together."""
        hidden = hashed(draw, parts) >> (63 - BITS) < round(self.share * 2**BITS)
        return hidden if real is None else hidden & real

    @contextmanager
    def reading(self, question: Question) -> Iterator[None]:
        asked = question.asked[:, None]
        hooks = [
            part.register_forward_hook(
                lambda module, values, embedded, vector=vector: torch.where(asked, vector.to(embedded.dtype), embedded)
            )
            for part, vector in zip(self.features, self.hidden, strict=True)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def of_columns(self, states: Tensor, values: Tensor) -> Tensor:
        """(rows,) the loss of each row, by its state (rows, width), averaged over columns."""
        said = self.columns(states)
        said = said.to(torch.promote_types(said.dtype, torch.float32))
        if not self.vocab:
            return (said - self.units.shrink(values)).square().mean(1)
        parts = zip(said.split(self.vocab, dim=1), values.unbind(1), strict=True)
        return torch.stack([F.cross_entropy(*part, reduction="none") for part in parts]).mean(0)


class MaskedNodes(Masked):
    """`Masked` for nodes, all of whose columns are hidden together; each is predicted from the node's state."""

    def build(self, net: Any, schema: Schema) -> None:
        self.hide([net.nodes], schema, "node", net.width)

    def disturb(self, batch: GraphBatch, draw: int) -> tuple[GraphBatch, Question]:
        assert batch.x is not None
        hidden = self.drawn(draw, [torch.arange(batch.num_nodes, device=batch.device)], batch.node_mask)
        return disturbed(batch, x=batch.x.masked_fill(hidden[:, None], 0)), Question(batch.x, hidden)

    def losses(self, x: Tensor, batch: GraphBatch, question: Question) -> Tensor:
        return self.of_columns(x, question.values)


class MaskedEdges(Masked):
    """`Masked` for edges: all between the same two nodes are hidden together, for one would tell the other.

    Each is predicted from the sum of the states of its two nodes.
    """

    def build(self, net: Any, schema: Schema) -> None:
        of_pairs = [part.features for part in net.modules() if isinstance(part, EdgeFeatures) and not part.bare]
        features = of_pairs if net.edges is None else [net.edges, *of_pairs]
        if not features and (schema.edge_vocab or schema.edge_floats):
            raise UserError("MaskedEdges: no layer of this model reads what edges carry: choose one that does")
        if any(isinstance(encoding, EdgePath) for encoding in net.encodings):
            raise UserError(
                "MaskedEdges: which of several shortest paths EdgePath takes would tell what is hidden: leave "
                "edge_path_bias out of encoding"
            )
        self.hide(features, schema, "edge", net.width)

    def disturb(self, batch: GraphBatch, draw: int) -> tuple[GraphBatch, Question]:
        assert batch.edge_attr is not None
        source, target = batch.edge_index
        ends = [torch.minimum(source, target), torch.maximum(source, target)]
        hidden = self.drawn(draw, ends, batch.edge_mask)
        read = disturbed(batch, edge_attr=batch.edge_attr.masked_fill(hidden[:, None], 0))
        return read, Question(batch.edge_attr, hidden)

    def losses(self, x: Tensor, batch: GraphBatch, question: Question) -> Tensor:
        source, target = batch.edge_index
        return self.of_columns(x.index_select(0, source) + x.index_select(0, target), question.values)


class Denoising(Objective):
    """Noise is added to real columns of every node, such as its coordinates, and is predicted (Godwin et al. 2022).

    The loss is the squared error of the normal noise in units of its own deviation, averaged over columns: 1 for a
    network that says nothing.

    Args:
        deviation: of the noise, in units of the scale of each column where data have one (``standardise``).
        columns: which, from 0 on; None: all.
    """

    columns: Tensor

    def __init__(self, deviation: float = 0.1, columns: Sequence[int] | None = None, weight: float = 1.0) -> None:
        super().__init__(weight)
        positive(deviation, "deviation")
        self.deviation, self.chosen = deviation, columns

    def build(self, net: Any, schema: Schema) -> None:
        if not schema.node_floats:
            raise UserError("Denoising: nodes are described by no real numbers: choose objective=[mask_nodes]")
        columns = list(range(schema.node_floats)) if self.chosen is None else list(self.chosen)
        if not columns or not set(columns) <= set(range(schema.node_floats)):
            raise UserError(f"Denoising: columns={columns} must be some of 0 to {schema.node_floats - 1}")
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.units = Units(schema.node_mean, schema.node_scale)
        self.noise = Linear(net.width, len(columns))

    def disturb(self, batch: GraphBatch, draw: int) -> tuple[GraphBatch, Question]:
        assert batch.x is not None
        generator = torch.Generator(device=batch.device).manual_seed(draw)
        shape = (batch.num_nodes, self.columns.numel())
        noise = torch.randn(shape, generator=generator, device=batch.device, dtype=batch.x.dtype)
        moments = self.units.moments
        scale = moments[1].index_select(0, self.columns) if moments.numel() else noise.new_ones(())
        x = batch.x.index_add(1, self.columns, self.deviation * scale.to(noise.dtype) * noise)
        every = torch.ones(batch.num_nodes, dtype=torch.bool, device=batch.device)
        return disturbed(batch, x=x), Question(noise, every if batch.node_mask is None else batch.node_mask)

    def losses(self, x: Tensor, batch: GraphBatch, question: Question) -> Tensor:
        said = self.noise(x)
        return (said.to(torch.promote_types(said.dtype, torch.float32)) - question.values).square().mean(1)


def disturbed(batch: GraphBatch, **columns: Tensor) -> GraphBatch:
    """The batch with other columns; what was worked out of it beforehand refers to these, and not to the old ones."""
    out = copy(batch)
    for name, values in columns.items():
        setattr(out, name, values)
    return out.apply(lambda tensor: tensor)


def asked(
    net: Any, batch: GraphBatch, objectives: Iterable[Objective], draw: int
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Run a network once on a batch that each objective, in turn, has disturbed.

    Args:
        net: a `gt.model.GraphTransformer`.
        draw: what is hidden, and the noise, are drawn from; of 63 bits.

    Returns:
        The prediction, and for each objective the sum of the losses of what is asked for and how many these are.
    """
    objectives, questions, states = list(objectives), [], []
    with ExitStack() as stack:
        for objective in objectives:
            batch, question = objective.disturb(batch, draw)
            stack.enter_context(objective.reading(question))
            questions.append(question)
        hook = net.head.register_forward_pre_hook(lambda module, arguments: states.append(arguments[0]))
        stack.callback(hook.remove)
        prediction = net(batch)
    x = sum(states[1:], states[0]) / len(states)  # in evaluation a random mask may be drawn several times
    sums = []
    for objective, question in zip(objectives, questions, strict=True):
        counts = question.asked.to(torch.float32)
        sums.append(((objective.losses(x, batch, question) * counts).sum(), counts.sum()))
    return prediction, sums
