"""Dropout that is cheap on a CPU, where drawing a number for every element can take a third of a training step."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.native.library import address, addressable, drop_level, kernels, obstacle, random_seed
from gt.ranges import below_one
from gt.transforms import one_by_one, plain

LEVELS = 2**16  # of probability: the step between two of them is far below what anybody can tell


class _Dropout(torch.autograd.Function):
    """Sixteen random bits for each element, four of them from one number; they are kept, two bytes an element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int) -> Tensor:
        drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        ctx.dropped, bits = dropped, drawn.view(torch.int16)[: x.numel()].view(x.shape)
        ctx.save_for_backward(bits)
        return x * _factors(bits, dropped, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        return grad * _factors(bits, ctx.dropped, grad.dtype), None


class _NativeDropout(torch.autograd.Function):
    """By a kernel in C, see ``gt/native/kernels/dropout.c``: a seed is all that is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: int) -> Tensor:
        ctx.p, ctx.seed = p, seed
        x, (level, kept) = x.contiguous(), drop_level(p)
        out = torch.empty_like(x)
        kernels().dropout(address(x), address(out), x.numel(), seed, level, kept, torch.get_num_threads())
        return out

    @staticmethod
    @one_by_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _NativeDropout.apply(grad, ctx.p, ctx.seed), None, None


def _factors(bits: Tensor, dropped: int, dtype: torch.dtype) -> Tensor:
    """0 where an element is dropped, 1 over the share that is kept elsewhere."""
    kept = torch.ge(bits, dropped - LEVELS // 2, out=torch.empty(bits.shape, dtype=dtype))
    return kept.mul_(LEVELS / (LEVELS - dropped))


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Zero each element of x (any shape) with probability p and scale the others by ``1 / (1 - p)`` in training.

    As `torch.nn.functional.dropout` (Srivastava et al. 2014), by other random numbers of the same generator where x is
    on a CPU; p is then rounded to 16 bits unless there are kernels, see `gt.native`.
    """
    dropped = round(p * LEVELS)
    if not training or not 0 < dropped < LEVELS or x.device.type != "cpu" or plain():
        return F.dropout(x, p, training)
    if addressable(x) and obstacle() is None:
        return _NativeDropout.apply(x, p, random_seed())
    return _Dropout.apply(x, dropped)


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` by `dropout`, which keeps something: p is below 1."""

    def __init__(self, p: float) -> None:
        below_one(p, "dropout")
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)
