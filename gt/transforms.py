"""Whether PyTorch looks into what is computed: it then needs its own functions, not those with a backward of ours."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._C import _functorch as functorch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack, temporarily_pop_interpreter_stack
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


def one_by_one(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """A backward pass that takes one after another what comes to it as many gradients at once.

    So they come by ``is_grads_batched`` of `torch.autograd.grad` and where `torch.func.vmap` goes through it; they lie
    nowhere that a kernel could read, and functions of ours do not take them.
    """

    @wraps(backward)
    def wrapped(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.compiler.is_compiling():
            return backward(ctx, *grads)
        batches: Any  # what makes and opens them
        aside: Callable[[], AbstractContextManager[None]]
        if any(map(functorch.is_batchedtensor, grads)):
            batches, level = functorch, max(map(functorch.maybe_get_level, grads))
            aside = temporarily_pop_interpreter_stack
        elif any(map(functorch.is_legacy_batchedtensor, grads)):
            batches, level, aside = torch, 1, nullcontext  # autograd's own, of which there is one
        else:
            return backward(ctx, *grads)
        many = max(len(batches._remove_batch_dim(grad, level, 1, 0)) for grad in grads)
        rows = [batches._remove_batch_dim(grad, level, many, 0) for grad in grads]  # repeated where it is one for all
        with aside():
            found = [wrapped(ctx, *each) for each in zip(*rows, strict=True)]
            stacked = [None if each[0] is None else torch.stack(each) for each in zip(*found, strict=True)]
        return tuple(None if each is None else batches._add_batch_dim(each, 0, level) for each in stacked)

    return wrapped


def once_differentiable(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """A backward pass that refuses to be differentiated itself, `one_by_one`.

    That of PyTorch refuses it late, and where what flows back is a constant not at all: what is kept then counts as
    constant too, and second derivatives lack a part.
    """

    @one_by_one
    @wraps(backward)
    def wrapped(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            whose = f"{backward.__module__} has no second derivatives"
            raise RuntimeError(f"{whose}: attention has them by backend=dense, other layers by torch.func")
        return backward(ctx, *grads)

    return wrapped
