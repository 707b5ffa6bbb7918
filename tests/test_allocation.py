"""keep_freed_memory: reusing freed memory causes no page faults."""

import os
import subprocess
import sys

import pytest

ROUNDS, MIB = 20, 48  # glibc by itself never keeps freed blocks of 32 MiB or more
PROGRAM = f"""
import resource, sys, torch
from gt.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):  # until the heap has grown
    torch.ones({MIB} * 2**18)
before = faults()
for _ in range({ROUNDS}):
    torch.ones({MIB} * 2**18)
print(faults() - before)
"""


def page_faults(mode: str, **environment: str) -> int:
    """The page faults of a program that repeatedly fills and frees 48 MiB, after a warm-up."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, mode]
    return int(subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="requires glibc")
def test_reused_memory_causes_no_page_faults() -> None:
    assert page_faults("keep") < ROUNDS < page_faults("leave")


@pytest.mark.skipif(sys.platform != "linux", reason="requires glibc")
def test_allocator_tuned_by_environment_is_left_alone() -> None:
    always_mapped = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    assert page_faults("keep", **always_mapped) > ROUNDS
