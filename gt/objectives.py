"""Self-supervised objectives: part of a batch is masked or perturbed, and the network predicts it.

atoms  C C O C        the network reads  C ? O C        and predicts what ? stands for
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

BITS = 32  # of a 63-bit hash that are used, the highest ones


@dataclass(frozen=True)
class Question:
    """What a network has to predict: values (rows, columns), at the rows marked by ``asked`` (rows,) bool."""

    values: Tensor
    asked: Tensor


class Objective(nn.Module, ABC):
    """A self-supervised loss. `build` is called once, before anything else.

    Args:
        weight: weight relative to other losses.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        positive(weight, "weight")
        self.weight = weight

    @abstractmethod
    def build(self, net: Any, schema: Schema) -> None:
        """Create the parameters, for a `gt.model.GraphTransformer` and the schema of its data.

        Raises:
            UserError: the data or the network have nothing to predict.
        """

    @abstractmethod
    def disturb(self, batch: GraphBatch, draw: int) -> tuple[GraphBatch, Question]:
        """The perturbed batch and what to predict of it; deterministic given ``draw``, on any device."""

    def reading(self, question: Question) -> AbstractContextManager[None]:
        """Context manager around the forward pass on the perturbed batch."""
        return nullcontext()

    @abstractmethod
    def losses(self, x: Tensor, batch: GraphBatch, question: Question) -> Tensor:
        """(rows,) the loss of every row, asked or not, given the states (N, width) that the head reads."""


class Masked(Objective):
    """Attribute masking: the network reads a learned vector in place of masked embeddings (Hu et al. 2020).

    The loss is the cross-entropy of each categorical column, or the squared error of each real number in units of the
    data's scale, averaged over columns.

    Args:
        share: probability of masking a row.
    """

    def __init__(self, share: float = 0.15, weight: float = 1.0) -> None:
        super().__init__(weight)
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        self.share = share

    def build_masking(self, features: Sequence[Features], schema: Schema, kind: str, width: int) -> None:
        """Create the mask vectors, and a linear map from states to every column of ``kind``, node or edge."""
        vocab, floats = getattr(schema, f"{kind}_vocab"), getattr(schema, f"{kind}_floats")
        if not (vocab or floats):
            raise UserError(f"{type(self).__name__}: the data have no {kind} features to mask")
        self.features = tuple(features)  # a tuple does not register them: they belong to the network
        self.hidden = nn.ParameterList(torch.zeros(part.width) for part in features)
        self.vocab = tuple(vocab)
        self.units = Units(getattr(schema, f"{kind}_mean"), getattr(schema, f"{kind}_scale"))
        self.columns = Linear(width, sum(vocab) or floats)

    def sample_mask(self, draw: int, parts: Sequence[Tensor], real: Tensor | None) -> Tensor:
        """(rows,) bool, which rows to mask, never padding; rows with equal ``parts`` are masked together."""
        masked = hashed(draw, parts) >> (63 - BITS) < round(self.share * 2**BITS)
        return masked if real is None else masked & real

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

    def column_losses(self, states: Tensor, values: Tensor) -> Tensor:
        """(rows,) the loss of each row given its state (rows, width), averaged over columns."""
        prediction = self.columns(states)
        prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        if not self.vocab:
            return (prediction - self.units.shrink(values)).square().mean(1)
        parts = zip(prediction.split(self.vocab, dim=1), values.unbind(1), strict=True)
        return torch.stack([F.cross_entropy(*part, reduction="none") for part in parts]).mean(0)


class MaskedNodes(Masked):
    """`Masked` for nodes: all columns are masked together, and predicted from the node's state."""

    def build(self, net: Any, schema: Schema) -> None:
        self.build_masking([net.nodes], schema, "node", net.width)

    def disturb(self, batch: GraphBatch, draw: int) -> tuple[GraphBatch, Question]:
        assert batch.x is not None
        masked = self.sample_mask(draw, [torch.arange(batch.num_nodes, device=batch.device)], batch.node_mask)
        return with_columns(batch, x=batch.x.masked_fill(masked[:, None], 0)), Question(batch.x, masked)

    def losses(self, x: Tensor, batch: GraphBatch, question: Question) -> Tensor:
        return self.column_losses(x, question.values)


