"""Linear maps, on some CPUs by a kernel in C: see ``gt/native/kernels/linear.c``.

PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 alone on a processor of another vendor: the kernel then
takes half the time where such units are 512 bits wide.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.native.library import OPERATIONS, address, addressable, kernels, obstacle
from gt.transforms import one_by_one

ZEN_5 = 26  # the first family of AMD's processors with units of 512 bits
CPUINFO = Path("/proc/cpuinfo")
SMALLEST = 2**20  # multiplications of a product below which what surrounds it costs more than is gained
NARROWEST = 16  # columns on either side, likewise
ROWS, PANEL = 8, 32  # tiles that gradients of weights are made of


@cache
def mkl_is_slow() -> bool:
    """Whether this machine's units of 512 bits are such as MKL leaves alone."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        about = CPUINFO.read_text()
    except OSError:  # another system than Linux
        return False
    family = re.search(r"^cpu family\s*: (\d+)$", about, re.MULTILINE)
    return "AuthenticAMD" in about and family is not None and int(family[1]) >= ZEN_5


def _map(x: Tensor, weight: Tensor, bias: Tensor | None, turned: bool) -> Tensor:
    """``x @ weight + bias`` of (M, K), (K, N) and (N,), or by ``weight.T`` of (N, K) where it is turned."""
    (rows, depth), columns = x.shape, weight.shape[0 if turned else 1]
    out, threads = x.new_empty(rows, columns), torch.get_num_threads()
    panels = x.new_empty(-(-columns // PANEL) * PANEL * depth)
    bias = None if bias is None else bias.contiguous()
    added = None if bias is None else address(bias)
    sizes = rows, columns, depth, int(turned)
    kernels().linear_rows(address(x), address(weight), added, address(out), *sizes, address(panels), threads)
    OPERATIONS["linear"] += 2 * rows * columns * depth
    return out


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """``left.T @ right`` of (M, N) and (M, K)."""
    (rows, columns), width = left.shape, right.shape[1]
    if columns % ROWS or width % PANEL:
        return left.T @ right
    out = left.new_empty(columns, width)
    sizes = rows, columns, width, torch.get_num_threads()
    kernels().linear_outer(address(left), address(right), address(out), *sizes)
    OPERATIONS["linear"] += 2 * rows * columns * width
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _map(x.contiguous(), weight.contiguous(), bias, turned=True)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        again = torch.is_grad_enabled()  # gradients of gradients are PyTorch's own
        x, weight, grad = x.contiguous(), weight.contiguous(), grad.contiguous()
        return (
            (grad @ weight if again else _map(grad, weight, None, turned=False)) if of_x else None,
            (grad.T @ x if again else _outer(grad, x)) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def _suits_the_kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a map of rows is the kernel's: one that is large, of 32 bits on a CPU, and that nobody looks into."""
    if x.dim() != 2 or x.shape[1] != weight.shape[1] or x.numel() * len(weight) < SMALLEST:
        return False
    if min(weight.shape) < NARROWEST or torch.is_autocast_enabled("cpu"):
        return False
    given = (x, weight) if bias is None else (x, weight, bias)
    fits = bias is None or bias.shape == weight.shape[:1]
    return fits and addressable(*given) and mkl_is_slow() and obstacle() is None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` of (..., K), (N, K) and (N,), as `torch.nn.functional.linear`.

    Large products of float32 matrices on a CPU are the kernel's where it is the faster, see `mkl_is_slow`.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # by what has products of its own
    if traced or not _suits_the_kernel(x, weight, bias):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
