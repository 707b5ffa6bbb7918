"""Where the files of an OGB dataset lie, and how they get there.

OGB's own classes ask questions on the terminal and leave folders that are half filled; nothing here does.
"""

import http.client
import os
import shutil
import socket
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from pathlib import Path

from gt.data.files import lock
from gt.data.ogb_catalogue import facts
from gt.errors import UserError

# importing ogb starts a thread that asks PyPI for a newer release, without a time-out; lacking `outdated` it does not
sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb.utils.url import download_url, extract_zip  # noqa: E402

TIMEOUT = 20.0  # seconds without an answer after which a server counts as unreachable
RAW = ("num-node-list", "num-edge-list", "node-feat", "edge", "edge-feat", "graph-label")
SPLITS = ("train", "valid", "test")


def files(name: str, folder: Path) -> dict[str, Path]:
    """The files a dataset is read from: ``edge`` and the like, and ``train``, ``valid``, ``test``."""
    parents = dict.fromkeys(RAW, folder / "raw") | dict.fromkeys(SPLITS, folder / "split" / facts(name)["split"])
    return {part: parent / f"{part}.csv.gz" for part, parent in parents.items()}


def locate(name: str, root: Path) -> Path:
    """The folder of a dataset under ``root``, such as ``root/ogbg_molhiv``; downloaded where it is absent.

    Raises:
        UserError: an unknown name, a folder that lacks a file, or a download that failed.
    """
    url = facts(name)["url"]
    folder = root / name.replace("-", "_")
    if _absent(folder):
        _download(name, url, folder)
    for path in files(name, folder).values():
        if not (path.is_file() and os.access(path, os.R_OK)):
            raise UserError(
                f"{path} is missing or cannot be read: remove {folder} to have it downloaded again, "
                f"or set data.root to the folder that holds a whole {folder.name}"
            )
    return folder


def _absent(folder: Path) -> bool:
    """Whether there is nothing but empty folders, which OGB's own classes leave behind after a failed download."""
    return not any(path.is_file() for path in folder.rglob("*"))


def _download(name: str, url: str, folder: Path) -> None:
    """Put a dataset in place whole or not at all, without a question; one process does it while others wait."""
    root = folder.parent
    try:
        # asked before anything is written, so that a machine without network keeps a clean disk
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            size = int(answer.headers["Content-Length"] or 0)
        if not size:
            raise UserError(f"{url} does not say how large it is: download it by hand and unpack it as {folder}")
        with lock(root / f"{folder.name}.lock"):
            if _absent(folder):  # another process may have put it there while this one waited
                # the archive holds compressed files: unpacked they take its size once more
                if shutil.disk_usage(root).free < 2 * size:
                    need, free = 2 * size / 2**20, shutil.disk_usage(root).free / 2**20
                    raise UserError(f"{name} needs {need:,.0f} MiB in {root} where {free:,.0f} are free: set data.root")
                _fetch(name, url, folder)
    except (OSError, ValueError, RuntimeError, http.client.HTTPException, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error.__context__, KeyboardInterrupt | SystemExit):  # OGB turns these into a RuntimeError
            raise error.__context__ from None
        cause = error.__context__ if isinstance(error, RuntimeError) and error.__context__ else error
        reason = " ".join(str(getattr(cause, "reason", cause) or type(cause).__name__).split())
        raise UserError(
            f"{name} is not in {folder} and could not be downloaded from {url} ({reason}): "
            f"set data.root to the folder where {folder.name}/raw lies"
        ) from None


def _fetch(name: str, url: str, folder: Path) -> None:
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name + ".part-"))
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # OGB's download sets none, and would wait for ever
    try:
        archive = download_url(url, str(part))
        extract_zip(archive, str(part), log=False)
        unpacked = part / facts(name)["download_name"]
        for path in files(name, unpacked).values():
            if not path.is_file():
                raise ValueError(f"the archive holds no {path.relative_to(part)}")
        shutil.rmtree(folder, ignore_errors=True)  # holds no file: see `_absent`
        unpacked.replace(folder)
    finally:
        socket.setdefaulttimeout(before)
        shutil.rmtree(part, ignore_errors=True)
