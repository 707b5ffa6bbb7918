"""Runs in processes of their own, several at a time, each with its share of the CPU cores."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import IO

from gt.cli.config_files import CONFIGS
from gt.data.machine import cpus
from gt.train.processes import end_with_parent

TRAIN = CONFIGS.parent / "train.py"
LOOK = 0.2  # seconds between two looks at the processes


@dataclass
class Run:
    """A command line of ``train.py`` that runs, or has run.

    Attributes:
        name: what its caller knows it by.
        seconds: that it took.
        error: what was wrong with it, in a line; empty where it did what it should, None while it runs.
    """

    name: str
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    error: str | None = None

    def look(self) -> bool:
        """Whether it is over."""
        code = self.process.poll()
        if code is None:
            return False
        self.seconds = time.monotonic() - self.started
        self.said.seek(0)
        lines = [line for line in self.said.read().decode(errors="replace").splitlines() if line.strip()]
        of_signal = f"killed by {signal.Signals(-code).name}" if code < 0 else ""
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines
        self.error = (of_signal or (said or [f"exit code {code}"])[-1]) if code else ""
        self.said.close()
        return True


def start(name: str, arguments: Sequence[str], threads: int) -> Run:
    """A run that computes with so many threads, or as many as ``OMP_NUM_THREADS`` says where that is set.

    It ends when this process does, and Ctrl-C does not reach it.
    """
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    said = tempfile.TemporaryFile()  # noqa: SIM115  closed when the run is over
    process = subprocess.Popen(
        [sys.executable, str(TRAIN), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # a run keeps what it says in its folder
        stderr=said,
        start_new_session=True,
        preexec_fn=end_with_parent,  # this process has no other thread
    )
    return Run(name, process, said)


def run_all(runs: Sequence[tuple[str, Sequence[str]]], processes: int, look: Callable[[Run | None], None]) -> None:
    """Run command lines, each with its name, so many at a time.

    However this ends early, the runs are asked to stop, which saves their state, and have stopped.

    Args:
        look: is called with each run that has ended, and with None several times a second.
    """
    waiting, running = list(reversed(runs)), list[Run]()
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(start(*waiting.pop(), max(1, cpus() // processes)))
            time.sleep(LOOK)
            for run in [run for run in running if run.look()]:
                running.remove(run)
                look(run)
            look(None)
    finally:
        stop(running)


def stop(running: Sequence[Run]) -> None:
    """Ask the runs to stop and wait until they have; whoever asks this process once more has them killed."""
    for run in running:
        run.process.send_signal(signal.SIGTERM)
    try:
        for run in running:
            run.process.wait()
    except BaseException:
        for run in running:
            run.process.kill()
        raise


@contextmanager
def termination() -> Iterator[None]:
    """SIGTERM ends what is within as an exception does, with the exit code that shells have for it."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
