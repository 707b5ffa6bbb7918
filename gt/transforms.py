"""Whether PyTorch looks into what is computed: it then needs its own functions, not those with a backward of ours."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad

T = TypeVar("T")


def transformed() -> bool:
    """Whether a transform of `torch.func`, or a derivative forward, goes through; of a compiler none is known."""
    if torch.compiler.is_compiling():  # which follows neither question; torch.export traces by such a transform itself
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def plain() -> bool:
    """Whether PyTorch's own functions are to be used alone: under those transforms, and where a compiler traces."""
    return torch.compiler.is_compiling() or transformed()


def outside(make: Callable[[], T]) -> T:
    """What ``make`` gives where neither a transform of `torch.func` nor inference mode goes through what it computes.

    So is made what a batch keeps: it outlives them, and a later pass may train with it.
    """
    with torch.inference_mode(False):
        if not transformed():
            return make()
        with temporarily_clear_interpreter_stack():
            return make()


def once_differentiable(backward: Callable[..., T]) -> Callable[..., T]:
    """A backward pass that refuses to be differentiated itself.

    That of PyTorch refuses it late, and where what flows back is a constant not at all: what is kept then counts as
    constant too, and second derivatives lack a part.
    """

    @wraps(backward)
    def wrapped(ctx: Any, *grads: Tensor) -> T:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            whose = f"{backward.__module__} has no second derivatives"
            raise RuntimeError(f"{whose}: attention has them by backend=dense, other layers by torch.func")
        return backward(ctx, *grads)

    return wrapped
