"""What the system does to a training, in one line that says what to do: memory is short, or a process is gone."""

import errno
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from gt.data.datamodule import DataModule
from gt.errors import UserError

# PyTorch has no class for what its CPU allocator, or a library of a GPU, could not get
SHORT = re.compile(r"can't allocate memory|not enough memory|out of memory|ALLOC_FAILED", re.IGNORECASE)
WANTED = re.compile(r"tried to allocate ([\d.]+) (bytes|[KMGT]iB)", re.IGNORECASE)
GONE = re.compile(r"(closed|reset) by peer|remote process exited", re.IGNORECASE)  # as gloo and NCCL have it
WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)")


@contextmanager
def explained(data: DataModule) -> Iterator[None]:
    """Around training and testing on some data.

    Raises:
        UserError: memory was short, a process of the run is gone or never joined, or one that makes batches has raised
            one; other errors go through.
    """
    try:
        yield
    except Exception as error:
        text = str(error.args[0]) if error.args else ""
        if is_memory(error):
            raise UserError(_remedy(error, data)) from error
        if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
            raise UserError(_apart(text)) from error
        if isinstance(error, RuntimeError) and GONE.search(text):
            raise UserError(
                "another process of this run is gone: what it said last, or what started it, tells why"
            ) from error
        if gone := WORKER.match(text):
            reason = gone[2].strip().rstrip(".")
            raise UserError(
                f"a process that makes batches (pid {gone[1]}) {reason}: often for want of memory, of which a lower "
                f"data.workers (now {data.workers}) needs less"
            ) from error
        if isinstance(error, UserError) and text.startswith("Caught "):  # a worker's, with its traceback in it
            raise UserError(text.strip().splitlines()[-1].partition(": ")[2]) from error
        raise


def is_memory(error: Exception) -> bool:
    """Whether an error says that memory, that of a GPU too, is short."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and bool(SHORT.search(str(error)))
    )


def _apart(text: str) -> str:
    """Why processes have not met, by what PyTorch says of it."""
    host, port = (os.environ.get(name, "unset") for name in ("MASTER_ADDR", "MASTER_PORT"))
    if "address already in use" in text:
        return f"MASTER_PORT={port}: another program uses this port of this machine: choose another one"
    return f"the processes of this run have not met at MASTER_ADDR={host} MASTER_PORT={port}: {text.splitlines()[0]}"


def _remedy(error: Exception, data: DataModule) -> str:
    functions = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
    evaluating = bool(functions & {"validation_step", "test_step"})
    wanted = WANTED.search(str(error))
    unit = 1e9 if wanted and wanted[2].lower() == "bytes" else 1
    more = f" ({float(wanted[1]) / unit:,.3g} {'GB' if unit > 1 else wanted[2]} more were asked for)" if wanted else ""
    key = next((key for key in ("batch_nodes", "batch_size") if getattr(data, key, None)), None)
    if evaluating and hasattr(data, "eval_batch_size"):
        now = data.eval_batch_size or "null: up to twice a training batch"
        what = f"lower data.eval_batch_size (now {now})"
    elif key:
        what = f"lower data.{key} (now {getattr(data, key)})"
        if not evaluating:
            what += ", and raise trainer.accumulate_grad_batches as much for steps as large"
    else:
        what = "choose smaller samples of the graph by data/sampler"
    return f"out of memory in {'evaluation' if evaluating else 'training'}{more}: {what}"
