"""The schema of a dataset: the columns that a model embeds and the target that it predicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["graph", "node", "link"]
Kind = Literal["multiclass", "binary", "regression"]
UNLABELLED = -100  # class of missing labels, ignored by losses and metrics


@dataclass(frozen=True)
class Schema:
    """The contract between a dataset and a model; holds plain values only, so that a checkpoint can store it.

    Attributes:
        node_vocab: number of distinct values of each integer column of ``x`` (N, len(node_vocab)).
        node_floats: number of columns of ``x`` if it holds real numbers; ``node_vocab`` is then empty.
        edge_vocab, edge_floats: the same for ``edge_attr`` (E, ...); both empty if edges have no features.
        node_mean, node_scale, edge_mean, edge_scale: for each column of real numbers, what the network first subtracts
            and then divides by; empty: it reads the numbers as they are.
        level: what has a target: the whole graph, each node (a token is a node of a path graph), or each of a batch's
            ``links``, pairs of nodes that may or may not be linked.
        kind: ``multiclass`` (one of ``outputs`` classes, `UNLABELLED` if missing), ``binary`` (``outputs`` independent
            yes/no tasks, NaN if missing) or ``regression`` (``outputs`` real numbers, NaN if missing).
        outputs: number of classes, tasks or numbers.
        positions: length of a ``multiclass`` target that is a sequence of classes, (rows, positions), predicted as
            (rows, positions * outputs).
        pointer: a ``multiclass`` target is one of the graph's own choices: ``extras["candidate"]`` (N,) is 1 + the
            index of the choice that a node stands for, 0 for none, and ``extras["query"]`` (N,) is 1 at the query node.
        weights: for ``multiclass``, the weight of each class in the loss; for ``binary``, that of a positive relative
            to a negative of each task; empty: all weigh the same.
        mean, scale: for ``regression``, the mean and scale that standardise each output for the network. Predictions,
            targets and metrics are in the data's units, the loss in units of ``scale``; empty: no standardisation.
        log: for ``regression``, the network's own numbers, and so mean, scale and loss, are natural logarithms of the
            targets, which are positive.
        squared: for ``regression``, the loss is the squared error and the criterion the root of its mean; otherwise
            both are the absolute error.
        names: a name for each output, or empty.
        target: the source's names of what is to be predicted, such as table columns, if known.
        max_nodes: nodes of the largest graph of the dataset, for tables with one row per position.
        tokenizer: how text was encoded as ``x``, as written by `gt.data.text.tokenizer.Tokenizer.dumps`, so that a
            checkpoint alone can encode more text; empty if nodes are not tokens.
        longest: number of nodes to which texts are truncated; 0: no limit.
        node_names, edge_names: the source's names of the columns of ``x`` and ``edge_attr``, in order.
        node_categories, edge_categories: for each of these columns, the values that its codes stand for, in order;
            empty for a column of real numbers. If there are real numbers too, categories are one-hot encoded.
        degree: ``x`` is just the in-degree; the last category also covers all larger degrees.
        undirected: each edge of the source was added in both directions.
        answers: for ``binary``, the source's values for no and yes of each output; empty: 0 and 1.

    The fields from ``tokenizer`` on, ``names`` and ``target`` record how a source was read, and new data are read
    accordingly, see `gt.data.datamodule.DataModule.open`; checkpoints of older versions may lack them.
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
            raise ValueError("node features are integer columns or real numbers, not both")
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
            raise ValueError("log needs kind='regression': only numbers have logarithms")
        if self.positions > 1 and self.kind != "multiclass":
            raise ValueError("only a multiclass target can have several positions")
        if self.pointer and (self.kind != "multiclass" or self.level != "graph" or self.positions > 1):
            raise ValueError("only a graph-level multiclass target with one position can be a choice among nodes")

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain containers (tuples to lists), as JSON and ``torch.load(weights_only=True)`` require."""
        return {name: _convert_nested(value, tuple, list) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Schema":
        return cls(**{name: _convert_nested(value, list, tuple) for name, value in values.items()})

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of ``x``; empty if ``node_names`` only names the source column of a text or molecule."""
        return () if self.tokenizer or len(self.node_names) < len(self.node_vocab) else self.node_names

    @property
    def is_language_model(self) -> bool:
        """Whether nodes are tokens and the target of each is the next token."""
        return bool(self.tokenizer) and self.level == "node" and self.node_vocab == (self.outputs,)

    def task(self) -> str:
        """Describe the prediction task: ``predicts for each node: label, one of 3 classes``."""
        name = f"{format_list(self.target, 6)}, " if self.target else ""
        return f"predicts for each {self.level}: {name}{self.answer()}"

    def answer(self) -> str:
        """Describe the type of a target: ``one of 3 classes``."""
        description = {
            "multiclass": "one of its own nodes" if self.pointer else f"one of {self.outputs:,} classes",
            "binary": pluralise(self.outputs, "yes/no answer"),
            "regression": pluralise(self.outputs, "real number"),
        }[self.kind]
        return f"{description}, at each of {self.positions} positions" if self.positions > 1 else description


def _convert_nested(value: Any, old_type: Any, new_type: Any) -> Any:
    """Replace one type of container by another at any depth."""
    return (
        new_type([_convert_nested(item, old_type, new_type) for item in value])
        if isinstance(value, old_type)
        else value
    )


def pluralise(count: int, noun: str) -> str:
    """Format a count with its noun: ``1 graph``, ``2,000 graphs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_number(value: float, like: float | None = None) -> str:
    """Format a score: four decimals, fewer for large numbers, scientific notation for small ones.

    Args:
        like: a number whose magnitude sets the format in place of ``value``.
    """
    magnitude = abs(value if like is None else like)
    if 0 < magnitude < 1e-3:
        return f"{value:.2e}"
    decimals = 4 - int(math.log10(magnitude)) if 10 <= magnitude < math.inf else 4
    return f"{value:.{max(decimals, 0)}f}"


def format_list(names: Sequence[str], limit: int) -> str:
    """Format a list of names, truncated to ``limit``."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit:,} more" if len(names) > limit else "")