class MaskedEdges(Masked):
    """`Masked` for edges: all edges between the same two nodes are masked together, as one would reveal the other.

    Each is predicted from the sum of the states of its two nodes.
    """

    def build(self, net: Any, schema: Schema) -> None:
        pair_features = [part.features for part in net.modules() if isinstance(part, EdgeFeatures) and not part.bare]
        features = pair_features if net.edges is None else [net.edges, *pair_features]
        if not features and (schema.edge_vocab or schema.edge_floats):
            raise UserError("MaskedEdges: no layer of this model reads edge features: choose one that does")
        if any(isinstance(encoding, EdgePath) for encoding in net.encodings):
            raise UserError(
                "MaskedEdges: EdgePath would reveal masked edges by its choice among shortest paths: leave "
                "edge_path_bias out of encoding"
            )
        self.build_masking(features, schema, "edge", net.width)

    def disturb(self, batch: GraphBatch, draw: int) -> tuple[GraphBatch, Question]:
        assert batch.edge_attr is not None
        source, target = batch.edge_index
        ends = [torch.minimum(source, target), torch.maximum(source, target)]
        masked = self.sample_mask(draw, ends, batch.edge_mask)
        perturbed_batch = with_columns(batch, edge_attr=batch.edge_attr.masked_fill(masked[:, None], 0))
        return perturbed_batch, Question(batch.edge_attr, masked)

    def losses(self, x: Tensor, batch: GraphBatch, question: Question) -> Tensor:
        source, target = batch.edge_index
        return self.column_losses(x.index_select(0, source) + x.index_select(0, target), question.values)


class Denoising(Objective):
    """Adds noise to real columns of every node, such as coordinates, and predicts it (Godwin et al. 2022).

    The loss is the squared error of the normal noise in units of its standard deviation, averaged over columns: 1 for a
    network that predicts 0.

    Args:
        deviation: standard deviation of the noise, in units of each column's scale if the data have one
            (``standardise``).
        columns: indices of the columns, from 0; None: all.
    """

    columns: Tensor

    def __init__(self, deviation: float = 0.1, columns: Sequence[int] | None = None, weight: float = 1.0) -> None:
        super().__init__(weight)
        positive(deviation, "deviation")
        self.deviation, self.chosen = deviation, columns

    def build(self, net: Any, schema: Schema) -> None:
        if not schema.node_floats:
            raise UserError("Denoising: nodes have no real-valued features: choose objective=[mask_nodes]")
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
        all_nodes = torch.ones(batch.num_nodes, dtype=torch.bool, device=batch.device)
        return with_columns(batch, x=x), Question(noise, all_nodes if batch.node_mask is None else batch.node_mask)

    def losses(self, x: Tensor, batch: GraphBatch, question: Question) -> Tensor:
        prediction = self.noise(x)
        return (prediction.to(torch.promote_types(prediction.dtype, torch.float32)) - question.values).square().mean(1)


def with_columns(batch: GraphBatch, **columns: Tensor) -> GraphBatch:
    """A copy of the batch with other columns; objects in its memo refer to the copy."""
    out = copy(batch)
    for name, values in columns.items():
        setattr(out, name, values)
    return out.apply(lambda tensor: tensor)


def run_objectives(
    net: Any, batch: GraphBatch, objectives: Iterable[Objective], draw: int
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Run a network once on a batch that every objective in turn has perturbed.

    Args:
        net: a `gt.model.GraphTransformer`.
        draw: 63-bit seed of masks and noise.

    Returns:
        The prediction and, for each objective, the sum of its losses at the asked rows and their number.
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
    x = sum(states[1:], states[0]) / len(states)  # in evaluation random masks may be drawn several times
    sums = []
    for objective, question in zip(objectives, questions, strict=True):
        counts = question.asked.to(torch.float32)
        sums.append(((objective.losses(x, batch, question) * counts).sum(), counts.sum()))
    return prediction, sums
