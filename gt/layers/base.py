"""The state that flows through a network, the interface of a layer, and how layers are composed."""

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
from gt.norms import apply_norm


@dataclass(frozen=True)
class State:
    """The streams that flow from layer to layer, d channels wide; None until a layer writes one.

    Attributes:
        x: (N, d) nodes.
        e: (E, d) edges of the input graph.
        p: (P, d) pairs of the mask, in the order of ``pairs.edges``.
        g: (B, d) graphs.
        encodings: those of the network that rotate queries and keys.
    """

    x: Tensor
    e: Tensor | None = None
    p: Tensor | None = None
    g: Tensor | None = None
    encodings: Sequence[Encoding] = ()

    def plus(self, steps: Mapping[str, Tensor]) -> "State":
        """The state with a layer's updates added; a stream that is None starts at zero."""
        old = vars(self)
        new: dict[str, Any] = {k: step if old[k] is None else old[k] + step for k, step in steps.items()}
        return replace(self, **new)


class Layer(nn.Module):
    """``forward(state, batch, pairs)`` returns what the layer adds to each stream that it changes, by stream name.

    A subclass that overrides ``forward`` must declare ``reads`` and ``writes`` again; undeclared attributes take the
    defaults below.

    Attributes:
        reads: how far a node looks: ``"self"``: only at itself; ``"edges"``: also at the sources of its edges;
            ``"pairs"``: at the nodes that its mask allows; ``"graph"``: at any node (the default).
        writes: the streams that it changes.
        reads_edges: whether it uses ``state.e``; if no layer does, a model need not embed edges.
        reads_pairs: whether it uses ``state.p``, for layers that read pairs or the graph.
        reads_mask: whether it uses ``pairs``, for layers that read the graph.
        cost: for layers that read the graph, how the running time grows with N nodes and E edges, such as ``"N"``.
        positions: whether it depends on the position of a node within its graph.
        residual: whether it applies its own normalisation and dropout; a block then adds no dropout.
        carried: the recurrent state of a layer over ordered nodes while a text grows, see `gt.inference.decode`: a
            list that the layer reads and overwrites.
        wants_degrees: whether ``set_degrees(degrees)`` must be called before training with the in-degree histogram of
            the training data: (D,) int64, the number of nodes with in-degree 0, 1, 2, ...
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
        """What the layer requires of an attention backend in its current mode, on a device, in 16 bits if ``half``.

        The loader prepares batches for it on the CPU; None: the layer needs ``pairs.edges`` only.
        """
        return None

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        raise NotImplementedError


Part = nn.Module | Callable[[int], nn.Module]  # a module, or a factory that builds one from the width


def as_module(part: Part, width: int) -> Any:
    """The part itself if it is a module, else the module that the factory builds."""
    return part if isinstance(part, nn.Module) else part(width)


class Composite(nn.Module, ABC):
    """Maps a `State` to the next through its members, all of which see other nodes as they were at its input.

    Members that read the output of another are the steps of a `Chain`.
    """

    @property
    @abstractmethod
    def members(self) -> list[nn.Module]:
        """Its layers, composites and blends."""

    @property
    def norms(self) -> list[nn.Module]:
        """Its norms, those of its members excluded."""
        return []


class Residual(Composite):
    """A layer with its skip connection: ``norm(x + layer(x))``, or ``x + layer(norm(x))`` with ``prenorm``.

    Args:
        width: channels of every stream.
        layer: a `Layer`.
        norm: of (rows, d), for the nodes, or one for each stream to normalise: ``{"x": ..., "e": ...}``.
        prenorm: normalise the input of the layer (GPT-2) instead of the sum (Vaswani et al. 2017, GPS).
        dropout: on what the layer adds, unless it applies its own.
        scale: of what the layer adds to the nodes, such as a `gt.layers.depth.LayerScale`; None for no scaling.

    Attributes:
        blend, branch_index: if a blend is set, its factor at this index scales what the layer adds to the nodes.

    Raises:
        ValueError: a norm for an unknown stream, or a PyG convolution as the layer.
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
        self.layer, self.scale = as_module(layer, width), scale
        if type(self.layer).__module__.startswith("torch_geometric."):
            name = type(self.layer).__name__
            raise ValueError(
                f"{name} is a PyG convolution: use it as model/local=pyg model.block.local.conv._target_=..."
            )
        norms = norm if isinstance(norm, Mapping) else {"x": norm}
        if unknown := [name for name in norms if name not in STREAMS]:
            raise ValueError(f"norm: unknown stream {', '.join(unknown)}: choose from {', '.join(STREAMS)}")
        self.norm = nn.ModuleDict({name: as_module(part, width) for name, part in norms.items()})
        self.prenorm = prenorm
        self.blend: nn.Module | None = None
        self.branch_index = 0
        drop = dropout if isinstance(dropout, nn.Module) else Dropout(dropout)
        self.dropout = None if getattr(self.layer, "residual", False) else drop

    @property
    def members(self) -> list[nn.Module]:
        return [self.layer] if self.blend is None else [self.layer, self.blend]

    @property
    def norms(self) -> list[nn.Module]:
        return list(self.norm.values())

    def step(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        """What to add to each stream."""
        steps = self.layer(self.normalised(state, batch, pairs) if self.prenorm else state, batch, pairs)
        check_steps(self.layer, steps, state)
        if self.dropout is not None:
            steps = {name: self.dropout(step) for name, step in steps.items()}
        return steps if self.scale is None else steps | {"x": self.scale(steps["x"])}

    def normalised(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        """The state with every stream normalised that is present and has a norm."""
        streams = {name: (norm, getattr(state, name)) for name, norm in self.norm.items()}
        new: dict[str, Any] = {}
        for name, (norm, rows) in streams.items():
            if rows is not None:
                new[name] = apply_norm(norm, rows, batch, name, pairs.edges[1] if name == "p" else None)
        return replace(state, **new)

    def postnormalised(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        """The state after the addition, normalised unless ``prenorm``."""
        return state if self.prenorm else self.normalised(state, batch, pairs)

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        steps = self.step(state, batch, pairs)
        if self.blend is not None:
            steps = steps | {"x": self.blend(state, batch)[self.branch_index] * steps["x"]}
        return self.postnormalised(state.plus(steps), batch, pairs)


class Parallel(Composite):
    """Branches that read the same state: node outputs are blended (GPS, Rampasek et al. 2022), other streams add up.

    Args:
        width: channels of every stream.
        branches: each a `Residual`, all with the same ``prenorm``; with it, the blend applies to what they add to x,
            without it to their outputs.
        blend: ``blend(state, batch)`` returns a factor for each branch, in order: a number, (N, 1) or (N, d).

    Raises:
        ValueError: a branch is not a `Residual`, or ``prenorm`` differs; when run, the number of factors is wrong.
    """

    def __init__(self, width: int, branches: Mapping[str, Part], blend: nn.Module | Callable[[], nn.Module]) -> None:
        super().__init__()
        self.branches: Any = nn.ModuleDict({name: as_module(branch, width) for name, branch in branches.items()})
        self.blend = blend if isinstance(blend, nn.Module) else blend()
        for name, branch in self.branches.items():
            if not isinstance(branch, Residual):
                raise ValueError(f"branches: {name} is a {type(branch).__name__}: wrap it in a gt.layers.Residual")
        prenorms = {branch.prenorm for branch in self.branches.values()}
        if len(prenorms) != 1:
            raise ValueError("branches: at least one is needed" if not prenorms else "branches: prenorm must be equal")
        (self.prenorm,) = prenorms

    @property
    def members(self) -> list[nn.Module]:
        return [*self.branches.values(), self.blend]

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        out, outputs, factors = state, [], self.blend(state, batch)
        if len(factors) != len(self.branches):
            raise ValueError(
                f"{type(self.blend).__name__} returns {len(factors)} factors for {len(self.branches)} branches"
            )
        for branch, factor in zip(self.branches.values(), factors, strict=True):
            steps = branch.step(state, batch, pairs)
            out = branch.postnormalised(replace(out, x=state.x).plus(steps), batch, pairs)
            x = steps["x"] if self.prenorm else out.x
            outputs.append(x if isinstance(factor, float) and factor == 1 else factor * x)  # a plain sum, as in GPS
        total = sum(outputs[1:], outputs[0])
        return replace(out, x=state.x + total if self.prenorm else total)


class Chain(Composite):
    """Steps applied one after another, each from a `State` to the next.

    Args:
        width: channels of every stream.
        steps: each a `Composite`, such as a `Residual`.
    """

    def __init__(self, width: int, steps: Mapping[str, Part]) -> None:
        super().__init__()
        self.steps: Any = nn.ModuleDict({name: as_module(step, width) for name, step in steps.items()}) if steps else {}

    @property
    def members(self) -> list[nn.Module]:
        return list(self.steps.values())

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> State:
        for step in self.steps.values():
            state = step(state, batch, pairs)
        return state
