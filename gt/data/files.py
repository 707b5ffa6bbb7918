"""Files that are whole or absent, known by their checksums, and made by one process at a time."""

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

FORMAT = 2  # raise when the layout on disk changes: what is older is then made again
VERIFIED = 256 * 2**20  # bytes that are all read again whenever they are opened: 0.15 s with two cores
PIECE = 2**20  # part of the format: another size gives other checksums
THREADS = 8
FULL = (errno.ENOSPC, errno.EDQUOT)  # what the system says of a disk that is full, or of one's share of it
NAMED = 3  # stores that a line names

Seal = dict[str, int]


class Damaged(UserError):
    """What is on disk is not what was written, or was written by another version: says which."""


def say(line: str) -> None:
    """A line on the terminal, once for all processes that train together.

    It is one write with its end, so that lines of processes that share a terminal never mix.
    """
    if is_first():
        print(f"{line}\n", end="", flush=True)


@contextmanager
def writing(folder: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Say in one line that a folder cannot take what is written to it; ``needed`` tells how many bytes that is.

    Raises:
        UserError: the disk is full, or nobody may write there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            what = f"no room in {folder}, which needs at least {needed() / 1e6:,.1f} MB: free some"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            what = f"cannot write to {folder} ({error.strerror}): change its permissions"
        else:
            raise
        raise UserError(f"{what}, or set data.root to another folder") from None


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold ``path`` as a lock between processes; the system frees it when its holder dies.

    Raises:
        UserError: its folder cannot be written to.
    """
    with writing(path.parent, lambda: 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # another user's file in a shared folder: to read it is enough on most disks
            handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that builds {path.stem}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync(folder: Path) -> None:
    """Have the names in a folder on the disk itself, where they survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    with suppress(OSError):  # not every file system can
        os.fsync(handle)
    os.close(handle)


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """A file to write to; when closed, its contents are on the disk itself."""
    with open(path, "wb") as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which appears at ``path`` once it is complete. One process at a time: hold a `lock`.

    Raises:
        UserError: it is a folder, or there is none for it.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} for {path.name}: make it, or choose another place")
    part = path.with_name(path.name + ".part")
    try:
        with durable(part) as handle:
            yield handle
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
            error.filename = str(path)  # what fails to write does not say where
        raise
    sync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, see `whole`."""
    with whole(path) as file:
        file.write(content)


def discard(path: Path) -> None:
    """Remove a file or a folder with all that it holds; none is fine too."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def mention_others(store: Path) -> None:
    """Say how many stores of the same name but of another key are kept beside one, their size, and how to remove some.

    No more than `NAMED` are named, the oldest, so that the line stays one.
    """
    name, _, key = store.name.rpartition("-")
    alike = re.compile(rf"{re.escape(name)}-[0-9a-f]{{{len(key)}}}")
    others, size = [], 0
    for path in store.parent.iterdir():
        if alike.fullmatch(path.name) and path != store:
            with suppress(FileNotFoundError):  # another process may be removing it
                others.append((path.stat().st_mtime_ns, path))
                size += sum(file.stat().st_size for file in path.glob("*"))
    if others:
        what = f"{len(others)} other store{'' if len(others) == 1 else 's'} of {name} ({size / 1e6:,.1f} MB)"
        which = f", such as the {NAMED} oldest" if len(others) > NAMED else ""
        paths = shlex.join(str(path) for _, path in sorted(others)[:NAMED])
        say(f"{what}, made of other files or settings, kept; remove what no run needs{which}: rm -r {paths}")


def checksum(path: Path) -> int:
    """CRC-32 of the CRC-32s of a file's pieces of `PIECE` bytes, which several threads work out at once."""
    # read, not mapped: a bad sector is then an error that can be handled, and not the end of the process
    with open(path, "rb", buffering=0) as handle, ThreadPoolExecutor(THREADS) as pool:
        number, starts = handle.fileno(), range(0, os.fstat(handle.fileno()).st_size, PIECE)
        sums = (pool.map if len(starts) > 1 else map)(lambda start: zlib.crc32(os.pread(number, PIECE, start)), starts)
        return zlib.crc32(b"".join(each.to_bytes(4, "little") for each in sums))


def seal(path: Path) -> Seal:
    """What `check` compares a file with."""
    about = path.stat()
    return {"bytes": about.st_size, "mtime_ns": about.st_mtime_ns, "crc32": checksum(path)}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Take a file that the disk cannot read for damaged."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise Damaged(f"is damaged ({path.name}: {error.strerror})") from None


def check(path: Path, sealed: Mapping[str, int], fully: bool) -> None:
    """Compare a file with its seal: its contents where ``fully`` or where it was touched since, else only its size.

    Raises:
        Damaged: it is not as it was.
    """
    if not path.is_file():
        raise Damaged(f"is damaged ({path.name} is missing)")
    with reading(path):
        about = path.stat()
        if about.st_size != sealed["bytes"]:
            raise Damaged(f"is damaged ({path.name}: {about.st_size:,} bytes instead of {sealed['bytes']:,})")
        # to read every byte of many gigabytes would take longer than a run may take to start
        if (fully or about.st_mtime_ns != sealed["mtime_ns"]) and checksum(path) != sealed["crc32"]:
            raise Damaged(f"is damaged ({path.name}: contents changed)")


def _text(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, indent=1).encode()


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Keep JSON values, with the number of the format and a checksum, whole or not at all."""
    facts = {"format": FORMAT, **facts}
    write_bytes(path, _text({**facts, "checksum": zlib.crc32(_text(facts))}))


def read_facts(path: Path) -> dict[str, Any]:
    """What `write_facts` wrote.

    Raises:
        Damaged: it is of another format, or not as it was.
        FileNotFoundError: there is none.
    """
    with reading(path):
        raw = path.read_bytes()
    try:
        facts = json.loads(raw)
    except ValueError:
        raise Damaged(f"is damaged ({path.name} is no JSON)") from None
    if isinstance(facts, dict) and not {"format", "checksum"} & facts.keys():  # as the first format was
        raise Damaged(f"is outdated (format 1, not {FORMAT})")
    summed = facts.pop("checksum", None) if isinstance(facts, dict) else None
    if summed != zlib.crc32(_text(facts)) or raw != _text({**facts, "checksum": summed}):
        raise Damaged(f"is damaged ({path.name}: contents changed)")
    if facts["format"] != FORMAT:
        raise Damaged(f"is outdated (format {facts['format']}, not {FORMAT})")
    return facts
