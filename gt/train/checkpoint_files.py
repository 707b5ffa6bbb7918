"""Checkpoint files: written whole or not at all, and held against their checksums when they are read."""

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

LAST = "last.ckpt"  # where training stands
PREVIOUS = "previous.ckpt"  # the last one before; those before it are previous-2.ckpt, previous-3.ckpt, ...
BEST = "best.ckpt"
DAMAGED = ".damaged"  # what a file that cannot be read is called from then on


def write(checkpoint: dict[str, Any], path: Path, older: Sequence[Path] = ()) -> None:
    """Write a checkpoint whole or not at all: beside its place, through to the disk, and then moved there.

    Args:
        older: where the files that stood in its place are kept, the newest first; the last one's is written over.

    Raises:
        UserError: the disk is full, or may not be written to; what was there before is as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable(part) as file:
            torch.save(checkpoint, file)
        moves = takewhile(lambda move: move[0].exists(), pairwise([path, *older]))  # up to a gap, which takes one
        for newer, place in reversed(list(moves)):
            os.replace(newer, place)
        os.replace(part, path)
        sync(path.parent)
    except (OSError, RuntimeError) as error:
        reason = _of_system(error)
        if reason is None:
            raise
        raise UserError(f"{path} cannot be written: {reason.strerror or reason}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _of_system(error: BaseException | None) -> OSError | None:
    """What the system said: PyTorch raises an error of its own over it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def read(path: Path) -> dict[str, Any]:
    """A run's checkpoint, on the CPU, see `load`.

    Raises:
        UserError: there is none, it is not what was written, or another program wrote it.
    """
    saved = load(path)
    missing = {"state_dict", "hyper_parameters"} - (saved.keys() if isinstance(saved, dict) else set())
    if missing:
        raise UserError(f"{path} is not a checkpoint of this program: it has no {min(missing)}")
    return saved


def load(path: Path) -> Any:
    """What PyTorch wrote into a file, on the CPU. Nothing is unpickled but tensors and plain containers.

    Raises:
        UserError: there is none, it is not what was written, or another program wrote it.
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
    """Hold a file against the checksums in it: PyTorch writes them and does not read them."""
    with open(path, "rb") as file:
        start = file.read(4)
    if not start:
        raise UserError(f"{path} is empty: it was not written by this program, or cut short since")
    if start != b"PK\x03\x04":
        raise UserError(f"{path} is not a checkpoint of this program: it does not begin as PyTorch's files do")
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} is damaged or cut short: {first_line(error)}") from error
    if wrong is not None:
        raise UserError(f"{path} is damaged: {wrong} in it is not what was written")


def older(folder: Path, keep: int) -> list[Path]:
    """Where the last ``keep`` checkpoints of a run are kept, but for the last one's: the newest first."""
    return [folder / PREVIOUS, *(folder / f"previous-{n}.ckpt" for n in range(2, keep))][: keep - 1]


def present(folder: Path) -> list[Path]:
    """The checkpoints of a run's folder of them that a run can go on from, the newest first."""
    before = sorted(folder.glob("previous-*.ckpt"), key=lambda path: (len(path.name), path.name))
    return [path for path in (folder / LAST, folder / PREVIOUS, *before, folder / BEST) if path.exists()]


def how_to_resume(folder: Path) -> str:
    """What to do about a run in a folder that ended too early, for the end of a line."""
    if present(folder / "checkpoints"):
        return f"go on with: python train.py resume={shlex.quote(str(folder))}"
    return "it has no checkpoint to go on from: start anew"


def newest(folder: Path) -> Path:
    """The checkpoint of a run's folder of them to go on from: the newest that is whole.

    One that is not is said, and set aside under another name.

    Raises:
        UserError: none is whole.
    """
    paths, reasons = present(folder), []
    for path in paths:
        try:
            read(path)
        except UserError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            rank_zero_only(print)(f"{reason}; going on from {path.name}, the one before", flush=True)
        for broken in paths[: len(reasons)]:
            _set_aside(broken)
        return path
    if reasons:
        raise UserError(f"{reasons[0]}; no other checkpoint is there to go on from")
    raise UserError(f"no checkpoint in {folder}: the run stopped before its first; start anew")


@rank_zero_only
def _set_aside(path: Path) -> None:
    os.replace(path, path.with_name(path.name + DAMAGED))


@rank_zero_only
def clean(folder: Path) -> None:
    """Remove what a process that was killed while it wrote left behind."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
