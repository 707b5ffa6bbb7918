"""Checkpoint files: written atomically, and verified by their checksums when read."""

import os
import shlex
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import torch

from gt.data.files import durable, sync
from gt.errors import UserError, first_line
from gt.ranks import rank_zero_only

LAST = "last.ckpt"  # the current state of training
PREVIOUS = "previous.ckpt"  # the one before; older ones are previous-2.ckpt, previous-3.ckpt, ...
BEST = "best.ckpt"
DAMAGED = ".damaged"  # suffix given to unreadable files


def write(checkpoint: dict[str, Any], path: Path, older: Sequence[Path] = ()) -> None:
    """Write a checkpoint atomically: to a temporary file, synced to disk and then moved into place.

    Args:
        older: paths to which the previous checkpoints are shifted, newest first; the last one is overwritten.

    Raises:
        UserError: the disk is full or not writable; existing files are unchanged.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable(part) as file:
            torch.save(checkpoint, file)
        moves = takewhile(lambda move: move[0].exists(), pairwise([path, *older]))  # up to the first unused path
        for source, target in reversed(list(moves)):
            os.replace(source, target)
        os.replace(part, path)
        sync(path.parent)
    except (OSError, RuntimeError) as error:
        reason = _system_error(error)
        if reason is None:
            raise
        raise UserError(f"{path} cannot be written: {reason.strerror or reason}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _system_error(error: BaseException | None) -> OSError | None:
    """The underlying system error, which PyTorch wraps in an exception of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def read(path: Path) -> dict[str, Any]:
    """Read a run's checkpoint onto the CPU, see `load`.

    Raises:
        UserError: it is missing, damaged, or not a checkpoint of this program.
    """
    saved = load(path)
    missing = {"state_dict", "hyper_parameters"} - (saved.keys() if isinstance(saved, dict) else set())
    if missing:
        raise UserError(f"{path} is not a checkpoint of this program: it has no {min(missing)}")
    return saved


def load(path: Path) -> Any:
    """Read a file of PyTorch's onto the CPU. Only tensors and plain containers are unpickled.

    Raises:
        UserError: it is missing, damaged, or not a checkpoint of this program.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    try:
        _verify(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} is not a checkpoint of this program: {first_line(error)}") from error


def _verify(path: Path) -> None:
    """Verify the checksums in a file, which PyTorch writes but does not check."""
    with open(path, "rb") as file:
        start = file.read(4)
    if not start:
        raise UserError(f"{path} is empty: it was not written by this program, or has been truncated")
    if start != b"PK\x03\x04":
        raise UserError(f"{path} is not a checkpoint of this program: it does not begin like a PyTorch file")
    try:
        with zipfile.ZipFile(path) as archive:
            corrupt = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} is damaged or truncated: {first_line(error)}") from error
    if corrupt is not None:
        raise UserError(f"{path} is damaged: the checksum of {corrupt} is wrong")


def older(folder: Path, keep: int) -> list[Path]:
    """Paths of the last ``keep`` checkpoints of a run other than the latest, newest first."""
    return [folder / PREVIOUS, *(folder / f"previous-{n}.ckpt" for n in range(2, keep))][: keep - 1]


def present(folder: Path) -> list[Path]:
    """The checkpoints in a folder that a run can resume from, newest first."""
    numbered = sorted(folder.glob("previous-*.ckpt"), key=lambda path: (len(path.name), path.name))
    return [path for path in (folder / LAST, folder / PREVIOUS, *numbered, folder / BEST) if path.exists()]


def how_to_resume(folder: Path) -> str:
    """Advice on how to continue a run that was interrupted, as the end of a message."""
    if present(folder / "checkpoints"):
        return f"resume with: python train.py resume={shlex.quote(str(folder))}"
    return "it has no checkpoint to resume from: start a new run"


def newest(folder: Path) -> Path:
    """The newest intact checkpoint in a folder.

    Damaged ones are reported and renamed.

    Raises:
        UserError: there is no intact checkpoint.
    """
    paths, reasons = present(folder), []
    for path in paths:
        try:
            read(path)
        except UserError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            rank_zero_only(print)(f"{reason}; resuming from {path.name}, the one before", flush=True)
        for damaged in paths[: len(reasons)]:
            _set_aside(damaged)
        return path
    if reasons:
        raise UserError(f"{reasons[0]}; there is no other checkpoint to resume from")
    raise UserError(f"no checkpoint in {folder}: the run stopped before its first: start a new run")


@rank_zero_only
def _set_aside(path: Path) -> None:
    os.replace(path, path.with_name(path.name + DAMAGED))


@rank_zero_only
def clean(folder: Path) -> None:
    """Remove incomplete files of processes that were killed while writing."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
