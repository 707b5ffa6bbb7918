"""Any convolution of `torch_geometric.nn` as a local branch."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gt.errors import first_line
from gt.graph import GraphBatch
from gt.layers.base import Layer, State
from gt.linear import Linear
from gt.masks import Pairs

WIDTHS = ("in_channels", "channels", "edge_dim", "in_edge_channels", "dim")  # arguments of a constructor
BATCHED = ("edge_attr", "batch", "batch_size")  # arguments of a forward that a batch answers
PROBE = torch.tensor([[0, 0, 1, 4, 1, 2, 3, 4], [1, 2, 2, 2, 3, 4, 4, 4]])  # edges of six nodes, one of them isolated


class PyGConvolution(Layer):
    """A convolution by its constructor, ``conv(in_channels, out_channels, ...)``; it leaves ``e`` as it is.

    What the constructor takes and is not set is filled in: ``in_channels``, ``out_channels`` and ``channels`` with the
    width (``out_channels`` with width / heads where heads stand side by side), so is ``edge_dim``, which some call
    ``in_edge_channels`` or ``dim``; ``nn`` with two linear maps, ``deg`` with the in-degrees of the training data.
    ``edge_attr``, ``batch`` and ``batch_size`` are passed where its forward takes them; edges that carry nothing are
    zeros, and with ``edge_dim=None`` what they carry is not read.

    How far a node looks through it is tried on a small graph: ``"edges"`` where each node's value stays as it is when
    only its own edges and their sources are left; else ``"graph"``, as for several hops, or the degrees of sources.

    Args:
        width: channels of a node.
        conv: makes the convolution, such as ``partial(torch_geometric.nn.GATv2Conv, heads=4)``; modules among its
            arguments are copied, with weights of their own.

    Attributes:
        name: of the convolution's class.
        wants_degrees: whether `set_degrees` is to be called before training; until then it gives NaN.

    Raises:
        ValueError: it needs an argument that is not set or that no batch has, fails, or gives another width.
    """

    reads_pairs = reads_mask = False

    def __init__(self, width: int, conv: Callable[..., nn.Module]) -> None:
        super().__init__()
        kind, keywords = getattr(conv, "func", conv), dict(getattr(conv, "keywords", {}))
        self.name = str(kind.__name__)
        known = inspect.signature(kind).parameters
        concat = keywords.get("concat", known["concat"].default if "concat" in known else False)
        heads = keywords.get("heads", 1) if concat else 1
        if width % heads:
            raise ValueError(f"heads={heads} of {self.name} do not divide a width of {width}")
        filled: dict[str, Any] = {name: width for name in WIDTHS if name in known}
        if "out_channels" in known:
            filled["out_channels"] = width // heads
        if "nn" in _needed(known):
            filled["nn"] = nn.Sequential(Linear(width, width), nn.ReLU(), Linear(width, width))
        if "deg" in _needed(known):
            filled["deg"] = torch.ones(2)  # any will do until the data are known
        filled |= {name: _anew(value) if isinstance(value, nn.Module) else value for name, value in keywords.items()}
        if missing := [name for name in _needed(known) if name not in filled]:
            raise ValueError(f"{self.name} needs {' and '.join(f'conv.{name}' for name in missing)} to be set")
        try:
            self.conv: Any = kind(**filled)
            takes = inspect.signature(self.conv.forward).parameters
            self.reads_edges = "edge_attr" in takes and filled.get("edge_dim", width) is not None
            self.takes = [name for name in BATCHED if name in takes and (name != "edge_attr" or self.reads_edges)]
            if unknown := [name for name in _needed(takes) if name not in ("x", "edge_index", *BATCHED)]:
                raise ValueError(f"it reads {' and '.join(unknown)}, which no batch has")
            self.reads = "edges" if self._looks_no_further_than_edges(width) else "graph"
        except Exception as error:  # whatever a convolution may raise
            raise ValueError(f"{self.name} cannot be a local branch: {first_line(error)}") from error
        self.wants_degrees = "deg" in known and "deg" not in keywords
        if self.wants_degrees:
            self._scale_by(torch.nan, torch.nan)

    def set_degrees(self, degrees: Tensor) -> None:
        """Say what the in-degrees of the training data are, by which `PNAConv` scales (Corso et al. 2020).

        Args:
            degrees: (D,) how many nodes have in-degree 0, 1, 2, ...

        Raises:
            ValueError: no node has an edge.
        """
        if not degrees[1:].any():
            raise ValueError(f"{self.name} scales by the in-degrees of the training data, which have no edges")
        degree, share = torch.arange(len(degrees), dtype=torch.float64), degrees.double() / degrees.sum()
        self._scale_by(float(degree @ share), float((degree + 1).log() @ share))

    def _scale_by(self, mean: float, mean_log: float) -> None:
        modules: list[Any] = list(self.conv.modules())
        for module in modules:
            if hasattr(module, "avg_deg_log"):
                nn.init.constant_(module.avg_deg_lin, mean)
                nn.init.constant_(module.avg_deg_log, mean_log)

    def _looks_no_further_than_edges(self, width: int) -> bool:
        """Whether each node of a small graph gets the same from its own edges and their sources alone."""
        draw = torch.Generator().manual_seed(0)
        twin, nodes = copy.deepcopy(self).double().eval(), int(PROBE.max()) + 2
        x, e = (torch.randn(n, width, dtype=torch.float64, generator=draw) for n in (nodes, PROBE.shape[1]))
        with torch.no_grad():
            for parameter in twin.parameters():
                nn.init.normal_(parameter, generator=draw)  # what starts at zero may hide what it multiplies
            whole = twin.convolved(x, e, GraphBatch(torch.tensor([0, nodes]), PROBE, nodes))
            if not isinstance(whole, Tensor) or whole.shape != x.shape:
                shape = tuple(whole.shape[1:]) if isinstance(whole, Tensor) else type(whole).__name__
                raise ValueError(f"it gives {shape} for nodes of width {width}: set its out_channels to fit")
            for node in range(nodes):
                own = PROBE[1] == node
                kept = torch.unique(torch.cat([torch.tensor([node]), PROBE[0, own]]))
                edges = torch.searchsorted(kept, PROBE[:, own])
                alone = twin.convolved(x[kept], e[own], GraphBatch(torch.tensor([0, len(kept)]), edges, len(kept)))
                if not torch.allclose(alone[kept == node], whole[node], rtol=1e-9, atol=1e-9):
                    return False
        return True

    def convolved(self, x: Tensor, e: Tensor | None, batch: GraphBatch) -> Any:
        """What the convolution makes of nodes (N, width) and edges (E, width) or None."""
        if e is None and self.reads_edges:
            e = x.new_zeros(batch.num_edges, x.shape[1])
        known = {"edge_attr": e, "batch": batch.batch, "batch_size": batch.num_graphs}
        return self.conv(x, batch.edge_index, **{name: known[name] for name in self.takes})

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        return {"x": self.convolved(state.x, state.e, batch)}


def _needed(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """The names that a call does not do without."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, each in parameters.items() if each.default is each.empty and each.kind in named]


def _anew(module: nn.Module) -> nn.Module:
    """A module like another, with weights of its own."""
    module = copy.deepcopy(module)
    parts: list[Any] = list(module.modules())
    for part in parts:
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return module
