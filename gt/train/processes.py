"""Several processes that train as one: they start only where each has a core, and end together."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gt.data.machine import cpus
from gt.errors import UserError
from gt.train.launch import one_job

LOOK = 0.2  # seconds between two looks at the other processes
GRACE = 3.0  # seconds in which the first process may end by itself when another one is gone
SILENCE = 12.0  # seconds in which the others leave it to the first process to say what went wrong, and to end
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


def is_child() -> bool:
    """Whether another process of this run started this one."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def end_with_parent() -> None:
    """Let this process end at once when the one that started it does, however that ended: also by SIGKILL."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it ended just before
            os._exit(1)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def check_devices(accelerator: str, devices: Any) -> None:
    """Refuse a GPU where there is none, and more processes on CPUs than cores: they would all wait for one another.

    Raises:
        UserError: there is no GPU, or so many cores.
    """
    import torch  # takes a second, which a child has not before it must look after its parent

    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError("trainer.accelerator asks for a GPU and this machine has none: choose trainer=cpu")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and str(devices).isdecimal() and int(devices) > cpus():
        raise UserError(f"trainer.devices={devices} is more processes than this machine has CPU cores: {cpus()}")


def some_are_unread(net: Any, batch: Any) -> bool:
    """Whether a network has parameters without a part in what it says, such as the last layer's update of edges.

    Between processes, gradients are averaged as soon as all have come: a process must look for those that never will.
    """
    import torch

    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    with torch.random.fork_rng(devices=[]):
        gradients = torch.autograd.grad(net.eval()(batch).sum(), parameters, allow_unused=True)
    net.train()
    return any(gradient is None for gradient in gradients)


class Watch(threading.Thread):
    """Looks after the processes that this one started: when one is gone, says so in a line and ends all.

    Without it they would wait for the missing one, this process too. It may still end by itself, to close its logs.

    Args:
        launcher: Lightning's, whose ``procs`` are the processes once they are started. They are taken over from it: it
            would kill this process, without a word, up to five seconds after one of them is gone.
        folder: of the run.
    """

    def __init__(self, launcher: Any, folder: Path) -> None:
        super().__init__(daemon=True)
        self.launcher, self.folder = launcher, folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.over, self.lost = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(LOOK):
            started = getattr(self.launcher, "procs", [])
            self.processes += started
            started.clear()
            for rank, process in enumerate(self.processes, 1):
                code, name = process.poll(), f"process {rank} of {len(self.processes) + 1}"
                if code is not None and code < 0:
                    why = ", as systems do that run out of memory" if code == -signal.SIGKILL else ""
                    self._end(f"{name} was killed by {signal.Signals(-code).name}{why}")
                # above 128: all were asked to stop; below, this process most likely meets the same error and says so
                elif code and code < 128 and not self.over.wait(2 * GRACE):
                    self._end(f"{name} ended with exit code {code}")

    def _end(self, what: str) -> None:
        print(f"error: {what}; {self.advice()}", file=sys.stderr, flush=True)
        for process in self.processes:
            process.kill()
        self.lost.set()  # what is said is in the log, too, before the first process closes it
        self.over.wait(GRACE)
        os._exit(1)

    def advice(self) -> str:
        """How the run goes on."""
        from gt.train.checkpoint_files import how_to_resume  # with PyTorch, as above

        return how_to_resume(self.folder)

    def end(self, patience: float) -> None:
        """The processes are to end by themselves within so many seconds; those that have not are ended."""
        self.over.set()
        if not self.lost.is_set():
            self.join()
        for process in [*self.processes, *getattr(self.launcher, "procs", [])]:
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def together(launcher: Any, folder: Path) -> Iterator[None]:
    """What several processes do in step: when one fails, all end within seconds and one of them says why.

    Args:
        launcher: Lightning's.
        folder: of the run.
    """
    if is_child():
        try:
            yield
        except Exception:
            time.sleep(SILENCE)  # the first process meets the same error, or the lack of this one, and ends all
            raise
        return
    watch, patience = Watch(launcher, folder), 0.0
    watch.start()
    try:
        with one_job(folder):
            yield
        patience = SILENCE
    except Exception:
        if watch.processes and watch.lost.wait(5 * LOOK):  # on a busy machine it may look late
            raise SystemExit(1) from None  # what went wrong here is that another process is gone
        if any(process.poll() for process in watch.processes):  # it has said why
            print(watch.advice(), flush=True)
            raise SystemExit(1) from None
        raise
    finally:
        watch.end(patience)
