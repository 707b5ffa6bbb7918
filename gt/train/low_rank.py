"""Low-rank adapters of frozen linear layers: LoRA (Hu et al. 2022)."""

import re

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gt.errors import UserError
from gt.linear import Linear

# the adapted layers: those of attention and feed-forward networks, and of blocks that are attention layers themselves
ADAPTED = re.compile(r"blocks\.\d+\.((.*\.)?(attention|feed_forward)\.|project_)")
ORIGINAL = ".parametrizations.weight.original"  # suffix of the name of an adapted layer's own weight


class LowRank(nn.Module):
    """Adds a low-rank product of matrices (out, rank) and (rank, in) to a weight (out, in); initially zero.

    The product is not scaled, as in LoRA with alpha = rank.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add_low_rank(net: nn.Module, rank: int) -> None:
    """Add adapters of a given rank to the linear layers of attention and feed-forward networks, in place.

    Raises:
        UserError: there are no such layers.
    """
    layers = [module for name, module in net.named_modules() if isinstance(module, nn.Linear) and ADAPTED.match(name)]
    if not layers:
        raise UserError("init.lora adapts attention and feed-forward networks, but this model has neither")
    for module in layers:
        parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))


def merge(net: nn.Module) -> None:
    """Replace adapted layers by plain ones whose weights include the low-rank product, in place.

    PyTorch's `remove_parametrizations` would modify a class that copies of the network share.
    """
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module):
            options = {"device": module.weight.device, "dtype": module.weight.dtype}
            layer = Linear(module.in_features, module.out_features, module.bias is not None, **options)
            with torch.no_grad():
                layer.weight.copy_(module.weight)
                if module.bias is not None:
                    layer.bias.copy_(module.bias)
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, layer)


def plain_name(name: str) -> str:
    """The name of a parameter in the network without adapters."""
    return name.replace(ORIGINAL, ".weight")


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return ".parametrizations." in name and not name.endswith(ORIGINAL)


def merged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A network's state with the adapters merged into the weights, by plain names."""
    out = {plain_name(name): value for name, value in state.items() if not is_adapter(name)}
    for name in (name for name in state if name.endswith(ORIGINAL)):
        prefix = name.removesuffix("original")
        out[plain_name(name)] = torch.addmm(state[name], state[f"{prefix}0.up"], state[f"{prefix}0.down"])
    return out
