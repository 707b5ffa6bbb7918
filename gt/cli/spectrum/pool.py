"""A pool of training processes, which share the CPU cores."""

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
POLL_INTERVAL = 0.2  # seconds


@dataclass
class Run:
    """A process of ``train.py``, running or ended.

    Attributes:
        name: chosen by the caller.
        seconds: duration, once it has ended.
        error: one line if it failed, empty if it succeeded, None while it runs.
    """

    name: str
    process: subprocess.Popen[bytes]
    stderr: IO[bytes]
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    error: str | None = None

    def poll(self) -> bool:
        """Whether the process has ended; if so, sets ``seconds`` and ``error``."""
        code = self.process.poll()
        if code is None:
            return False
        self.seconds = time.monotonic() - self.started
        self.stderr.seek(0)
        lines = [line for line in self.stderr.read().decode(errors="replace").splitlines() if line.strip()]
        signal_text = f"killed by {signal.Signals(-code).name}" if code < 0 else ""
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines
        self.error = (signal_text or (errors or [f"exit code {code}"])[-1]) if code else ""
        self.stderr.close()
        return True


def start(name: str, arguments: Sequence[str], threads: int) -> Run:
    """Start a run with a number of threads, unless ``OMP_NUM_THREADS`` is set.

    It ends with this process, and Ctrl-C does not reach it.
    """
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed when the run has ended
    process = subprocess.Popen(
        [sys.executable, str(TRAIN), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the run keeps a log in its folder
        stderr=stderr,
        start_new_session=True,
        preexec_fn=end_with_parent,  # safe, as this process has no other thread
    )
    return Run(name, process, stderr)


def run_all(runs: Sequence[tuple[str, Sequence[str]]], processes: int, on_poll: Callable[[Run | None], None]) -> None:
    """Run named command lines in up to ``processes`` parallel processes.

    If this is interrupted, the runs are asked to stop, which saves their state, and are waited for.

    Args:
        on_poll: called with each run that has ended, and with None at every poll.
    """
    waiting, running = list(reversed(runs)), list[Run]()
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(start(*waiting.pop(), max(1, cpus() // processes)))
            time.sleep(POLL_INTERVAL)
            for run in [run for run in running if run.poll()]:
                running.remove(run)
                on_poll(run)
            on_poll(None)
    finally:
        stop(running)


def stop(running: Sequence[Run]) -> None:
    """Ask the runs to stop and wait for them; a further interruption kills them."""
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
    """Turn SIGTERM into SystemExit with the exit code 143, as in shells."""

    def exit_by_signal(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    previous = signal.signal(signal.SIGTERM, exit_by_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
