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

WIDTHS = ("in_channels", "channels", "edge_dim", "in_edge_channels", "dim")  # of a constructor, filled with the width
BATCHED = ("edge_attr", "batch", "batch_size")  # arguments of a forward that come from the batch
PROBE = torch.tensor([[0, 0, 1, 4, 1, 2, 3, 4], [1, 2, 2, 2, 3, 4, 4, 4]])  # edges of six nodes, one of them isolated


class PyGConvolution(Layer):
    """A convolution from its constructor, ``conv(in_channels, out_channels, ...)``; leaves ``e`` unchanged.

    Constructor arguments that are not set are filled in: ``in_channels``, ``out_channels``, ``channels`` and
    ``edge_dim`` (for some convolutions ``in_edge_channels`` or ``dim``) with the width (``out_channels`` with
    width / heads if heads are concatenated), ``nn`` with an MLP, ``deg`` with the in-degrees of the training data.
    ``edge_attr``, ``batch`` and ``batch_size`` are passed if its forward takes them; missing edge features are zeros,
    and with ``edge_dim=None`` edge features are not used.

    A trial on a small graph determines how far a node looks: ``"edges"`` if its output does not change when all but
    its own edges and their sources are removed; else ``"graph"``, as for several hops or the degrees of sources.

    Args:
        width: channels of a node.
        conv: builds the convolution, such as ``partial(torch_geometric.nn.GATv2Conv, heads=4)``; modules among its
            arguments are copied and reinitialised.

    Attributes:
        name: of the convolution's class.
        wants_degrees: whether `set_degrees` must be called before training; until then outputs are NaN.

    Raises:
        ValueError: a required argument is not set or not available from a batch, or the convolution fails or returns
            another width.
    """

    reads_pairs = reads_mask = False

    def __init__(self, width: int, conv: Callable[..., nn.Module]) -> None:
        super().__init__()
        cls, keywords = getattr(conv, "func", conv), dict(getattr(conv, "keywords", {}))
        self.name = str(cls.__name__)
        parameters = inspect.signature(cls).parameters
        concat = keywords.get("concat", parameters["concat"].default if "concat" in parameters else False)
        heads = keywords.get("heads", 1) if concat else 1
        if width % heads:
            raise ValueError(f"heads={heads} of {self.name} do not divide a width of {width}")
        arguments: dict[str, Any] = {name: width for name in WIDTHS if name in parameters}
        if "out_channels" in parameters:
            arguments["out_channels"] = width // heads
        if "nn" in _required(parameters):
            arguments["nn"] = nn.Sequential(Linear(width, width), nn.ReLU(), Linear(width, width))
        if "deg" in _required(parameters):
            arguments["deg"] = torch.ones(2)  # placeholder until the training data are available
        arguments |= {
            name: _reinitialised(value) if isinstance(value, nn.Module) else value for name, value in keywords.items()
        }
        if missing := [name for name in _required(parameters) if name not in arguments]:
            raise ValueError(f"{self.name} needs {' and '.join(f'conv.{name}' for name in missing)} to be set")
        try:
            self.conv: Any = cls(**arguments)
            takes = inspect.signature(self.conv.forward).parameters
            self.reads_edges = "edge_attr" in takes and arguments.get("edge_dim", width) is not None
            self.takes = [name for name in BATCHED if name in takes and (name != "edge_attr" or self.reads_edges)]
            if unknown := [name for name in _required(takes) if name not in ("x", "edge_index", *BATCHED)]:
                raise ValueError(f"its forward needs {' and '.join(unknown)}, which a batch does not have")
            self.reads = "edges" if self._is_local(width) else "graph"
        except Exception as error:  # a convolution may raise anything
            raise ValueError(f"{self.name} cannot be a local branch: {first_line(error)}") from error
        self.wants_degrees = "deg" in parameters and "deg" not in keywords
        if self.wants_degrees:
            self._set_mean_degrees(torch.nan, torch.nan)

    def set_degrees(self, degrees: Tensor) -> None:
        """Set the in-degrees of the training data, by which `PNAConv` scales (Corso et al. 2020).

        Args:
            degrees: (D,) the number of nodes with in-degree 0, 1, 2, ...

        Raises:
            ValueError: no node has an edge.
        """
        if not degrees[1:].any():
            raise ValueError(f"{self.name} scales by the in-degrees of the training data, which have no edges")
        degree, share = torch.arange(len(degrees), dtype=torch.float64), degrees.double() / degrees.sum()
        self._set_mean_degrees(float(degree @ share), float((degree + 1).log() @ share))

    def _set_mean_degrees(self, mean: float, mean_log: float) -> None:
        modules: list[Any] = list(self.conv.modules())
        for module in modules:
            if hasattr(module, "avg_deg_log"):
                nn.init.constant_(module.avg_deg_lin, mean)
                nn.init.constant_(module.avg_deg_log, mean_log)

    def _is_local(self, width: int) -> bool:
        """Whether the output of each node of a small graph depends only on its own edges and their sources."""
        generator = torch.Generator().manual_seed(0)
        twin, nodes = copy.deepcopy(self).double().eval(), int(PROBE.max()) + 2
        x, e = (torch.randn(n, width, dtype=torch.float64, generator=generator) for n in (nodes, PROBE.shape[1]))
        with torch.no_grad():
            for parameter in twin.parameters():
                nn.init.normal_(parameter, generator=generator)  # a zero initialisation would hide what it multiplies
            whole = twin.convolve(x, e, GraphBatch(torch.tensor([0, nodes]), PROBE, nodes))
            if not isinstance(whole, Tensor) or whole.shape != x.shape:
                shape = tuple(whole.shape[1:]) if isinstance(whole, Tensor) else type(whole).__name__
                raise ValueError(f"it returns {shape} for nodes of width {width}: set its out_channels accordingly")
            for node in range(nodes):
                into = PROBE[1] == node
                ids = torch.unique(torch.cat([torch.tensor([node]), PROBE[0, into]]))
                edges = torch.searchsorted(ids, PROBE[:, into])
                local = twin.convolve(x[ids], e[into], GraphBatch(torch.tensor([0, len(ids)]), edges, len(ids)))
                if not torch.allclose(local[ids == node], whole[node], rtol=1e-9, atol=1e-9):
                    return False
        return True

    def convolve(self, x: Tensor, e: Tensor | None, batch: GraphBatch) -> Any:
        """The output of the convolution for nodes (N, width) and edges (E, width) or None."""
        if e is None and self.reads_edges:
            e = x.new_zeros(batch.num_edges, x.shape[1])
        available = {"edge_attr": e, "batch": batch.batch, "batch_size": batch.num_graphs}
        return self.conv(x, batch.edge_index, **{name: available[name] for name in self.takes})

    def forward(self, state: State, batch: GraphBatch, pairs: Pairs) -> dict[str, Tensor]:
        return {"x": self.convolve(state.x, state.e, batch)}


def _required(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """The names of the parameters without a default."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, each in parameters.items() if each.default is each.empty and each.kind in named]


def _reinitialised(module: nn.Module) -> nn.Module:
    """A copy of a module with freshly initialised weights."""
    module = copy.deepcopy(module)
    parts: list[Any] = list(module.modules())
    for part in parts:
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return module
