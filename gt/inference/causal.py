"""Causality check of language models: one that sees the token to predict learns nothing."""

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

PROBE = 64  # tokens of the text on which a network is tested


def check_causal(net: nn.Module, context: int) -> None:
    """Check that a network is causal: its masks throughout training, and everything that it computes.

    In training batch norm still uses statistics of all tokens of a batch; a trained network does not.

    Args:
        net: predicts the next token for each node of a path.
        context: maximum number of tokens of a text.

    Raises:
        UserError: a token reads later ones; names the mask or the part of the network.
    """
    if context < 2:
        return
    if isinstance(net, GraphTransformer):
        path = path_graphs([context])
        for mask in net.masks_of_training():
            if mask.virtual_nodes:
                raise UserError(
                    f"the mask {mask} reads through virtual nodes, which see later tokens: "
                    "train with a mask that has none, such as mask=causal"
                )
            if _looks_ahead(mask, path):
                raise UserError(
                    f"the mask {mask} lets a token read later tokens: train with a causal one, such as mask=causal"
                )
    if part := _non_causal_part(net, min(context, PROBE)):
        raise UserError(f"{part} lets a token read later tokens: a language model cannot be trained with it")


def _looks_ahead(mask: Mask, path: GraphBatch) -> bool:
    if mask.limits is not None:
        return mask.limits[1] != 0
    return bool(mask(path).dense.triu(1).any())


def _non_causal_part(net: nn.Module, length: int) -> str | None:
    """The first part of a network whose output for a token changes with later tokens, or None.

    The test uses a copy with perturbed parameters, so that no dependency is hidden by a zero initialisation.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        twin = copy.deepcopy(net).cpu().float().eval()
        for parameter in twin.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for _, layer in attention_layers(twin):
            layer.backend = "dense"  # which supports everything
        vocabulary = net.schema.node_vocab[0] if isinstance(net, GraphTransformer) else 2
        tokens = torch.randint(vocabulary, (length, 1))
        other, middle = tokens.clone(), length // 2
        other[middle:] = (tokens[middle:] + 1) % vocabulary
        for (name, first), (_, second) in zip(_outputs(twin, tokens), _outputs(twin, other), strict=True):
            if (first[:middle] - second[:middle]).abs().max() > 1e-4 * first.abs().max():
                return name
    return None


def _outputs(net: nn.Module, tokens: Tensor) -> list[tuple[str, Tensor]]:
    """The outputs (T, channels) of each layer, each block and finally the whole network."""
    outputs: list[tuple[str, Tensor]] = []

    def keep(name: str, _: nn.Module, __: Any, out: Any) -> None:
        x = out.get("x") if isinstance(out, dict) else getattr(out, "x", out)
        if isinstance(x, Tensor) and len(x) == len(tokens):
            outputs.append((name, x))

    blocks: Any = getattr(net, "blocks", ())
    hooks = [
        part.register_forward_hook(partial(keep, f"block {index} ({name_of(part)})"))
        for index, block in enumerate(blocks)
        for part in dict.fromkeys([*parts_of(block), block])
    ]
    batch = path_graphs([len(tokens)])
    batch.x = tokens
    outputs.append(("the network", net(batch)))
    for hook in hooks:
        hook.remove()
    return outputs
