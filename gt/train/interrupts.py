"""Ends a run on Ctrl-C, SIGTERM or SIGUSR1: immediately, or in training once its exact state can be saved."""

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

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last from SLURM, shortly before the time limit
UNHANDLED_AFTER = 3.0  # seconds until a signal counts as unhandled: the process waits for others in PyTorch
SAME_SIGNAL = 0.5  # seconds within which signals count as one: torchrun forwards Ctrl+C to its processes


class Interrupted(BaseException):
    """A signal asked the run to stop. Not an ``Exception``, so that error handling does not catch it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Interrupts:
    """Turns signals into `Interrupted`, raised immediately or, while held, at the next call of `check` or `release`.

    A second signal ends the process at once, unless it arrives together with the first. Only rank 0 acts by itself:
    other ranks record the signal, and stop with all the others. Forked processes, such as data loading workers, ignore
    signals.

    Python handlers run between two instructions of the main thread, never while it waits within PyTorch for other
    processes. Another thread therefore ends this process if a second signal is not handled, or a first one while other
    processes have yet to join; it cannot tell waiting for others from a long computation.

    Attributes:
        pending: a received signal that has not been acted on yet, or for which the run is stopping.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._held = self._joining = False
        self._process, self._handled = 0, -math.inf

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Context manager that handles signals by this object; without effect outside of the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.pending, self._held, self._process, self._handled = None, False, os.getpid(), -math.inf
        handlers = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}
        reader, writer = os.pipe()  # to which Python's C handler writes the number of each signal
        os.set_blocking(writer, False)
        previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        listener = threading.Thread(target=self._listen, args=(reader,), daemon=True)
        listener.start()
        try:
            yield
        finally:
            for signum, handler in handlers.items():
                signal.signal(signum, handler)
            signal.set_wakeup_fd(previous_fd)
            os.write(writer, b"\0")
            listener.join()
            os.close(reader)
            os.close(writer)
            self.pending, self._process = None, 0

    @contextmanager
    def joining(self) -> Iterator[None]:
        """Context manager for waiting until the other processes of a run join; ending it loses nothing."""
        self._joining = True
        try:
            yield
        finally:
            self._joining = False

    def _listen(self, reader: int) -> None:
        """End this process if the main thread does not handle a signal; returns when a zero byte arrives."""
        last, repeated = -math.inf, False
        while number := os.read(reader, 1)[0]:
            now = time.monotonic()
            if number not in SIGNALS or now - last < SAME_SIGNAL:
                continue
            repeated, last = last > -math.inf, now
            if not (self._joining or repeated):
                continue
            time.sleep(UNHANDLED_AFTER)
            if self._handled < now - SAME_SIGNAL:
                context = "while other processes of this run had yet to join" if self._joining else "asked twice"
                os.write(2, f"stopped by {signal.Signals(number).name}, {context}\n".encode())
                os._exit(128 + number)

    def detach(self) -> None:
        """Called in a forked process, whose signals must not reach its parent."""
        if self._process:
            signal.set_wakeup_fd(-1)

    def hold(self) -> None:
        """From here on defer signals: `check` and `release` raise."""
        self._held = True

    def release(self) -> None:
        """From here on raise at once, also for a deferred signal."""
        self._held = False
        self.check()

    def check(self) -> None:
        """Raise if a signal is pending and this process acts by itself."""
        if self.pending is not None and not _is_follower():
            raise Interrupted(self.pending)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        previous, self._handled = self._handled, time.monotonic()
        if self.pending is not None:
            if self._handled - previous < SAME_SIGNAL:
                return
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self.pending = signum
        if not self._held:
            self.check()
        elif not _is_follower():  # bypassing Python's buffers, as the signal may have interrupted a write
            os.write(2, b"\nstopping after this batch (once more to stop at once) ...\n")


def _is_follower() -> bool:
    return getattr(rank_zero_only, "rank", 0) != 0


interrupts = Interrupts()  # the only instance, as signal handlers are global
os.register_at_fork(after_in_child=interrupts.detach)


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Context manager of a run: on a signal, prints how to resume and exits with 128 plus its number, as shells do.

    After SIGUSR1, as sent with ``#SBATCH --signal=USR1@120``, SLURM is asked to requeue the job. An error is passed on,
    after a line on how to resume if there is a checkpoint.

    Args:
        folder: of the run.
    """
    with interrupts.watched():
        try:
            yield
        except BaseException as error:
            if isinstance(error, Interrupted):  # raised on all ranks if one is asked to stop
                stop = error
            elif interrupts.pending is not None:
                stop = Interrupted(interrupts.pending)
            else:
                if isinstance(error, Exception) and present(folder / "checkpoints"):
                    rank_zero_only(print)(how_to_resume(folder), flush=True)
                raise
            if isinstance(error, Exception):  # after the signal: for example a full disk, or it killed a worker as well
                print(f"error: {first_line(error)}", file=sys.stderr, flush=True)
            advice = how_to_resume(folder)
            rank_zero_only(print)(f"{stop}; {advice}", flush=True)
            if stop.signum == signal.SIGUSR1 and present(folder / "checkpoints"):
                requeue()
            raise SystemExit(128 + stop.signum) from None


@rank_zero_only
def requeue() -> None:
    """Have SLURM requeue the job of this process; without SLURM do nothing."""
    job = os.environ.get("SLURM_JOB_ID")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if job is None:
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=30)
        print(f"SLURM job {job} is requeued", flush=True)
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        print(f"SLURM job {job} is not requeued: {reason}", flush=True)


def without_handlers(trainer: Any) -> None:
    """Disable Lightning's signal handlers, which would end the run without saving its state and with exit code 0.

    While Lightning waits for all processes to join, `Interrupts.joining` is active.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None
    join = trainer.strategy.setup_environment

    def setup_environment() -> None:
        with interrupts.joining():
            join()

    trainer.strategy.setup_environment = setup_environment
