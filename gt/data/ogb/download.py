"""Locates and downloads the files of OGB datasets.

Unlike OGB's own classes, it neither prompts on the terminal nor leaves incomplete folders.
"""

import http.client
import os
import shutil
import socket
import tempfile
import urllib.request
import zipfile
import zlib
from pathlib import Path

from ogb.utils.url import download_url, extract_zip

from gt.data.files import lock
from gt.data.ogb.catalogue import list_of, metadata
from gt.errors import UserError

TIMEOUT = 20.0  # seconds without a response after which a server counts as unreachable
SPLITS = ("train", "valid", "test")
# files of particular datasets that OGB's tables do not list
EXTRA_FILES = {
    "ogbg-code2": {name: f"mapping/{name}.csv.gz" for name in ("typeidx2type", "attridx2attr")},
    "pcqm4m-v2": {"data": "raw/data.csv.gz", "split": "split_dict.pt"},
}
HETERO = ("num-node-dict", "triplet-type-list")


def files(name: str, folder: Path) -> dict[str, Path]:
    """The paths of the files of a dataset, by name; they need not exist.

    - Tables in ``raw``: ``num-node-list``, ``num-edge-list``, ``edge``, then those of ``node-feat``, ``edge-feat``,
      ``graph-label`` or ``node-label`` that the dataset has, and OGB's additional files (``node_year``, ...).
    - The official split ``train``, ``valid``, ``test``: CSV for graphs and nodes, ``.pt`` for links.
    - For datasets that OGB stores in binary form, ``data`` and the labels are ``.npz``.
    - For heterogeneous datasets, the two tables that list the types of nodes and edges.

    Args:
        name: the dataset, of any level.
        folder: the dataset's own folder, such as ``data/ogbn_arxiv``.

    Raises:
        UserError: an unknown name.
    """
    info = metadata(name)
    extra = {part: folder / path for part, path in EXTRA_FILES.get(name, {}).items()}
    if "split" not in info:
        return extra
    level, raw = info["level"], folder / "raw"
    labels = [] if level == "link" else [f"{level}-label"]
    if info["binary"] == "True":
        parts, extension = ["data", *labels], "npz"
    elif info.get("is hetero") == "True":
        parts, extension = [*HETERO], "csv.gz"
    else:
        optional = {"node-feat": "has_node_attr", "edge-feat": "has_edge_attr"}
        parts = ["num-node-list", "num-edge-list", "edge", *(p for p, k in optional.items() if info[k] == "True")]
        parts += [*labels, *list_of(info, "additional node files"), *list_of(info, "additional edge files")]
        extension = "csv.gz"
    split = folder / "split" / info["split"]
    if level == "node" and info["is hetero"] == "True":
        splits = {"split": split / "nodetype-has-split.csv.gz"}
    else:
        splits = {part: split / f"{part}.{'pt' if level == 'link' else 'csv.gz'}" for part in SPLITS}
    tables = {part: raw / f"{part}.{extension}" for part in parts}
    old = raw / "species.csv.gz"  # its name in the archive of ogbn-proteins, which OGB's classes rename
    if "node_species" in tables and old.is_file():
        tables["node_species"] = old
    return tables | extra | splits


def locate(name: str, root: Path, store_bytes: int = 0) -> Path:
    """The folder of a dataset under ``root``, such as ``root/ogbn_arxiv``; downloaded if absent.

    It never prompts on the terminal, and checks for free disk space before downloading.

    Args:
        name: the dataset, of any level.
        root: the parent of the dataset's folder.
        store_bytes: size of the store that will then be built under the same root, if known.

    Raises:
        UserError: an unknown name, an incomplete folder or one of an older release, or a failed download.
    """
    info = metadata(name)
    folder = root / info["folder"]
    if _absent(folder):
        _download(name, info["url"], folder, store_bytes)
    again = f"remove {folder} to download it again, or set data.root to the folder that holds a complete copy"
    for path in files(name, folder).values():
        if not (path.is_file() and os.access(path, os.R_OK)):
            raise UserError(f"{path} is missing or cannot be read: {again}")
    if not release(name, folder).is_file():
        raise UserError(f"{release(name, folder)} is missing, so {name} is of an older release: {again}")
    return folder


def release(name: str, folder: Path) -> Path:
    """The file that marks the release of a dataset in a folder; OGB's classes prompt if it is missing."""
    return folder / f"RELEASE_v{metadata(name)['version']}.txt"


def _absent(folder: Path) -> bool:
    """Whether a folder is absent or holds only empty folders, as OGB's classes leave after a failed download."""
    return not any(path.is_file() for path in folder.rglob("*"))


def _check_space(name: str, root: Path, required: int) -> None:
    free = shutil.disk_usage(root).free
    if free < required:
        sizes = f"{required / 2**20:,.0f} MiB in {root}, but only {free / 2**20:,.0f} are free"
        raise UserError(f"{name} needs {sizes}: set data.root to a folder on a larger disk")


def _download(name: str, url: str, folder: Path, store_bytes: int) -> None:
    """Download a dataset atomically and without prompting; other processes wait for the one that does."""
    root = folder.parent
    try:
        # queried before anything is written, so that a machine without network leaves no files
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            size = int(response.headers["Content-Length"] or 0)
        if not size:
            raise UserError(f"{url} does not report its size: download it manually and unpack it as {folder}")
        with lock(root / f"{folder.name}.lock"):
            if _absent(folder):  # another process may have downloaded it meanwhile
                # the archive holds compressed files, so unpacking takes about its size again
                _check_space(name, root, 2 * size + store_bytes)
                _fetch(name, url, folder)
    except (OSError, ValueError, RuntimeError, http.client.HTTPException, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error.__context__, KeyboardInterrupt | SystemExit):  # OGB wraps these in a RuntimeError
            raise error.__context__ from None
        cause = error.__context__ if isinstance(error, RuntimeError) and error.__context__ else error
        reason = " ".join(str(getattr(cause, "reason", cause) or type(cause).__name__).split())
        raise UserError(
            f"{name} is not in {folder} and could not be downloaded from {url} ({reason}): "
            f"set data.root to the folder that contains {folder.name} with all of OGB's archive (raw, split, ...)"
        ) from None


def _fetch(name: str, url: str, folder: Path) -> None:
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name + ".part-"))
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # OGB's download sets none and could hang forever
    try:
        archive = download_url(url, str(part))
        with zipfile.ZipFile(archive) as contents:  # now the exact size is known
            _check_space(name, folder.parent, sum(entry.file_size for entry in contents.infolist()))
        extract_zip(archive, str(part), log=False)
        unpacked = part / metadata(name)["download_name"]
        for path in (*files(name, unpacked).values(), release(name, unpacked)):
            if not path.is_file():
                raise ValueError(f"the archive lacks {path.relative_to(part)}")
        shutil.rmtree(folder, ignore_errors=True)  # contains no files, see `_absent`
        unpacked.replace(folder)
    finally:
        socket.setdefaulttimeout(previous)
        shutil.rmtree(part, ignore_errors=True)
