"""Fast start and exit of programs, and the command-line options that they share."""

import argparse
import atexit
import gc
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from gt.data.machine import gpu_problem, has_gpu
from gt.errors import UserError
from gt.schema import pluralise

if TYPE_CHECKING:
    import torch


@contextmanager
def quick_exit() -> Iterator[None]:
    """Run a program and exit without tearing down its modules, which takes seconds with PyTorch and Lightning.

    Threads are joined, other exit handlers run and buffers are flushed first, as usual. If nobody reads the output any
    more, as after ``| head``, the program ends silently. Characters that the terminal cannot encode are escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as for stderr; otherwise one character ends a run
    code = 1

    def flush_and_exit() -> None:
        logging.shutdown()  # its own exit handler, registered earlier, would run later
        for stream in (sys.stdout, sys.stderr):
            with suppress(BrokenPipeError):
                stream.flush()
        os._exit(code)

    atexit.register(flush_and_exit)
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


@contextmanager
def importing() -> Iterator[None]:
    """Pause the garbage collector during large imports; objects alive after the first are frozen, never scanned."""
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # later, objects of a finished sweep job must stay collectable
            gc.freeze()
        gc.enable()


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust``, for programs that load a checkpoint, see `gt.train.checkpoint.load`."""
    parser.add_argument("--trust", action="store_true", help="import parts that do not come with this program")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, see `device_of`."""
    parser.add_argument("--device", help="such as cpu or cuda; default: a GPU if there is one")


def device_of(name: str | None) -> "torch.device":
    """The device of this name; by default a GPU if there is one.

    Raises:
        UserError: there is no such device, or this machine has no GPU, or none that PyTorch can use.
    """
    import torch  # late: --help and a typo answer at once

    try:
        device = torch.device(name or ("cuda" if has_gpu() else "cpu"))
    except RuntimeError:
        raise UserError(f"there is no device '{name}': choose --device cpu or --device cuda") from None
    if device.type == "cuda" and (problem := gpu_problem()):
        raise UserError(f"PyTorch cannot use this machine's GPU ({problem}): repair its driver, or choose --device cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("this machine has no GPU: choose --device cpu")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"there is no device '{name}': this machine has {pluralise(count, 'GPU')}, numbered from 0")
    return device


def import_from_here() -> None:
    """Make custom parts importable from the working directory, however the program was started."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
