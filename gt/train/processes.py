"""Distributed training on one machine: checks that each process has a core, and ends all processes together."""

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

from gt.data.machine import cpus, gpu_problem
from gt.errors import UserError
from gt.train.launch import single_job

POLL_INTERVAL = 0.2  # seconds between two checks of the other processes
GRACE = 3.0  # seconds for rank 0 to end by itself after another process is lost
SILENCE = 12.0  # seconds for which other ranks leave it to rank 0 to report an error and to end
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


def is_child() -> bool:
    """Whether another process of this run started this one."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def end_with_parent() -> None:
    """Have this process end as soon as its parent does, even by SIGKILL."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it has just ended
            os._exit(1)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_INTERVAL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def check_devices(accelerator: str, devices: Any) -> None:
    """Refuse a GPU if there is none, and more processes than CPU cores, which would wait for one another.

    Raises:
        UserError: there is no GPU, or PyTorch cannot use it, or there are too few cores.
    """
    import torch  # late: takes a second, but a child must watch its parent before

    if accelerator in ("auto", "gpu", "cuda") and (problem := gpu_problem()):  # Lightning would choose it by itself
        raise UserError(f"PyTorch cannot use this machine's GPU ({problem}): repair its driver, or choose trainer=cpu")
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError("trainer.accelerator asks for a GPU and this machine has none: choose trainer=cpu")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and str(devices).isdecimal() and int(devices) > cpus():
        raise UserError(f"trainer.devices={devices} is more processes than this machine has CPU cores: {cpus()}")


def has_unused_parameters(net: Any, batch: Any) -> bool:
    """Whether some parameters do not affect the output, such as those of the last layer's edge update.

    DDP waits for the gradients of all parameters, unless told to find those that never arrive.
    """
    import torch

    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    with torch.random.fork_rng(devices=[]):
        gradients = torch.autograd.grad(net.eval()(batch).sum(), parameters, allow_unused=True)
    net.train()
    return any(gradient is None for gradient in gradients)


class Watch(threading.Thread):
    """Monitors the processes that this one started: if one is lost, reports that in a line and ends all.

    Otherwise all would wait for the missing one, including this process, which gets some time to close its logs.

    Args:
        launcher: Lightning's launcher, which lists started processes as ``procs``. They are removed from that list, as
            it would otherwise silently kill this process up to five seconds after one of them is lost.
        folder: of the run.
    """

    def __init__(self, launcher: Any, folder: Path) -> None:
        super().__init__(daemon=True)
        self.launcher, self.folder = launcher, folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.over, self.lost = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(POLL_INTERVAL):
            started = getattr(self.launcher, "procs", [])
            self.processes += started
            started.clear()
            for rank, process in enumerate(self.processes, 1):
                code, name = process.poll(), f"process {rank} of {len(self.processes) + 1}"
                if code is not None and code < 0:
                    hint = ", possibly because memory ran out" if code == -signal.SIGKILL else ""
                    self._end_all(f"{name} was killed by {signal.Signals(-code).name}{hint}")
                # above 128: all were asked to stop; below, this process likely meets and reports the same error
                elif code and code < 128 and not self.over.wait(2 * GRACE):
                    self._end_all(f"{name} ended with exit code {code}")

    def _end_all(self, message: str) -> None:
        print(f"error: {message}; {self.advice()}", file=sys.stderr, flush=True)
        for process in self.processes:
            process.kill()
        self.lost.set()  # after the message, so that this process logs it before closing the log
        self.over.wait(GRACE)
        os._exit(1)

    def advice(self) -> str:
        """How to resume the run."""
        from gt.train.checkpoint_files import how_to_resume  # late: imports PyTorch, as above

        return how_to_resume(self.folder)

    def end(self, patience: float) -> None:
        """Wait up to ``patience`` seconds for each process to end by itself, then kill it."""
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
def ending_together(launcher: Any, folder: Path) -> Iterator[None]:
    """Context manager for distributed training: if one process fails, all end within seconds and one reports why.

    Args:
        launcher: Lightning's launcher.
        folder: of the run.
    """
    if is_child():
        try:
            yield
        except Exception:
            time.sleep(SILENCE)  # rank 0 meets the same error, or notices that this process is lost, and ends all
            raise
        return
    watch, patience = Watch(launcher, folder), 0.0
    watch.start()
    try:
        with single_job(folder):
            yield
        patience = SILENCE
    except Exception:
        if watch.processes and watch.lost.wait(5 * POLL_INTERVAL):  # the check may be late on a busy machine
            raise SystemExit(1) from None  # the error here is only that another process was lost
        if any(process.poll() for process in watch.processes):  # that process has reported the error
            print(watch.advice(), flush=True)
            raise SystemExit(1) from None
        raise
    finally:
        watch.end(patience)
