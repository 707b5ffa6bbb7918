"""Where a store lies: below its root, or below the default one where that cannot be written to."""

import fcntl
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from glob import escape
from pathlib import Path

from gt.data.files import say

DEFAULT_ROOT = Path("data")
NEW_DATA = "gt-new-data-"  # what the name of a temporary store begins with
DAY = 86400.0  # seconds


def writable(folder: Path) -> bool:
    """Whether a folder, or where it does not exist its nearest existing parent, may be written to.

    One that gives nobody leave to write is read-only to root as well, though the system would let root.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(existing, os.W_OK | os.X_OK) and existing.stat().st_mode & 0o222 != 0


def store_folder(root: Path, kind: str, key: str, whole: Callable[[Path], bool], made_of: str = "") -> Path:
    """The folder of a store below a root.

    Where the root is read-only and has no such store, as on a shared disk, it is one below the default root, which a
    line says.

    Args:
        kind: what the store is one of.
        key: of the store, among all of its kind.
        whole: whether a folder holds the store, complete.
        made_of: a word for what it is made of, which its name has for those who look at the folder. A store that was
            made under another word is taken as it is.
    """

    def called(stores: Path) -> Path:
        folder = stores / "-".join(filter(None, (kind, made_of, key)))
        if made_of and not folder.exists():
            return next(iter(sorted(stores.glob(f"{escape(kind)}-*{key}"))), folder)
        return folder

    own, spare = called(root / "stores"), called(DEFAULT_ROOT / "stores")
    if own.absolute() == spare.absolute() or writable(own.parent) or whole(own):
        return own
    say(f"{root} is read-only: what is built from it is kept in {spare.parent}")
    return spare


def temporary_store(root: Path) -> "tempfile.TemporaryDirectory[str]":
    """A folder that is removed with the object, on the disk of a root where that may be written to.

    Those of processes that were killed, which could not remove theirs, are removed now.
    """
    place = root if root.is_dir() and writable(root) else Path(tempfile.gettempdir())
    for left in filter(abandoned, place.glob(f"{NEW_DATA}*")):
        shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.TemporaryDirectory(prefix=NEW_DATA, dir=place)
    held = os.open(folder.name, os.O_RDONLY)
    weakref.finalize(folder, os.close, held)
    with suppress(OSError):  # not every file system can lock
        fcntl.flock(held, fcntl.LOCK_SH)
    return folder


def abandoned(folder: Path) -> bool:
    """Whether no process holds a temporary store, and nothing has been written to it for a day."""
    with suppress(OSError):  # another process removes it, or it is another user's
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(handle).st_mtime < time.time() - DAY
        finally:
            os.close(handle)
    return False


def beside(store: Path) -> list[Path]:
    """The folders that may hold what is computed of a store, the one to write to last: its own, unless read-only."""
    return [store] if writable(store) else [store, DEFAULT_ROOT / "stores" / f"{store.name}.computed"]
