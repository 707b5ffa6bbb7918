"""Atomic file writes, checksums, and locks between processes."""

import errno
import fcntl
import json
import os
import re
import shlex
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from gt.errors import UserError
from gt.ranks import is_first

FORMAT = 2  # raise when the layout on disk changes: older files are then made again
FULL_CHECK_LIMIT = 256 * 2**20  # bytes up to which contents are verified on every open: 0.15 s with two cores
BLOCK_SIZE = 2**20  # part of the format: another size gives other checksums
THREADS = 8
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or the user's quota, is full
MAX_LISTED = 3  # stores named in a message

Seal = dict[str, int]


class Damaged(UserError):
    """A file on disk has changed, or was written by another version; the message says which."""


def print_line(line: str) -> None:
    """Print a line, on the first process of a distributed run only.

    It is written in one call, including the line end, so that lines of processes sharing a terminal never mix.
    """
    if is_first():
        print(f"{line}\n", end="", flush=True)


@contextmanager
def writing(folder: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Convert failures to write to a folder into a one-line error; ``needed`` returns the bytes needed.

    Raises:
        UserError: the disk is full, or the folder is not writable.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            problem = f"no space left in {folder}, at least {needed() / 1e6:,.1f} MB are needed: free some"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            problem = f"cannot write to {folder} ({error.strerror}): change its permissions"
        else:
            raise
        raise UserError(f"{problem}, or set data.root to another folder") from None


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold ``path`` as a lock between processes; the system releases it if its holder dies.

    Raises:
        UserError: the folder is not writable.
    """
    with writing(path.parent, lambda: 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # another user's file in a shared folder: read access suffices on most disks
            handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print_line(f"waiting for another process that builds {path.stem}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync(folder: Path) -> None:
    """Flush the directory entries of a folder to disk, to survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    with suppress(OSError):  # not supported by every file system
        os.fsync(handle)
    os.close(handle)


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, flushed to disk when closed."""
    with open(path, "wb") as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which appears at ``path`` once it is complete. Not for concurrent writers: hold a `lock`.

    Raises:
        UserError: the path is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} for {path.name}: create it, or choose another path")
    part = path.with_name(path.name + ".part")
    try:
        with durable(part) as handle:
            yield handle
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_FULL and error.filename is None:
            error.filename = str(path)  # a failed write does not report the path
        raise
    sync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically, see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content)


def discard(path: Path) -> None:
    """Remove a file, or a folder with its contents, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def mention_others(store: Path) -> None:
    """Print how many stores of the same name but another key are kept beside one, their size, and how to remove them.

    Names at most `MAX_LISTED` of them, the oldest.
    """
    name, _, key = store.name.rpartition("-")
    pattern = re.compile(rf"{re.escape(name)}-[0-9a-f]{{{len(key)}}}")
    others, size = [], 0
    for path in store.parent.iterdir():
        if pattern.fullmatch(path.name) and path != store:
            with suppress(FileNotFoundError):  # another process may be removing it
                others.append((path.stat().st_mtime_ns, path))
                size += sum(file.stat().st_size for file in path.glob("*"))
    if others:
        summary = f"{len(others)} other store{'' if len(others) == 1 else 's'} of {name} ({size / 1e6:,.1f} MB)"
        examples = f", such as the {MAX_LISTED} oldest" if len(others) > MAX_LISTED else ""
        paths = shlex.join(str(path) for _, path in sorted(others)[:MAX_LISTED])
        print_line(
            f"{summary}, made from other files or settings; remove those no longer needed{examples}: rm -r {paths}"
        )


def checksum(path: Path) -> int:
    """CRC-32 of the CRC-32s of a file's blocks of `BLOCK_SIZE` bytes, computed by several threads."""
    # read, not memory-mapped: a bad sector then raises an error instead of killing the process
    with open(path, "rb", buffering=0) as handle, ThreadPoolExecutor(THREADS) as pool:
        number, starts = handle.fileno(), range(0, os.fstat(handle.fileno()).st_size, BLOCK_SIZE)
        sums = (pool.map if len(starts) > 1 else map)(
            lambda start: zlib.crc32(os.pread(number, BLOCK_SIZE, start)), starts
        )
        return zlib.crc32(b"".join(each.to_bytes(4, "little") for each in sums))


def seal(path: Path) -> Seal:
    """The size, modification time and checksum of a file, for `check`."""
    stat = path.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "crc32": checksum(path)}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert read errors of the disk into `Damaged`."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise Damaged(f"is damaged ({path.name}: {error.strerror})") from None


def check(path: Path, sealed: Mapping[str, int], fully: bool) -> None:
    """Compare a file with its seal: its contents if ``fully`` or if it was modified since, else only its size.

    Raises:
        Damaged: the file has changed.
    """
    if not path.is_file():
        raise Damaged(f"is damaged ({path.name} is missing)")
    with reading(path):
        stat = path.stat()
        if stat.st_size != sealed["bytes"]:
            raise Damaged(f"is damaged ({path.name}: {stat.st_size:,} bytes instead of {sealed['bytes']:,})")
        # reading many gigabytes in full would take too long at the start of a run
        if (fully or stat.st_mtime_ns != sealed["mtime_ns"]) and checksum(path) != sealed["crc32"]:
            raise Damaged(f"is damaged ({path.name}: contents changed)")


def _text(metadata: Mapping[str, Any]) -> bytes:
    return json.dumps(metadata, indent=1).encode()


def write_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Write JSON values atomically, with the format version and a checksum."""
    metadata = {"format": FORMAT, **metadata}
    write_bytes(path, _text({**metadata, "checksum": zlib.crc32(_text(metadata))}))


def read_metadata(path: Path) -> dict[str, Any]:
    """Read what `write_metadata` wrote.

    Raises:
        Damaged: the file has another format, or has changed.
        FileNotFoundError: there is no file.
    """
    with reading(path):
        raw = path.read_bytes()
    try:
        metadata = json.loads(raw)
    except ValueError:
        raise Damaged(f"is damaged ({path.name} is not JSON)") from None
    if isinstance(metadata, dict) and not {"format", "checksum"} & metadata.keys():  # format 1
        raise Damaged(f"is outdated (format 1, not {FORMAT})")
    stored_checksum = metadata.pop("checksum", None) if isinstance(metadata, dict) else None
    if stored_checksum != zlib.crc32(_text(metadata)) or raw != _text({**metadata, "checksum": stored_checksum}):
        raise Damaged(f"is damaged ({path.name}: contents changed)")
    if metadata["format"] != FORMAT:
        raise Damaged(f"is outdated (format {metadata['format']}, not {FORMAT})")
    return metadata
