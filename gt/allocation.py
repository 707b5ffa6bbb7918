"""Keep freed memory in the process, as memory from the system has to be zeroed again at every step."""

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
TRIM_BYTES = 2**31 - 1  # free bytes at the end of the heap below which none are returned to the system
MMAP_BYTES = 2**30  # larger allocations still get their own mapping, unmapped when freed


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, which makes a training step on a CPU 10 to 20 % faster.

    Otherwise large tensors are mapped and unmapped at every step, and Linux zeroes each page on first use. Does nothing
    with another allocator, or if the environment tunes glibc's.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(MMAP_THRESHOLD, MMAP_BYTES)
        mallopt(TRIM_THRESHOLD, TRIM_BYTES)
