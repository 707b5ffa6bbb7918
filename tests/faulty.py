"""Faults that occur once, at the start of a run's eighth batch: ``callbacks.fault._target_=faulty.NAME``.

`tests/train/test_faults.py` copies this file next to the run, as a user's own module.
"""

import ctypes
import os
import resource
import signal
import time
from pathlib import Path

import torch
from pytorch_lightning import Callback

MARKER = Path("met")  # holds the time of the fault, and exists once it has occurred


class Fault(Callback):
    """Base class: ``happen`` is called once, on every process or on one rank."""

    rank: int | None = None

    def happen(self, trainer, task) -> None:
        raise NotImplementedError

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx) == (1, 2) and self.rank in (None, trainer.global_rank):
            if MARKER.exists():
                return
            MARKER.write_text(str(time.time()))
            self.happen(trainer, pl_module)


class Signal(Fault):
    def __init__(self, name: str) -> None:
        self.signum = signal.Signals[name]

    def happen(self, trainer, task) -> None:
        os.kill(os.getpid(), self.signum)


class KilledRank(Fault):
    rank = 1

    def happen(self, trainer, task) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class RaisingRank(Fault):
    rank = 1

    def happen(self, trainer, task) -> None:
        raise RuntimeError("a bug on one process")


class KilledWorker(Fault):
    def happen(self, trainer, task) -> None:
        os.kill(trainer.fit_loop._data_fetcher.combined_loader._iterator.iterators[0].gi_frame.f_locals["batches"]
                ._workers[0].pid, signal.SIGKILL)  # fmt: skip


class FullDisk(Fault):
    """Limits the size of files to 20 kB, less than a checkpoint."""

    def happen(self, trainer, task) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


class ReadOnly(Fault):
    """Makes the folder of checkpoints read-only, even for root, by dropping its capabilities."""

    def happen(self, trainer, task) -> None:
        os.chmod(trainer.checkpoint_callback.dirpath, 0o555)
        header, no_capabilities = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        ctypes.CDLL(None).capset(header, no_capabilities)  # see capset(2)


class KilledWriting(Fault):
    """Kills the process halfway through writing a checkpoint."""

    def happen(self, trainer, task) -> None:
        def save(contents, file) -> None:
            original(contents, file)
            file.truncate(file.tell() // 2)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        original, torch.save = torch.save, save


class NotANumber(Fault):
    def happen(self, trainer, task) -> None:
        torch.nn.init.constant_(task.net.blocks[0].attention.project_out.weight, torch.nan)


class Explodes(Fault):
    def happen(self, trainer, task) -> None:
        with torch.no_grad():
            task.net.head.mlp[-1].weight *= 1e9


class Memory(Fault):
    def happen(self, trainer, task) -> None:
        torch.empty(1 << 50, dtype=torch.uint8)
