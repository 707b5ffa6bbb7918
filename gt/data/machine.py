"""The resources of this machine."""

import os

from gt.errors import first_line


def cpus() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """The total memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def has_gpu() -> bool:
    """Whether there is a GPU that PyTorch can use."""
    import torch  # late: takes a second

    return torch.cuda.is_available() and gpu_problem() is None


def gpu_problem() -> str | None:
    """Why PyTorch cannot use the GPU of this machine, such as an old driver; None if it can, or if there is none.

    `torch.cuda.is_available` is no answer: once Lightning is imported, it only counts the cards.
    """
    import torch

    if not torch.cuda.device_count():
        return None
    try:
        torch.cuda.init()
    except RuntimeError as error:
        return first_line(error).partition(". ")[0]
    return None
