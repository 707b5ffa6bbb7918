"""A network as a function of the tensors of one graph, of any size, for other runtimes.

There are no batches, mask objects or backends: attention is dense, and masks are inputs of their own unless complete.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gt.errors import UserError
from gt.features import Features
from gt.graph import GraphBatch
from gt.layers import Layer, attention_layers, name_of, parts_of, reads_of
from gt.masks import Complete, Mask
from gt.model import GraphTransformer
from gt.train.low_rank import merge


@dataclass(frozen=True)
class Supplied(Mask):
    """A mask that is an input of the given name; ``itself``: every node reads itself."""

    name: str
    of_heads: int
    itself: bool

    @property
    def heads(self) -> int:
        return self.of_heads

    @property
    def reads_itself(self) -> bool:
        return self.itself

    def dense(self, batch: GraphBatch) -> Tensor:
        return batch.memo[self.name]


class SummedEmbedding(nn.Module):
    """An `nn.EmbeddingBag` for rows of equal length: (rows, columns) to (rows, width).

    In ONNX a bag is a slow loop over rows, which fails if there are none, such as the edges of a single atom.
    """

    def __init__(self, bag: nn.EmbeddingBag) -> None:
        super().__init__()
        self.weight = bag.weight

    def forward(self, indices: Tensor, per_sample_weights: None = None) -> Tensor:
        return nn.functional.embedding(indices, self.weight).sum(1)


class OneGraph(nn.Module):
    """``one(x, edge_index, edge_attr, **others)`` is ``net(batch)`` for a batch of one graph.

    Args:
        net: a trained network; it is copied, with low-rank updates merged.

    Attributes:
        supplied: the masks that are inputs, by name: (1, 1 or H, N, N) bool, [0, h, i, j] True where i reads j.
        radii: the maximum hops of the distance matrices that attention reads, which are inputs too.

    Raises:
        UserError: it has parts that cannot be computed by dense attention on one graph.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        if not isinstance(net, GraphTransformer) or net.schema.level == "link":
            raise UserError("only a gt.model.GraphTransformer for graphs or nodes, not links, can be traced")
        if net.virtual_nodes or net.redraw:
            raise UserError("virtual nodes and redrawn random masks cannot be exported")
        for part in (part for block in net.blocks for part in parts_of(block) if reads_of(part) == "pairs"):
            demand = part.demand("cpu", False) if isinstance(part, Layer) else None
            if demand is None or demand.listed:
                raise UserError(f"{name_of(part)} computes a row for each pair of nodes and cannot be exported")
        self.net = deepcopy(net).cpu().eval()
        merge(self.net)
        for features in [
            module for module in self.net.modules() if isinstance(module, Features) and module.categorical
        ]:
            features.register_module("table", SummedEmbedding(features.table))
        for _, layer in attention_layers(self.net):
            layer.backend, layer.compiled = "dense", True
        demands = [layer.demand("cpu", False) for _, layer in attention_layers(self.net)]
        self.radii = sorted({each.hops for each in demands if each is not None and each.hops is not None})
        self.supplied: dict[str, Mask] = {}
        for index, mask in enumerate(self.net.masks):
            if not isinstance(mask, Complete):
                name = next((name for name, other in self.supplied.items() if other == mask), f"reads_{index}")
                self.supplied[name] = mask
                self.net.masks[index] = Supplied(name, mask.heads, mask.reads_itself)

    def inputs(self, batch: GraphBatch) -> dict[str, Tensor]:
        """The input tensors of a batch of one graph, by name."""
        tensors = {"x": batch.x, "edge_index": batch.edge_index, "edge_attr": batch.edge_attr, **batch.extras}
        tensors |= {name: mask(batch).dense for name, mask in self.supplied.items()}
        tensors |= {f"hops_{limit}": Complete()(batch).dense_hops(limit) for limit in self.radii}
        return {name: value for name, value in tensors.items() if value is not None}

    def described(self, example: GraphBatch) -> str:
        """Describe each input on a line of Markdown."""
        texts = {"x": "features of N nodes", "edge_attr": "features of E edges"}
        texts["edge_index"] = "(2, E) sources and targets of edges, sorted by target, then source"
        texts |= {
            name: f"(1, {mask.heads}, N, N), [i, j] true where i reads j by `{mask}`"
            for name, mask in self.supplied.items()
        }
        texts |= {
            f"hops_{limit}": f"(1, N, N), [i, j] the hops along edges from j to i, {limit + 1} beyond"
            for limit in self.radii
        }
        kinds = {name: str(value.dtype).removeprefix("torch.") for name, value in self.inputs(example).items()}
        lines = [
            f"- `{name}` {kind}: {texts.get(name, 'an encoding, a row for each node')}" for name, kind in kinds.items()
        ]
        return "\n".join(["Inputs of the traced network, of one graph:", "", *lines])

    def forward(self, x: Tensor, edge_index: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        nodes = x.shape[0]
        rest: dict[str, Any] = dict(others)
        batch = GraphBatch(
            ptr=torch.tensor([0, 0]),
            edge_index=edge_index,
            max_nodes=nodes,
            x=x,
            edge_attr=rest.pop("edge_attr", None),
            memo={name: rest.pop(name) for name in self.supplied},
        )
        hops = {f"dense_hops_{limit}": rest.pop(f"hops_{limit}") for limit in self.radii}
        batch.extras = rest
        index = torch.arange(nodes)
        ones = torch.ones_like(edge_index[1])
        vars(batch).update(  # what a batch derives from its offsets
            num_nodes=nodes,
            equal_sizes=True,
            batch=torch.zeros_like(index),
            position=index,
            slot=index,
            sizes=torch.full((1,), nodes),
            in_degree=torch.zeros_like(index).index_add(0, edge_index[1], ones),
            edge_mask=None,
        )
        for mask in self.net.masks:
            vars(mask(batch)).update(hops)
        return self.net(batch)
