"""Whether a language model reads ahead: one that sees the token that it is to predict has learned nothing."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gt.errors import UserError
from gt.graph import GraphBatch, path_graphs
from gt.layers import attention_layers, name_of, parts_of
from gt.masks import Mask
from gt.model import GraphTransformer

PROBE = 64  # tokens of a text on which a network is tried


def check_causal(net: nn.Module, context: int) -> None:
    """Hold a network against the order of a text: its masks, at every time of its training, and all that it computes.

    In training batch norm still goes by statistics of all tokens of a batch; a trained network does not.

    Args:
        net: predicts for each node of a path the token that comes next.
        context: tokens of a text at most.

    Raises:
        UserError: some token reads what comes after it; names the mask or the part of the network.
    """
    if context < 2:
        return
    if isinstance(net, GraphTransformer):
        path = path_graphs([context])
        for mask in net.masks_of_training():
            if mask.virtual_nodes:
                raise UserError(
                    f"the mask {mask} reads through virtual nodes, which see what is yet to come: "
                    "train with a mask that has none, such as mask=causal"
                )
            if _looks_ahead(mask, path):
                raise UserError(
                    f"the mask {mask} lets a token read what comes after it: "
                    "train with a causal one, such as mask=causal"
                )
    if part := _part_that_looks_ahead(net, min(context, PROBE)):
        raise UserError(f"{part} lets a token read what comes after it: a language model cannot be trained with it")


def _looks_ahead(mask: Mask, path: GraphBatch) -> bool:
    if mask.limits is not None:
        return mask.limits[1] != 0
    return bool(mask(path).dense.triu(1).any())


def _part_that_looks_ahead(net: nn.Module, length: int) -> str | None:
    """The first part of a network whose output for a token changes with tokens after it, or None.

    It is tried on a copy, whose parameters are moved a little, so that none hides behind a zero that it starts from.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        twin = copy.deepcopy(net).cpu().float().eval()
        for parameter in twin.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for _, layer in attention_layers(twin):
            layer.backend = "dense"  # which serves everywhere
        vocabulary = net.schema.node_vocab[0] if isinstance(net, GraphTransformer) else 2
        tokens = torch.randint(vocabulary, (length, 1))
        other, middle = tokens.clone(), length // 2
        other[middle:] = (tokens[middle:] + 1) % vocabulary
        for (name, first), (_, second) in zip(_outputs(twin, tokens), _outputs(twin, other), strict=True):
            if (first[:middle] - second[:middle]).abs().max() > 1e-4 * first.abs().max():
                return name
    return None


def _outputs(net: nn.Module, tokens: Tensor) -> list[tuple[str, Tensor]]:
    """What each layer, each block and then the whole network give for each token, (T, channels)."""
    outputs: list[tuple[str, Tensor]] = []

    def keep(name: str, _: nn.Module, __: Any, out: Any) -> None:
        x = out.get("x") if isinstance(out, dict) else getattr(out, "x", out)
        if isinstance(x, Tensor) and len(x) == len(tokens):
            outputs.append((name, x))

    blocks: Any = getattr(net, "blocks", ())
    hooks = [
        part.register_forward_hook(partial(keep, f"block {place} ({name_of(part)})"))
        for place, block in enumerate(blocks)
        for part in dict.fromkeys([*parts_of(block), block])
    ]
    batch = path_graphs([len(tokens)])
    batch.x = tokens
    outputs.append(("the network", net(batch)))
    for hook in hooks:
        hook.remove()
    return outputs
