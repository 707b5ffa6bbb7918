"""How programs end: soon, with the right exit code, and after all that was to be done before."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from gt.cli.program import importing

ROOT = Path(__file__).parents[2]
PROGRAM = """
import atexit, sys, threading, time
from gt.cli.program import quick_exit

class Loud:
    def __del__(self):
        print("taken apart")

kept = Loud()
with quick_exit():
    atexit.register(print, "handler")
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    print("said", end=" ")
    {last}
"""


@pytest.mark.parametrize(
    ("last", "code"),
    [("pass", 0), ("raise SystemExit", 0), ("raise SystemExit(143)", 143), ("raise SystemExit('words')", 1),
     ("raise ValueError('words')", 1)],
)  # fmt: skip
def test_a_program_ends_with_its_code_after_threads_and_handlers(last, code):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(last=last)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stdout.split() == ["said", "thread", "handler"]
    assert ("words" in done.stderr) == ("words" in last)


def test_a_character_that_the_terminal_lacks_ends_no_program():
    program = "from gt.cli.program import quick_exit\nwith quick_exit():\n    print('caf\\xe9 \\U0001f600')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, b"caf\xe9 \\U0001f600")


def test_what_a_job_leaves_before_the_next_imports_is_collected():
    class Network:
        def __init__(self):
            self.itself = self

    with importing():
        assert not gc.isenabled()
    network = weakref.ref(Network())
    with importing():
        pass
    gc.collect()
    assert network() is None
    assert gc.isenabled()
