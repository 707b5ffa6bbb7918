"""A network as a function of the tensors of one graph, which other runtimes take: nodes and edges as many as there are.

Batches, masks and backends stay behind: attention is computed by dense matrices, and who reads whom is an input of its
own unless all read all.
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
    """What an input of the name says of one graph; ``itself``: every node reads itself."""

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
    """What an `nn.EmbeddingBag` gives of rows of one length, (rows, columns) to (rows, width).

    In ONNX a bag is a loop over rows, slow, and an error where there are none, as of the edges of a single atom.
    """

    def __init__(self, bag: nn.EmbeddingBag) -> None:
        super().__init__()
        self.weight = bag.weight

    def forward(self, indices: Tensor, per_sample_weights: None = None) -> Tensor:
        return nn.functional.embedding(indices, self.weight).sum(1)


class OneGraph(nn.Module):
    """``one(x, edge_index, edge_attr, **others)`` is ``net(batch)`` for a batch of one graph.

    Args:
        net: trained; it is copied, low-rank changes merged.

    Attributes:
        supplied: the masks that are inputs, (1, 1 or H, N, N) bool, [0, h, i, j] True where i reads j, by name.
        radii: up to how many hops distances are told apart, where attention goes by them: further inputs.

    Raises:
        UserError: it has parts that one graph of dense attention does not serve.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        if not isinstance(net, GraphTransformer) or net.schema.level == "link":
            raise UserError(
                "a network is traced where it is a gt.model.GraphTransformer for graphs or nodes, not links"
            )
        if net.virtual_nodes or net.redraw:
            raise UserError("virtual nodes, and masks that are drawn anew, cannot be exported")
        for part in (part for block in net.blocks for part in parts_of(block) if reads_of(part) == "pairs"):
            demand = part.demand("cpu", False) if isinstance(part, Layer) else None
            if demand is None or demand.listed:
                raise UserError(f"{name_of(part)} has a row for each pair of nodes, and cannot be exported")
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
        for place, mask in enumerate(self.net.masks):
            if not isinstance(mask, Complete):
                name = next((name for name, known in self.supplied.items() if known == mask), f"reads_{place}")
                self.supplied[name] = mask
                self.net.masks[place] = Supplied(name, mask.heads, mask.reads_itself)

    def inputs(self, batch: GraphBatch) -> dict[str, Tensor]:
        """The tensors of a batch of one graph, by the names that `forward` takes them by."""
        given = {"x": batch.x, "edge_index": batch.edge_index, "edge_attr": batch.edge_attr, **batch.extras}
        given |= {name: mask(batch).dense for name, mask in self.supplied.items()}
        given |= {f"hops_{most}": Complete()(batch).dense_hops(most) for most in self.radii}
        return {name: value for name, value in given.items() if value is not None}

    def described(self, example: GraphBatch) -> str:
        """A line on each input, in Markdown."""
        about = {"x": "features of N nodes", "edge_attr": "features of E edges"}
        about["edge_index"] = "(2, E) sources and targets of edges, sorted by target, then source"
        about |= {
            name: f"(1, {mask.heads}, N, N), [i, j] true where i reads j by `{mask}`"
            for name, mask in self.supplied.items()
        }
        about |= {
            f"hops_{most}": f"(1, N, N), [i, j] the hops along edges from j to i, {most + 1} beyond"
            for most in self.radii
        }
        kinds = {name: str(value.dtype).removeprefix("torch.") for name, value in self.inputs(example).items()}
        lines = [f"- `{name}` {kind}: {about.get(name, 'an encoding, a row a node')}" for name, kind in kinds.items()]
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
        hops = {f"dense_hops_{most}": rest.pop(f"hops_{most}") for most in self.radii}
        batch.extras = rest
        place = torch.arange(nodes)
        ones = torch.ones_like(edge_index[1])
        vars(batch).update(  # what a batch works out of its offsets, without them
            num_nodes=nodes,
            equal_sizes=True,
            batch=torch.zeros_like(place),
            position=place,
            slot=place,
            sizes=torch.full((1,), nodes),
            in_degree=torch.zeros_like(place).index_add(0, edge_index[1], ones),
            edge_mask=None,
        )
        for mask in self.net.masks:
            vars(mask(batch)).update(hops)
        return self.net(batch)
