"""Signals: their handling while a process computes or waits for others, repeated signals, and forked processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import gt.train.interrupts
from gt.train.interrupts import SAME_SIGNAL, SIGNALS, Interrupted, interrupts, resumable

ROOT = Path(__file__).parents[2]
WAITS = """
from contextlib import nullcontext
from datetime import timedelta
from torch.distributed import TCPStore
from gt.train import interrupts
interrupts.UNHANDLED_AFTER = 0.2
with interrupts.interrupts.watched(), {}:
    print("waits", flush=True)
    TCPStore("127.0.0.1", 0, 2, True, timedelta(seconds=60))  # lets no handler run
"""


def test_second_signal_ends_a_long_computation():
    script = WAITS.replace('TCPStore("127.0.0.1", 0, 2, True, timedelta(seconds=60))', "long()").format("nullcontext()")
    code = "import numpy\n\n\ndef long():\n    numpy.linalg.eigvals(numpy.random.rand(3000, 3000))\n\n\n" + script
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        try:
            assert process.stdout.readline() == "waits\n"
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            time.sleep(1.5 * SAME_SIGNAL)
            process.send_signal(signal.SIGINT)
            assert process.wait(15) == 130
        finally:
            process.kill()
        assert process.stderr.read() == "stopped by SIGINT, asked twice\n"


@pytest.mark.parametrize(
    ("joining", "signum"),
    [
        pytest.param(joining, signum, marks=[] if joining == (index == 0) else pytest.mark.slow)
        for joining in (True, False)
        for index, signum in enumerate(SIGNALS)
    ],
)
def test_signal_ends_a_process_waiting_for_others(joining, signum):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    context = "interrupts.interrupts.joining()" if joining else "nullcontext()"
    with subprocess.Popen([sys.executable, "-c", WAITS.format(context)], cwd=ROOT, **pipes) as process:
        try:
            assert process.stdout.readline() == "waits\n"
            time.sleep(0.5)
            process.send_signal(signum)
            if not joining:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(1)
                process.send_signal(signum)
            assert process.wait(15) == 128 + signum
        finally:
            process.kill()
        when = "while other processes of this run had yet to join" if joining else "asked twice"
        assert f"stopped by {signum.name}, {when}\n" in process.stderr.read()


BUSY = """
import hashlib
import time
from gt.train import interrupts
interrupts.UNHANDLED_AFTER = 0.2
with interrupts.interrupts.watched():
    interrupts.interrupts.hold()
    print("works", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", {})  # as a long step does, it lets no handler run
    while interrupts.interrupts.pending is None:
        pass
    time.sleep(0.3)
print("saved", flush=True)
"""


@pytest.mark.parametrize(
    ("rounds", "other"), [(1, signal.SIGINT), pytest.param(4_000_000, signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_simultaneous_signals_count_as_one(rounds, other):
    """As when a terminal signals torchrun and its processes, and torchrun forwards the signal to them."""
    pipes = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", BUSY.format(rounds)], cwd=ROOT, **pipes) as process:
        try:
            assert process.stdout.readline() == "works\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
            process.send_signal(other)
            out, _ = process.communicate(timeout=15)
        finally:
            process.kill()
    assert (out, process.returncode) == ("saved\n", 0)


def sleep_after_start(started: Any) -> None:
    started.set()
    time.sleep(60)


def test_signal_to_forked_process_does_not_reach_parent(monkeypatch):
    monkeypatch.setattr(gt.train.interrupts, "UNHANDLED_AFTER", 0.1)
    context = multiprocessing.get_context("fork")
    with interrupts.watched(), interrupts.joining():
        started = context.Event()
        forked = context.Process(target=sleep_after_start, args=(started,))
        forked.start()
        assert started.wait(30)
        for _ in range(3):
            os.kill(forked.pid, signal.SIGTERM)
        time.sleep(0.5)
        assert interrupts.pending is None
        forked.kill()
        forked.join()
    assert signal.set_wakeup_fd(-1) == -1


def test_process_without_own_signal_stops_with_the_others(tmp_path):
    with pytest.raises(SystemExit) as stop, resumable(tmp_path):
        raise Interrupted(signal.SIGTERM)
    assert stop.value.code == 143
