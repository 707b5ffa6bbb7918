"""Ctrl-C, SIGTERM, SIGUSR1 end a run at any moment: at once, or, in training, once its state can be saved exactly."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from gt.errors import first_line
from gt.train.checkpoint_files import how_to_resume, present

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last from SLURM, whose time is nearly over
UNHEARD = 3.0  # seconds after which a signal is not heard: the process waits for others in a call that no handler ends
TOGETHER = 0.5  # seconds within which signals are one: Ctrl+C reaches torchrun and what it started, and it passes it on


class Interrupted(BaseException):
    """A signal asked the run to stop. No ``Exception``: nothing that mends errors should take it for one."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Interrupts:
    """Turns signals into `Interrupted`, raised at once or, while it is held, by whoever holds it.

    A second signal ends the process at once, unless it comes together with the first. Of several processes only the
    first acts by itself: the others note the signal, stop where all stop and end with the first. A forked process, such
    as one that makes batches, ignores it.

    Handlers run between two instructions of the main thread, never while it waits within PyTorch for other processes.
    Another thread ends this process where a second signal is not heard, or one while the others have yet to join; it
    cannot tell a wait for others from a long computation.

    Attributes:
        pending: the signal that came, and that nothing has acted on yet or that the run is stopping for.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._held = self._joining = False
        self._process, self._heard = 0, -math.inf

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Signals that come within are this object's. Only the main thread of a program may receive them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.pending, self._held, self._process, self._heard = None, False, os.getpid(), -math.inf
        before = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}
        source, told = os.pipe()  # to which the system's own handler writes each signal
        os.set_blocking(told, False)
        other = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        listener = threading.Thread(target=self._listen, args=(source,), daemon=True)
        listener.start()
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
            signal.set_wakeup_fd(other)
            os.write(told, b"\0")
            listener.join()
            os.close(source)
            os.close(told)
            self.pending, self._process = None, 0

    @contextmanager
    def joining(self) -> Iterator[None]:
        """Around the wait for the other processes of a run to join this one: nothing is lost by ending it."""
        self._joining = True
        try:
            yield
        finally:
            self._joining = False

    def _listen(self, source: int) -> None:
        """End this process where the main thread hears no signal, until a zero comes."""
        last, several = -math.inf, False
        while number := os.read(source, 1)[0]:
            now = time.monotonic()
            if number not in SIGNALS or now - last < TOGETHER:
                continue
            several, last = last > -math.inf, now
            if not (self._joining or several):
                continue
            time.sleep(UNHEARD)
            if self._heard < now - TOGETHER:
                when = "while other processes of this run had yet to join" if self._joining else "asked twice"
                os.write(2, f"stopped by {signal.Signals(number).name}, {when}\n".encode())
                os._exit(128 + number)

    def leave(self) -> None:
        """In a forked process: its signals are no news to the one that it comes from."""
        if self._process:
            signal.set_wakeup_fd(-1)

    def hold(self) -> None:
        """From here on a signal waits: `check` and `release` raise."""
        self._held = True

    def release(self) -> None:
        """From here on a signal, also one that waited, raises at once."""
        self._held = False
        self.check()

    def check(self) -> None:
        """Raise if a signal waits and this process is one that acts by itself."""
        if self.pending is not None and not _follows():
            raise Interrupted(self.pending)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        before, self._heard = self._heard, time.monotonic()
        if self.pending is not None:
            if self._heard - before < TOGETHER:
                return
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self.pending = signum
        if not self._held:
            self.check()
        elif not _follows():  # written past Python's buffers, which the signal may have found in the middle of a write
            os.write(2, b"\nstopping after this batch (once more to stop at once) ...\n")


def _follows() -> bool:
    return getattr(rank_zero_only, "rank", 0) != 0


interrupts = Interrupts()  # a process has one set of signals
os.register_at_fork(after_in_child=interrupts.leave)


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Around a run: a signal ends the program with 128 plus its number, as shells have it, and a line how to go on.

    After SIGUSR1, that of ``#SBATCH --signal=USR1@120``, SLURM is told to queue the job again. An error goes through,
    after a line how to go on where there is a checkpoint.

    Args:
        folder: the run's.
    """
    with interrupts.watched():
        try:
            yield
        except BaseException as error:
            if isinstance(error, Interrupted):  # where one process is asked to stop all raise it
                stop = error
            elif interrupts.pending is not None:
                stop = Interrupted(interrupts.pending)
            else:
                if isinstance(error, Exception) and present(folder / "checkpoints"):
                    rank_zero_only(print)(how_to_resume(folder), flush=True)
                raise
            if isinstance(error, Exception):  # after the signal came: the disk is full, or batches' maker got it too
                print(f"error: {first_line(error)}", file=sys.stderr, flush=True)
            advice = how_to_resume(folder)
            rank_zero_only(print)(f"{stop}; {advice}", flush=True)
            if stop.signum == signal.SIGUSR1 and present(folder / "checkpoints"):
                requeue()
            raise SystemExit(128 + stop.signum) from None


@rank_zero_only
def requeue() -> None:
    """Have SLURM queue the job that this process is of once more; without SLURM do nothing."""
    job = os.environ.get("SLURM_JOB_ID")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if job is None:
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=30)
        print(f"SLURM job {job} is queued again", flush=True)
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        print(f"SLURM job {job} is not queued again: {reason}", flush=True)


def without_handlers(trainer: Any) -> None:
    """Keep Lightning from wrapping the handlers: its own end the run where no state is saved, with exit code 0.

    Where it waits until all processes have joined, see `Interrupts.joining`.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None
    join = trainer.strategy.setup_environment

    def setup_environment() -> None:
        with interrupts.joining():
            join()

    trainer.strategy.setup_environment = setup_environment
