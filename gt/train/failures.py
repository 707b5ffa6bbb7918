"""Turns system failures during training (out of memory, lost processes) into one-line messages with advice."""

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

# PyTorch has no exception class for failures of its CPU allocator and of GPU libraries
OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|ALLOC_FAILED", re.IGNORECASE)
REQUESTED = re.compile(r"tried to allocate ([\d.]+) (bytes|[KMGT]iB)", re.IGNORECASE)
PEER_LOST = re.compile(r"(closed|reset) by peer|remote process exited", re.IGNORECASE)  # messages of gloo and NCCL
WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)")


@contextmanager
def explained(data: DataModule) -> Iterator[None]:
    """Context manager that explains failures of training and testing; other exceptions are passed on.

    Raises:
        UserError: memory ran out, a process of the run was lost or never joined, or a data loading worker failed.
    """
    try:
        yield
    except Exception as error:
        text = str(error.args[0]) if error.args else ""
        if is_memory(error):
            raise UserError(_memory_advice(error, data)) from error
        if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
            raise UserError(_connection_failure(text)) from error
        if isinstance(error, RuntimeError) and PEER_LOST.search(text):
            raise UserError(
                "another process of this run was lost: see its last output, or that of its launcher, for the reason"
            ) from error
        if worker := WORKER.match(text):
            reason = worker[2].strip().rstrip(".")
            raise UserError(
                f"a data loading worker (pid {worker[1]}) {reason}: often because memory ran out; a lower "
                f"data.workers (now {data.workers}) needs less"
            ) from error
        if isinstance(error, UserError) and text.startswith("Caught "):  # from a worker, including its traceback
            raise UserError(text.strip().splitlines()[-1].partition(": ")[2]) from error
        raise


def is_memory(error: Exception) -> bool:
    """Whether an exception means that memory, of the host or of a GPU, ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and bool(OUT_OF_MEMORY.search(str(error)))
    )


def _connection_failure(text: str) -> str:
    """Why the processes could not connect, from PyTorch's error message."""
    host, port = (os.environ.get(name, "unset") for name in ("MASTER_ADDR", "MASTER_PORT"))
    if "address already in use" in text:
        return f"MASTER_PORT={port}: this port is used by another program: choose another one"
    return f"the processes of this run did not meet at MASTER_ADDR={host} MASTER_PORT={port}: {text.splitlines()[0]}"


def _memory_advice(error: Exception, data: DataModule) -> str:
    functions = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
    evaluating = bool(functions & {"validation_step", "test_step"})
    match = REQUESTED.search(str(error))
    unit = 1e9 if match and match[2].lower() == "bytes" else 1
    amount = f" ({float(match[1]) / unit:,.3g} {'GB' if unit > 1 else match[2]} more were requested)" if match else ""
    key = next((key for key in ("batch_nodes", "batch_size") if getattr(data, key, None)), None)
    if evaluating and hasattr(data, "eval_batch_size"):
        current = data.eval_batch_size or "null: up to twice a training batch"
        advice = f"lower data.eval_batch_size (now {current})"
    elif key:
        advice = f"lower data.{key} (now {getattr(data, key)})"
        if not evaluating:
            advice += ", and raise trainer.accumulate_grad_batches accordingly to keep the global batch size"
    else:
        advice = "choose smaller samples of the graph by data/sampler"
    return f"out of memory in {'evaluation' if evaluating else 'training'}{amount}: {advice}"
