"""The folder of a store: below its root or, if that is read-only, below the default root."""

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

from gt.data.files import print_line

DEFAULT_ROOT = Path("data")
TEMPORARY_PREFIX = "gt-new-data-"  # of the name of a temporary store
DAY = 86400.0  # seconds


def writable(folder: Path) -> bool:
    """Whether a folder or, if it does not exist, its nearest existing parent is writable.

    A folder without any write permission counts as read-only for root, too, although root could write to it.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(existing, os.W_OK | os.X_OK) and existing.stat().st_mode & 0o222 != 0


def store_folder(root: Path, kind: str, key: str, whole: Callable[[Path], bool], made_of: str = "") -> Path:
    """The folder of a store below a root.

    If the root is read-only and does not have the store, as on a shared disk, it is a folder below the default root,
    and a line says so.

    Args:
        kind: the kind of store.
        key: the key of the store, unique within its kind.
        whole: whether a folder holds the complete store.
        made_of: a word for its inputs that makes the folder name readable. An existing store with another word is used
            as it is.
    """

    def find(stores: Path) -> Path:
        folder = stores / "-".join(filter(None, (kind, made_of, key)))
        if made_of and not folder.exists():
            return next(iter(sorted(stores.glob(f"{escape(kind)}-*{key}"))), folder)
        return folder

    primary, fallback = find(root / "stores"), find(DEFAULT_ROOT / "stores")
    if primary.absolute() == fallback.absolute() or writable(primary.parent) or whole(primary):
        return primary
    print_line(f"{root} is read-only: stores built from it are kept in {fallback.parent}")
    return fallback


def temporary_store(root: Path) -> "tempfile.TemporaryDirectory[str]":
    """A folder that is removed with the object, below the root if that is writable.

    Also removes the folders left behind by killed processes.
    """
    parent = root if root.is_dir() and writable(root) else Path(tempfile.gettempdir())
    for leftover in filter(is_abandoned, parent.glob(f"{TEMPORARY_PREFIX}*")):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=parent)
    descriptor = os.open(folder.name, os.O_RDONLY)
    weakref.finalize(folder, os.close, descriptor)
    with suppress(OSError):  # not every file system supports locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return folder


def is_abandoned(folder: Path) -> bool:
    """Whether no process holds a temporary store, and it has not been modified for a day."""
    with suppress(OSError):  # another process removes it, or it is another user's
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(descriptor).st_mtime < time.time() - DAY
        finally:
            os.close(descriptor)
    return False


def computed_folders(store: Path) -> list[Path]:
    """The folders that may hold values computed from a store, the writable one last: its own, unless read-only."""
    return [store] if writable(store) else [store, DEFAULT_ROOT / "stores" / f"{store.name}.computed"]
