"""Whether PyTorch looks into what is computed: it then needs its own functions, not those with a backward of ours."""

from contextlib import AbstractContextManager

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether a transform of `torch.func`, or a derivative forward, goes through; of a compiler none is known."""
    if torch.compiler.is_compiling():  # which follows neither question; torch.export traces by such a transform itself
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def plain() -> bool:
    """Whether PyTorch's own functions are to be used alone: under those transforms, and where a compiler traces."""
    return torch.compiler.is_compiling() or transformed()


def outside() -> AbstractContextManager[object]:
    """Within it no transform of `torch.func` goes through what is computed: what a batch keeps outlives them."""
    return temporarily_clear_interpreter_stack()
