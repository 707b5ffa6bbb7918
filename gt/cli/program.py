"""How a program starts and ends: without the seconds that go into looking for garbage among what it imports."""

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

from gt.errors import UserError

if TYPE_CHECKING:
    import torch


@contextmanager
def quick_exit() -> Iterator[None]:
    """Around a program: it exits without taking its modules apart, which takes seconds with PyTorch and Lightning.

    Threads, the other exit handlers and buffered output are done before, as ever. Output that nobody reads any more, as
    after ``| head``, ends it without a word. A character that the terminal's encoding lacks is written as its number.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python's own stderr; else it ends a run
    code = 1

    def leave() -> None:
        logging.shutdown()  # whose own handler was registered earlier, and would come later
        for stream in (sys.stdout, sys.stderr):
            with suppress(BrokenPipeError):
                stream.flush()
        os._exit(code)

    atexit.register(leave)
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


@contextmanager
def importing() -> Iterator[None]:
    """Around large imports: the garbage collector rests, and never looks at what there is by the end of the first."""
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # by the next a job of a sweep may have left what is to be collected
            gc.freeze()
        gc.enable()


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option of programs that load a checkpoint, see `gt.train.checkpoint.load`."""
    parser.add_argument("--trust", action="store_true", help="import parts that do not come with this program")


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option that `device_of` reads."""
    parser.add_argument("--device", help="such as cpu or cuda; a GPU where there is one")


def device_of(name: str | None) -> "torch.device":
    """The device of this name; without one a GPU where there is one.

    Raises:
        UserError: there is no such device, or this machine has no GPU.
    """
    import torch  # late: --help and a typo answer at once

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise UserError(f"there is no device '{name}': choose --device cpu or --device cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("this machine has no GPU: choose --device cpu")
    return device


def import_from_here() -> None:
    """Let parts of one's own be imported from the folder in which a program runs, however it was started."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
