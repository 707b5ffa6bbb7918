"""Low-rank changes of frozen maps: LoRA (Hu et al. 2022)."""

import re

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gt.errors import UserError
from gt.linear import Linear

# the maps that are changed: those of attention and feed-forward networks, and of a block that is attention itself
WHERE = re.compile(r"blocks\.\d+\.((.*\.)?(attention|feed_forward)\.|project_)")
ORIGINAL = ".parametrizations.weight.original"  # what ends the name of such a map's own weight


class LowRank(nn.Module):
    """A matrix (out, in) plus the product of two of ``rank`` columns and rows, zero to begin with.

    The product has the weight 1, LoRA's alpha = rank.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add_low_rank(net: nn.Module, rank: int) -> None:
    """Let the linear maps of attention and feed-forward networks be changed by matrices of a rank, in place.

    Raises:
        UserError: there are none.
    """
    maps = [module for name, module in net.named_modules() if isinstance(module, nn.Linear) and WHERE.match(name)]
    if not maps:
        raise UserError("init.lora changes attention and feed-forward networks, and this model has neither")
    for module in maps:
        parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))


def merge(net: nn.Module) -> None:
    """Put plain maps, with the changes added to their weights, in place of those that have some.

    PyTorch's own way of taking a parametrization off works on a class that copies of a network share.
    """
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module):
            place = {"device": module.weight.device, "dtype": module.weight.dtype}
            alone = Linear(module.in_features, module.out_features, module.bias is not None, **place)
            with torch.no_grad():
                alone.weight.copy_(module.weight)
                if module.bias is not None:
                    alone.bias.copy_(module.bias)
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, alone)


def plain(name: str) -> str:
    """The name of a parameter in the network without low-rank changes."""
    return name.replace(ORIGINAL, ".weight")


def is_change(name: str) -> bool:
    """Whether a parameter of this name is one of a low-rank change."""
    return ".parametrizations." in name and not name.endswith(ORIGINAL)


def merged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A network's state with low-rank changes added to the weights that they change, by plain names."""
    out = {plain(name): value for name, value in state.items() if not is_change(name)}
    for name in (name for name in state if name.endswith(ORIGINAL)):
        place = name.removesuffix("original")
        out[plain(name)] = torch.addmm(state[name], state[f"{place}0.up"], state[f"{place}0.down"])
    return out
