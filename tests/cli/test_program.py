"""How programs exit: with the right code, after threads and exit handlers; and garbage collection during imports."""

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
def test_exit_code_after_threads_and_handlers(last, code):
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(last=last)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == code
    assert process.stdout.split() == ["said", "thread", "handler"]
    assert ("words" in process.stderr) == ("words" in last)


def test_unencodable_characters_are_escaped():
    program = "from gt.cli.program import quick_exit\nwith quick_exit():\n    print('caf\\xe9 \\U0001f600')"
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stdout.strip()) == (0, b"caf\xe9 \\U0001f600")


def test_objects_of_earlier_jobs_stay_collectable():
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
