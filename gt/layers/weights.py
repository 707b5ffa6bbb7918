"""How the weights of a network begin where PyTorch's own draw is not the one of the paper."""

import math

from torch import nn


def draw_glorot(module: nn.Module) -> None:
    """Draw the linear maps of a module, itself included, within ``sqrt(6 / (inputs + outputs))``, in place.

    Biases begin at 0 (Glorot & Bengio 2010).
    """
    for linear in (part for part in module.modules() if isinstance(part, nn.Linear)):
        nn.init.xavier_uniform_(linear.weight)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)


def draw_normal(module: nn.Module, std: float, depth: int) -> None:
    """Draw linear maps and embeddings from a normal distribution of deviation ``std``, in place; biases begin at 0.

    Maps back into the residual stream, ``project_out``, are ``sqrt(2 depth)`` times as narrow, since so many of them
    are added up (GPT-2, Radford et al. 2019).
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Embedding | nn.EmbeddingBag):
            nn.init.normal_(part.weight, std=std / math.sqrt(2 * depth) if "project_out" in name else std)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
