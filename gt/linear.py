"""Linear layers, on some CPUs by a C kernel, see ``gt/native/kernels/linear.c``.

PyTorch multiplies float32 matrices with MKL, which does not use AVX-512 on processors of other vendors: on those with
512-bit vector units the kernel takes half the time.
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

ZEN_5 = 26  # AMD's first CPU family with 512-bit vector units
CPUINFO = Path("/proc/cpuinfo")
MIN_MULTIPLICATIONS = 2**20  # of a product, below which the overhead exceeds the gain
MIN_COLUMNS = 16  # of input and output, likewise
ROWS, PANEL = 8, 32  # size of the tiles of weight gradients


@cache
def mkl_is_slow() -> bool:
    """Whether this CPU has 512-bit vector units that MKL does not use."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        cpuinfo = CPUINFO.read_text()
    except OSError:  # not Linux
        return False
    family = re.search(r"^cpu family\s*: (\d+)$", cpuinfo, re.MULTILINE)
    return "AuthenticAMD" in cpuinfo and family is not None and int(family[1]) >= ZEN_5


def _matmul(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    """``x @ weight + bias`` of (M, K), (K, N) and (N,); with ``transposed`` the weight is (N, K)."""
    (rows, depth), columns = x.shape, weight.shape[0 if transposed else 1]
    out, threads = x.new_empty(rows, columns), torch.get_num_threads()
    panels = x.new_empty(-(-columns // PANEL) * PANEL * depth)
    bias = None if bias is None else bias.contiguous()
    bias_address = None if bias is None else address(bias)
    sizes = rows, columns, depth, int(transposed)
    kernels().linear_rows(address(x), address(weight), bias_address, address(out), *sizes, address(panels), threads)
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
        return _matmul(x.contiguous(), weight.contiguous(), bias, transposed=True)

    @staticmethod
    @one_by_one
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        differentiable = torch.is_grad_enabled()  # second derivatives are left to PyTorch
        x, weight, grad = x.contiguous(), weight.contiguous(), grad.contiguous()
        return (
            (grad @ weight if differentiable else _matmul(grad, weight, None, transposed=False)) if needs_x else None,
            (grad.T @ x if differentiable else _outer(grad, x)) if needs_weight else None,
            grad.sum(0) if needs_bias else None,
        )


def _use_kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel is to be used: for large float32 products on a CPU, neither traced nor transformed."""
    if x.dim() != 2 or x.shape[1] != weight.shape[1] or x.numel() * len(weight) < MIN_MULTIPLICATIONS:
        return False
    if min(weight.shape) < MIN_COLUMNS or torch.is_autocast_enabled("cpu"):
        return False
    inputs = (x, weight) if bias is None else (x, weight, bias)
    bias_matches = bias is None or bias.shape == weight.shape[:1]
    return bias_matches and addressable(*inputs) and mkl_is_slow() and obstacle() is None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` of (..., K), (N, K) and (N,), like `torch.nn.functional.linear`.

    The kernel computes large float32 products on CPUs where it is faster, see `mkl_is_slow`.
    """
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # the tracer must see F.linear
    if tracing or not _use_kernel(x, weight, bias):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` that calls `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
