"""What flows through a network, what a layer is, and how layers are put together."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from gt.attention import Demand
from gt.dropout import Dropout
from gt.encodings import Encoding
from gt.graph import GraphBatch
from gt.layers.steps import STREAMS, check_steps
from gt.masks import Pairs
from gt.norms import normalised


@dataclass(frozen=True)
class State:
    """What flows from layer to layer, d channels wide; a stream that no layer has made is None.

    Attributes:
        x: (N, d) nodes.
        e: (E, d) edges of the input graph.
        p: (P, d) pairs of the mask, in the order of ``pairs.edges``.
        g: (B, d) graphs.
        encodings: those of the network that turn queries and keys.
    """

    x: Tensor
    e: Tensor | None = None
    p: Tensor | None = None
    g: Tensor | None = None
    encodings: Sequence[Encoding] = ()

    def plus(self, steps: Mapping[str, Tensor]) -> "State":
        """With what a layer adds to each stream; a stream that is None starts at zero."""
        old = vars(self)
        new: dict[str, Any] = {k: step if old[k] is None else old[k] + step for k, step in steps.items()}
        return replace(self, **new)


class Layer(nn.Module):
    """``forward(state, batch, pairs)`` gives what the layer adds to each stream that it changes, by name.

    A subclass that overrides ``forward`` says ``reads`` and ``writes`` anew; what it does not say holds as below.

    Attributes:
        reads: ``"self"``: a node looks at itself alone; ``"edges"``: at the sources of its edges too; ``"pairs"``: at
            those that its mask allows; ``"graph"``: at any node, which is what a layer does that says nothing.
        writes: the streams that it changes.
        reads_edges: whether it makes use of ``state.e``; where no layer does, a model need not embed edges.
        reads_pairs: whether it makes use of ``state.p``, where it reads pairs or the graph.
        reads_mask: whether it makes use of ``pairs``, where it reads the graph.
        cost: of one that reads the graph, how its time grows with N nodes and E edges, such as ``"N"``.
        positions: whether it goes by the place of a node within its graph.
        residual: whether it brings its own normalisation and dropout; a block then drops none of what it adds.
        carried: a list where it reads nodes in their order and is to go on with a growing text, see
            `gt.inference.decode`: what the tokens so far have left it with, which it reads and replaces.
        wants_degrees: whether ``set_degrees(degrees)`` is to tell it, before training, how many nodes of the training
            data have in-degree 0, 1, 2, ...: (D,) int64.
    """

    reads = "graph"
    writes: tuple[str, ...] = ("x",)
    reads_edges = True
    reads_pairs = True
    reads_mask = True
    positions = False
    residual = False
    wants_degrees = False

    def demand(self, device: str, half: bool) -> Demand | None:
        """What a layer that reads pairs asks of attention as things stand, on a device, perhaps in 16 bits.

        The loader makes batches ready for it on the CPU; None: ``pairs.edges`` is all that the layer takes.
        """
        return None

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        raise NotImplementedError


Part = nn.Module | Callable[[int], nn.Module]  # a part, or what makes one from the width


def built(part: Part, width: int) -> Any:
    """A part, made where it is not there yet."""
    return part if isinstance(part, nn.Module) else part(width)


class Composite(nn.Module, ABC):
    """Takes a `State` to the next by the layers that it is made of, which all look at what other nodes were before it.

    Where one looks at what another has left, they are the steps of a `Chain`.
    """

    @property
    @abstractmethod
    def members(self) -> list[nn.Module]:
        """The layers, composites and blends that it is made of."""

    @property
    def norms(self) -> list[nn.Module]:
        """The norms of its own."""
        return []


class Residual(Composite):
    """A layer with its skip connection: ``norm(x + layer(x))``, or ``x + layer(norm(x))`` with ``prenorm``.

    Args:
        width: channels of every stream.
        layer: a `Layer`.
        norm: of (rows, d), for the nodes, or for each stream that is to be normalised: ``{"x": ..., "e": ...}``.
        prenorm: normalise what the layer reads (GPT-2) instead of what it leaves (Vaswani et al. 2017, GPS).
        dropout: on what the layer adds, unless it brings its own.
        scale: of what the layer adds to the nodes, such as a `gt.layers.depth.LayerScale`; None leaves it as it is.

    Attributes:
        blend, place: the nodes' step is scaled by the factor at this place of what the blend gives, where there is one.

    Raises:
        ValueError: a norm for what is no stream; a convolution of PyG's for a layer.
    """

    def __init__(
        self,
        width: int,
        layer: Part,
        norm: Part | Mapping[str, Part],
        prenorm: bool = False,
        dropout: float | nn.Module = 0.0,
        scale: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.layer, self.scale = built(layer, width), scale
        if type(self.layer).__module__.startswith("torch_geometric."):
            name = type(self.layer).__name__
            raise ValueError(
                f"{name} is PyG's: model/local=pyg model.block.local.conv._target_=... makes a layer of it"
            )
        norms = norm if isinstance(norm, Mapping) else {"x": norm}
        if unknown := [name for name in norms if name not in STREAMS]:
            raise ValueError(f"norm: there is no stream {', '.join(unknown)}: there are {', '.join(STREAMS)}")
        self.norm = nn.ModuleDict({name: built(each, width) for name, each in norms.items()})
        self.prenorm = prenorm
        self.blend: nn.Module | None = None
        self.place = 0
        drop = dropout if isinstance(dropout, nn.Module) else Dropout(dropout)
        self.dropout = None if getattr(self.layer, "residual", False) else drop

    @property
    def members(self) -> list[nn.Module]:
        return [self.layer] if self.blend is None else [self.layer, self.blend]

    @property
    def norms(self) -> list[nn.Module]:
        return list(self.norm.values())

    def step(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        """What is to be added to each stream."""
        steps = self.layer(self.normalised(state, batch, pairs) if self.prenorm else state, batch, pairs)
        check_steps(self.layer, steps, state)
        if self.dropout is not None:
            steps = {name: self.dropout(step) for name, step in steps.items()}
        return steps if self.scale is None else steps | {"x": self.scale(steps["x"])}

    def normalised(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        """The state with each stream normalised that is there and has a norm."""
        old = {name: (norm, getattr(state, name)) for name, norm in self.norm.items()}
        new: dict[str, Any] = {}
        for name, (norm, rows) in old.items():
            if rows is not None:
                new[name] = normalised(norm, rows, batch, name, pairs.edges[1] if name == "p" else None)
        return replace(state, **new)

    def settle(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        """What is left of a state to which the steps were added."""
        return state if self.prenorm else self.normalised(state, batch, pairs)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        steps = self.step(state, batch, pairs)
        if self.blend is not None:
            steps = steps | {"x": self.blend(state, batch)[self.place] * steps["x"]}
        return self.settle(state.plus(steps), batch, pairs)


class Parallel(Composite):
    """Branches that read the same state: their nodes are blended (GPS, Rampasek et al. 2022), other streams add up.

    Args:
        width: channels of every stream.
        branches: each a `Residual`, all with the same ``prenorm``: the blend is of what they add to x then, else of
            what they leave.
        blend: ``blend(state, batch)`` gives a factor for each branch, in order: a number, (N, 1) or (N, d).

    Raises:
        ValueError: a branch is no `Residual`, or they differ in ``prenorm``; when run, not a factor for each.
    """

    def __init__(self, width: int, branches: Mapping[str, Part], blend: nn.Module | Callable[[], nn.Module]) -> None:
        super().__init__()
        self.branches: Any = nn.ModuleDict({name: built(branch, width) for name, branch in branches.items()})
        self.blend = blend if isinstance(blend, nn.Module) else blend()
        for name, branch in self.branches.items():
            if not isinstance(branch, Residual):
                raise ValueError(f"branches: {name} is a {type(branch).__name__}: put it into a gt.layers.Residual")
        kinds = {branch.prenorm for branch in self.branches.values()}
        if len(kinds) != 1:
            raise ValueError("branches: there are none" if not kinds else "branches: give each the same prenorm")
        (self.prenorm,) = kinds

    @property
    def members(self) -> list[nn.Module]:
        return [*self.branches.values(), self.blend]

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        out, nodes, factors = state, [], self.blend(state, batch)
        if len(factors) != len(self.branches):
            raise ValueError(
                f"{type(self.blend).__name__} gives {len(factors)} factors for {len(self.branches)} branches"
            )
        for branch, factor in zip(self.branches.values(), factors, strict=True):
            steps = branch.step(state, batch, pairs)
            out = branch.settle(replace(out, x=state.x).plus(steps), batch, pairs)
            node = steps["x"] if self.prenorm else out.x
            nodes.append(node if isinstance(factor, float) and factor == 1 else factor * node)  # a plain sum, as in GPS
        total = sum(nodes[1:], nodes[0])
        return replace(out, x=state.x + total if self.prenorm else total)


class Chain(Composite):
    """One after another, each from a `State` to the next.

    Args:
        width: channels of every stream.
        steps: each a `Composite`, such as a `Residual`.
    """

    def __init__(self, width: int, steps: Mapping[str, Part]) -> None:
        super().__init__()
        self.steps: Any = nn.ModuleDict({name: built(step, width) for name, step in steps.items()}) if steps else {}

    @property
    def members(self) -> list[nn.Module]:
        return list(self.steps.values())

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        for step in self.steps.values():
            state = step(state, batch, pairs)
        return state
