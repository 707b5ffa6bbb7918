"""What one dataset's batches hold: the columns a model must embed and the target it must predict."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["graph", "node"]
Kind = Literal["multiclass", "binary", "regression"]


@dataclass(frozen=True)
class Schema:
    """The contract between a dataset and a model; plain values, so that a checkpoint can carry it.

    Attributes:
        node_vocab: number of distinct values of each integer column of ``x`` (N, len(node_vocab)).
        node_floats: width of ``x`` where it holds real numbers; then ``node_vocab`` is empty.
        edge_vocab, edge_floats: the same for ``edge_attr`` (E, ...); both empty where edges carry nothing.
        level: what has a target: the whole graph, or each node (a token is a node of a path graph).
        kind: ``multiclass`` (one class of ``outputs``), ``binary`` (``outputs`` independent yes/no tasks, NaN where
            unlabelled) or ``regression`` (``outputs`` real numbers, NaN where unlabelled).
        outputs: number of classes, tasks or numbers.
        names: a name for each output, or none.
        max_nodes: the largest graph of the dataset, for tables with a row a position.
        tokenizer: how text became the numbers of ``x``, as `gt.data.tokenizer.Tokenizer.dumps` writes it, so that a
            checkpoint alone can read more of it; empty where nodes are not pieces of text.
    """

    node_vocab: tuple[int, ...] = ()
    node_floats: int = 0
    edge_vocab: tuple[int, ...] = ()
    edge_floats: int = 0
    level: Level = "graph"
    kind: Kind = "multiclass"
    outputs: int = 1
    names: tuple[str, ...] = ()
    max_nodes: int = 0
    tokenizer: str = ""

    def __post_init__(self) -> None:
        if self.names and len(self.names) != self.outputs:
            raise ValueError(f"{len(self.names)} names for {self.outputs} outputs")
        if self.node_vocab and self.node_floats:
            raise ValueError("nodes are described by integer columns or by real numbers, not by both")

    def to_dict(self) -> dict[str, Any]:
        """Plain containers (tuples become lists): JSON and ``torch.load(weights_only=True)`` take them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Schema":
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def chance_loss(self) -> float:
        """Loss in nats of a model that knows nothing: uniform over the classes."""
        return math.log(self.outputs) if self.kind == "multiclass" else math.log(2)
