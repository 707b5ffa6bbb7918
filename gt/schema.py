"""What one dataset's batches hold: the columns a model must embed and the target it must predict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["graph", "node", "link"]
Kind = Literal["multiclass", "binary", "regression"]
UNLABELLED = -100  # the class of what has none: losses and metrics pass it over


@dataclass(frozen=True)
class Schema:
    """The contract between a dataset and a model; plain values, so that a checkpoint can carry it.

    Attributes:
        node_vocab: number of distinct values of each integer column of ``x`` (N, len(node_vocab)).
        node_floats: width of ``x`` where it holds real numbers; then ``node_vocab`` is empty.
        edge_vocab, edge_floats: the same for ``edge_attr`` (E, ...); both empty where edges carry nothing.
        node_mean, node_scale, edge_mean, edge_scale: for each column of real numbers what the network takes off and
            divides by before anything else; none: it reads the numbers as they are.
        level: what has a target: the whole graph, each node (a token is a node of a path graph), or each of a batch's
            ``links``, two nodes that may be joined or not.
        kind: ``multiclass`` (one class of ``outputs``, `UNLABELLED` where there is none), ``binary`` (``outputs``
            independent yes/no tasks, NaN where unlabelled) or ``regression`` (``outputs`` real numbers, NaN likewise).
        outputs: number of classes, tasks or numbers.
        positions: a target of ``multiclass`` is a sequence of so many classes: (rows, positions), predicted as
            (rows, positions * outputs).
        pointer: a target of ``multiclass`` is one of the choices that each graph has itself: ``extras["candidate"]``
            (N,) says of each node 1 + the number of the choice that it stands for, 0 for none, and
            ``extras["query"]`` (N,) is 1 at the node that asks.
        weights: of ``multiclass``, what each class weighs in the loss; of ``binary``, what a yes of each task weighs
            against a no; none: all weigh the same.
        mean, scale: of ``regression``, for each output what the network's own 0 and 1 stand for: predictions, targets
            and metrics are in the data's unit, the loss in that of ``scale``; none: 0 and 1.
        log: of ``regression``, the network's own numbers, and so mean, scale and loss, are of natural logarithms of
            targets, which are above 0.
        squared: of ``regression``, the loss is the squared error and the root of its mean decides; else the absolute.
        names: a name for each output, or none.
        target: what the source calls what is to be predicted, such as the columns of a table, where that is known.
        max_nodes: the largest graph of the dataset, for tables with a row a position.
        tokenizer: how text became the numbers of ``x``, as `gt.data.text.tokenizer.Tokenizer.dumps` writes it, so that
            a checkpoint alone can read more of it; empty where nodes are not pieces of text.
        longest: nodes of a text, what comes after them is cut off; 0: it is whole.
        node_names, edge_names: what the source calls the columns that became ``x`` and ``edge_attr``, in their order.
        node_categories, edge_categories: for each of these the values behind its numbers, in the order of the numbers;
            none for a column of real numbers. Where there are real numbers too, each value has a channel (1 or 0).
        degree: ``x`` is the in-degree alone, the last category also all that are larger.
        undirected: each edge of the source was read in both directions.
        answers: of ``binary``, for each output what the source calls no and yes; none: 0 and 1.

    The last of these, from ``tokenizer`` on, and ``names`` and ``target``, say how a source was read. Other data are
    read by them, see `gt.data.datamodule.DataModule.open`; a checkpoint of an older version may lack them.
    """

    node_vocab: tuple[int, ...] = ()
    node_floats: int = 0
    edge_vocab: tuple[int, ...] = ()
    edge_floats: int = 0
    node_mean: tuple[float, ...] = ()
    node_scale: tuple[float, ...] = ()
    edge_mean: tuple[float, ...] = ()
    edge_scale: tuple[float, ...] = ()
    level: Level = "graph"
    kind: Kind = "multiclass"
    outputs: int = 1
    positions: int = 1
    pointer: bool = False
    weights: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    log: bool = False
    squared: bool = False
    names: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    max_nodes: int = 0
    tokenizer: str = ""
    longest: int = 0
    node_names: tuple[str, ...] = ()
    node_categories: tuple[tuple[str | int, ...], ...] = ()
    edge_names: tuple[str, ...] = ()
    edge_categories: tuple[tuple[str | int, ...], ...] = ()
    degree: bool = False
    undirected: bool = False
    answers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.names and len(self.names) != self.outputs:
            raise ValueError(f"{len(self.names)} names for {self.outputs} outputs")
        if self.node_vocab and self.node_floats:
            raise ValueError("nodes are described by integer columns or by real numbers, not by both")
        for name in ("weights", "mean", "scale"):
            if getattr(self, name) and len(getattr(self, name)) != self.outputs:
                raise ValueError(f"{len(getattr(self, name))} numbers in {name} for {self.outputs} outputs")
        units = [(self.mean, self.scale), (self.node_mean, self.node_scale), (self.edge_mean, self.edge_scale)]
        if any(len(mean) != len(scale) or not all(value > 0 for value in scale) for mean, scale in units):
            raise ValueError("each mean needs a scale above 0")
        for mean, floats in ((self.node_mean, self.node_floats), (self.edge_mean, self.edge_floats)):
            if mean and len(mean) != floats:
                raise ValueError(f"{len(mean)} means for {floats} columns of real numbers")
        if self.log and self.kind != "regression":
            raise ValueError("only numbers have logarithms")
        if self.positions > 1 and self.kind != "multiclass":
            raise ValueError("only a target of classes has several positions")
        if self.pointer and (self.kind != "multiclass" or self.level != "graph" or self.positions > 1):
            raise ValueError("only a graph's one target of classes is a choice among its own nodes")

    def to_dict(self) -> dict[str, Any]:
        """Plain containers (tuples become lists): JSON and ``torch.load(weights_only=True)`` take them."""
        return {name: _nested(value, tuple, list) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Schema":
        return cls(**{name: _nested(value, list, tuple) for name, value in values.items()})

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of ``x``; none where ``node_names`` only says where a text or a molecule stands."""
        return () if self.tokenizer or len(self.node_names) < len(self.node_vocab) else self.node_names

    @property
    def is_language_model(self) -> bool:
        """Whether what is predicted for each node, a token, is the token that follows it."""
        return bool(self.tokenizer) and self.level == "node" and self.node_vocab == (self.outputs,)

    def task(self) -> str:
        """What is to be predicted, for a reader: ``to predict for each node: label, one of 3 classes``."""
        name = f"{several(self.target, 6)}, " if self.target else ""
        return f"to predict for each {self.level}: {name}{self.answer()}"

    def answer(self) -> str:
        """What a target is, for a reader: ``one of 3 classes``."""
        what = {
            "multiclass": "one of its own nodes" if self.pointer else f"one of {self.outputs:,} classes",
            "binary": many(self.outputs, "yes/no answer"),
            "regression": many(self.outputs, "real number"),
        }[self.kind]
        return f"{what}, at each of {self.positions} positions" if self.positions > 1 else what


def _nested(value: Any, old: Any, new: Any) -> Any:
    """A value in which one kind of container is another, at any depth."""
    return new([_nested(item, old, new) for item in value]) if isinstance(value, old) else value


def many(count: int, what: str) -> str:
    """So many of something: ``1 graph``, ``2,000 graphs``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def number(value: float, like: float | None = None) -> str:
    """A score for a reader: four places, fewer of what is large, and a power of ten for what is small.

    Args:
        like: the number whose size says how many, where it is another.
    """
    size = abs(value if like is None else like)
    if 0 < size < 1e-3:
        return f"{value:.2e}"
    places = 4 - int(math.log10(size)) if 10 <= size < math.inf else 4
    return f"{value:.{max(places, 0)}f}"


def several(names: Sequence[str], most: int) -> str:
    """A list of names for a reader, cut where it is long."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
