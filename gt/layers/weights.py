"""Weight initialisation where a paper differs from PyTorch's default."""

import math

from torch import nn


def draw_glorot(module: nn.Module) -> None:
    """Initialise linear maps, the module itself included, uniformly within ``sqrt(6 / (inputs + outputs))``, in place.

    Biases start at 0 (Glorot & Bengio 2010).
    """
    for linear in (part for part in module.modules() if isinstance(part, nn.Linear)):
        nn.init.xavier_uniform_(linear.weight)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)


def draw_normal(module: nn.Module, std: float, depth: int) -> None:
    """Initialise linear maps and embeddings from a normal distribution of standard deviation ``std``, in place.

    Projections into the residual stream, ``project_out``, use ``std / sqrt(2 depth)``, since as many are summed (GPT-2,
    Radford et al. 2019). Biases start at 0.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Embedding | nn.EmbeddingBag):
            nn.init.normal_(part.weight, std=std / math.sqrt(2 * depth) if "project_out" in name else std)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
