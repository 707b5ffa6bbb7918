"""Linear maps, on a CPU by the faster of the two libraries that PyTorch brings along.

PyTorch multiplies float32 matrices by MKL, which leaves AVX-512 alone on a processor of another vendor. oneDNN does not
and takes half the time where such units are 512 bits wide; but it compiles a kernel for each shape it meets, in about a
millisecond and 0.6 MB, so that the shapes have to be few.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gt.transforms import transformed

ZEN_5 = 26  # the first family of AMD's processors with units of 512 bits
CPUINFO = Path("/proc/cpuinfo")
ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # a build of PyTorch may come without it
SMALLEST = 2**22  # multiplications of a product below which what surrounds it costs more than is gained,
RAGGED = 2**24  # and below which it does where some rows are left over
FEWEST = 32  # rows of a product


@cache
def onednn_is_faster() -> bool:
    """Whether this machine multiplies float32 matrices faster by oneDNN than by MKL."""
    if ONEDNN is None or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        about = CPUINFO.read_text()
    except OSError:  # another system than Linux
        return False
    family = re.search(r"^cpu family\s*: (\d+)$", about, re.MULTILINE)
    return "AuthenticAMD" in about and family is not None and int(family[1]) >= ZEN_5


def _whole(rows: int) -> int:
    """The most of so many rows that make one of few shapes, eight a power of two: from 256 on all but a ninth."""
    unit = max(FEWEST, 1 << max(0, rows.bit_length() - 4))
    return rows // unit * unit


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` of (M, K), (N, K) and (N,), in any strides."""
    return ONEDNN(x, weight, bias, "none", [], "")


def _map(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`_onednn` of any number of rows of x."""
    rows, whole = len(x), _whole(len(x))
    if whole == rows:
        return _onednn(x, weight, bias)
    out = x.new_empty(rows, len(weight))
    out[:whole] = _onednn(x[:whole], weight, bias)
    out[whole:] = F.linear(x[whole:], weight, bias)
    return out


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """``left.T @ right`` of (M, N) and (M, K), of any number of rows."""
    whole = _whole(len(left))
    some, others = left[:whole].T, right[:whole].T
    # oneDNN brings its second operand into an order of its own, which pays for the larger one
    out = _onednn(some, others) if len(some) <= len(others) else _onednn(others, some).T
    return out if whole == len(left) else out.addmm_(left[whole:].T, right[whole:])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _map(x, weight, bias)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        of_x, of_weight, of_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        again = torch.is_grad_enabled()  # gradients of gradients are PyTorch's own
        return (
            (grad @ weight if again else _map(grad, weight.T)) if of_x else None,
            (grad.T @ x if again else _outer(grad, x)) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether a map of rows is oneDNN's: one that is large, of 32 bits on a CPU, and that nobody looks into."""
    if x.device.type != "cpu" or x.dim() != 2 or x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if len(x) < FEWEST or x.shape[1] != weight.shape[1] or torch.is_autocast_enabled("cpu"):
        return False
    if x.numel() * len(weight) < (SMALLEST if _whole(len(x)) == len(x) else RAGGED):
        return False
    return not (torch.jit.is_tracing() or transformed()) and onednn_is_faster()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` of (..., K), (N, K) and (N,), as `torch.nn.functional.linear`.

    Large products of float32 matrices on a CPU are oneDNN's where it is the faster, see `onednn_is_faster`.
    """
    if torch.compiler.is_compiling() or not _suits_onednn(x, weight):  # a compiler has products of its own
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
