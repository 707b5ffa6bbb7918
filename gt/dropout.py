"""Dropout that is fast on a CPU, where drawing a random number per element can take a third of a training step."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.native.library import address, addressable, drop_level, kernels, obstacle, random_seed
from gt.ranges import below_one
from gt.transforms import one_by_one, plain

LEVELS = 2**16  # of probability: rounding to one of them is imperceptible


class _Dropout(torch.autograd.Function):
    """Drops by 16 random bits per element, four elements to a 64-bit draw; saves these two bytes per element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        random = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        ctx.threshold, bits = threshold, random.view(torch.int16)[: x.numel()].view(x.shape)
        ctx.save_for_backward(bits)
        return x * _factors(bits, threshold, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        return grad * _factors(bits, ctx.threshold, grad.dtype), None


class _NativeDropout(torch.autograd.Function):
    """Drops by a C kernel, see ``gt/native/kernels/dropout.c``; saves only a seed."""

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


def _factors(bits: Tensor, threshold: int, dtype: torch.dtype) -> Tensor:
    """The scaled dropout mask: 0 for dropped elements, 1 / (1 - p) for the others."""
    factors = torch.ge(bits, threshold - LEVELS // 2, out=torch.empty(bits.shape, dtype=dtype))
    return factors.mul_(LEVELS / (LEVELS - threshold))


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Zero each element of x (any shape) with probability p and scale the others by ``1 / (1 - p)`` in training.

    Like `torch.nn.functional.dropout` (Srivastava et al. 2014), but on a CPU with other random numbers of the same
    generator, and p rounded to 16 bits if the kernels of `gt.native` are not available.
    """
    threshold = round(p * LEVELS)
    if not training or not 0 < threshold < LEVELS or x.device.type != "cpu" or plain():
        return F.dropout(x, p, training)
    if addressable(x) and obstacle() is None:
        return _NativeDropout.apply(x, p, random_seed())
    return _Dropout.apply(x, threshold)


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` that calls `dropout`; p must be below 1."""

    def __init__(self, p: float) -> None:
        below_one(p, "dropout")
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)
