"""Freed memory is kept by the process: a second use of it takes no new pages."""

import os
import subprocess
import sys

import pytest

ROUNDS, MIB = 20, 48  # from 32 MiB on glibc keeps no block of its own accord
PROGRAM = f"""
import resource, sys, torch
from gt.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):  # until the heap has a place for it
    torch.ones({MIB} * 2**18)
before = faults()
for _ in range({ROUNDS}):
    torch.ones({MIB} * 2**18)
print(faults() - before)
"""


def new_pages(word: str, **environment: str) -> int:
    """How many pages a program that fills and frees 48 MiB again and again is given once it has done so."""
    untuned = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, word]
    return int(subprocess.run(command, env=untuned | environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_a_second_use_of_freed_memory_takes_no_new_pages() -> None:
    assert new_pages("keep") < ROUNDS < new_pages("leave")


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_an_allocator_that_the_environment_tunes_is_left_as_it_is() -> None:
    always_mapped = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    assert new_pages("keep", **always_mapped) > ROUNDS
