"""Detect `torch.func` transforms and compilation, under which custom autograd functions cannot be used."""

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
    """Whether a `torch.func` transform or forward-mode differentiation is active; False while compiling."""
    if torch.compiler.is_compiling():  # cannot trace either check; torch.export itself uses such a transform
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def plain() -> bool:
    """Whether only PyTorch's own operations may be used: under transforms and while a compiler traces."""
    return torch.compiler.is_compiling() or transformed()


def tracing() -> bool:
    """Whether `torch.compile` traces this code: what it computes must not be cached with a batch.

    It would lie in the memory of a CUDA graph, which the next pass overwrites.
    """
    return torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def outside_transforms(make: Callable[[], T]) -> T:
    """Call ``make`` outside of inference mode and of any `torch.func` transform.

    Used for whatever a batch caches: it outlives them, and a later pass may train with it.
    """
    with torch.inference_mode(False):
        if not transformed():
            return make()
        with temporarily_clear_interpreter_stack():
            return make()


def one_by_one(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """Make a backward pass process batched gradients one by one.

    ``is_grads_batched`` of `torch.autograd.grad` and `torch.func.vmap` pass batched tensors, which have no memory that
    a kernel could read and which custom functions do not support.
    """

    @wraps(backward)
    def wrapped(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.compiler.is_compiling():
            return backward(ctx, *grads)
        batches: Any  # the module that wraps and unwraps batched tensors
        suspended: Callable[[], AbstractContextManager[None]]
        if any(map(functorch.is_batchedtensor, grads)):
            batches, level = functorch, max(map(functorch.maybe_get_level, grads))
            suspended = temporarily_pop_interpreter_stack
        elif any(map(functorch.is_legacy_batchedtensor, grads)):
            batches, level, suspended = torch, 1, nullcontext  # autograd's, with a single level
        else:
            return backward(ctx, *grads)
        count = max(len(batches._remove_batch_dim(grad, level, 1, 0)) for grad in grads)
        rows = [batches._remove_batch_dim(grad, level, count, 0) for grad in grads]  # expanded if shared
        with suspended():
            results = [wrapped(ctx, *each) for each in zip(*rows, strict=True)]
            outputs = [None if each[0] is None else torch.stack(each) for each in zip(*results, strict=True)]
        return tuple(None if each is None else batches._add_batch_dim(each, 0, level) for each in outputs)

    return wrapped


def once_differentiable(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """Make a backward pass `one_by_one`, and let it raise when it is differentiated itself.

    PyTorch's decorator raises late, and not at all if the incoming gradient is a constant: saved tensors then count as
    constants too, and second derivatives miss a term.
    """

    @one_by_one
    @wraps(backward)
    def wrapped(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            problem = f"{backward.__module__} has no second derivatives"
            raise RuntimeError(f"{problem}: use backend=dense for attention, torch.func for other layers")
        return backward(ctx, *grads)

    return wrapped
