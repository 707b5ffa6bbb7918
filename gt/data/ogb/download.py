"""Where the files of an OGB dataset lie, and how they get there.

OGB's own classes ask questions on the terminal and leave folders that are half filled; nothing here does.
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
from gt.data.ogb.catalogue import facts, listed
from gt.errors import UserError

TIMEOUT = 20.0  # seconds without an answer after which a server counts as unreachable
SPLITS = ("train", "valid", "test")
# files of single datasets that OGB's tables do not list
FURTHER = {
    "ogbg-code2": {name: f"mapping/{name}.csv.gz" for name in ("typeidx2type", "attridx2attr")},
    "pcqm4m-v2": {"data": "raw/data.csv.gz", "split": "split_dict.pt"},
}
HETERO = ("num-node-dict", "triplet-type-list")


def files(name: str, folder: Path) -> dict[str, Path]:
    """The files that a dataset is read from, by name; they need not exist.

    - Tables in ``raw``: ``num-node-list``, ``num-edge-list``, ``edge``, then what the dataset has of ``node-feat``,
      ``edge-feat``, ``graph-label`` or ``node-label``, and OGB's additional files (``node_year``, ``edge_weight``).
    - The official split: ``train``, ``valid``, ``test``: CSV for graphs and nodes, ``.pt`` for links.
    - Where OGB keeps a dataset in binary form, ``data`` and the labels are ``.npz``.
    - Of datasets with several types of nodes, the two tables that say which types there are.

    Args:
        name: the dataset, of any level.
        folder: the dataset's own folder, such as ``data/ogbn_arxiv``.

    Raises:
        UserError: an unknown name.
    """
    about = facts(name)
    further = {part: folder / path for part, path in FURTHER.get(name, {}).items()}
    if "split" not in about:
        return further
    level, raw = about["level"], folder / "raw"
    labels = [] if level == "link" else [f"{level}-label"]
    if about["binary"] == "True":
        parts, ending = ["data", *labels], "npz"
    elif about.get("is hetero") == "True":
        parts, ending = [*HETERO], "csv.gz"
    else:
        optional = {"node-feat": "has_node_attr", "edge-feat": "has_edge_attr"}
        parts = ["num-node-list", "num-edge-list", "edge", *(p for p, k in optional.items() if about[k] == "True")]
        parts += [*labels, *listed(about, "additional node files"), *listed(about, "additional edge files")]
        ending = "csv.gz"
    split = folder / "split" / about["split"]
    if level == "node" and about["is hetero"] == "True":
        splits = {"split": split / "nodetype-has-split.csv.gz"}
    else:
        splits = {part: split / f"{part}.{'pt' if level == 'link' else 'csv.gz'}" for part in SPLITS}
    tables = {part: raw / f"{part}.{ending}" for part in parts}
    old = raw / "species.csv.gz"  # OGB's archive of ogbn-proteins has this name, which OGB's classes change
    if "node_species" in tables and old.is_file():
        tables["node_species"] = old
    return tables | further | splits


def locate(name: str, root: Path, built: int = 0) -> Path:
    """The folder of a dataset under ``root``, such as ``root/ogbn_arxiv``; downloaded where it is absent.

    Nothing is asked on the terminal. Whether the disk has room is checked before a download starts.

    Args:
        name: the dataset, of any level.
        root: the folder that holds, or will hold, the dataset's own.
        built: bytes that what is then built from the files takes in the same folder, where that is known.

    Raises:
        UserError: an unknown name, a folder that lacks a file or is of an older release, or a download that failed.
    """
    about = facts(name)
    folder = root / about["folder"]
    if _absent(folder):
        _download(name, about["url"], folder, built)
    again = f"remove {folder} to have it downloaded again, or set data.root to the folder that holds a whole one"
    for path in files(name, folder).values():
        if not (path.is_file() and os.access(path, os.R_OK)):
            raise UserError(f"{path} is missing or cannot be read: {again}")
    if not release(name, folder).is_file():
        raise UserError(f"{release(name, folder)} is missing, so {name} is of an older release: {again}")
    return folder


def release(name: str, folder: Path) -> Path:
    """The file that says which release of a dataset a folder holds; OGB's classes look for it and ask questions."""
    return folder / f"RELEASE_v{facts(name)['version']}.txt"


def _absent(folder: Path) -> bool:
    """Whether there is nothing but empty folders, which OGB's own classes leave behind after a failed download."""
    return not any(path.is_file() for path in folder.rglob("*"))


def _room(name: str, root: Path, need: int) -> None:
    free = shutil.disk_usage(root).free
    if free < need:
        sizes = f"{need / 2**20:,.0f} MiB in {root} where {free / 2**20:,.0f} are free"
        raise UserError(f"{name} needs {sizes}: set data.root to a folder on a larger disk")


def _download(name: str, url: str, folder: Path, built: int) -> None:
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
                _room(name, root, 2 * size + built)
                _fetch(name, url, folder)
    except (OSError, ValueError, RuntimeError, http.client.HTTPException, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error.__context__, KeyboardInterrupt | SystemExit):  # OGB turns these into a RuntimeError
            raise error.__context__ from None
        cause = error.__context__ if isinstance(error, RuntimeError) and error.__context__ else error
        reason = " ".join(str(getattr(cause, "reason", cause) or type(cause).__name__).split())
        raise UserError(
            f"{name} is not in {folder} and could not be downloaded from {url} ({reason}): "
            f"set data.root to the folder where {folder.name} lies, with all that OGB's archive holds (raw, split, ...)"
        ) from None


def _fetch(name: str, url: str, folder: Path) -> None:
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name + ".part-"))
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # OGB's download sets none, and would wait for ever
    try:
        archive = download_url(url, str(part))
        with zipfile.ZipFile(archive) as packed:  # now the size is known exactly
            _room(name, folder.parent, sum(entry.file_size for entry in packed.infolist()))
        extract_zip(archive, str(part), log=False)
        unpacked = part / facts(name)["download_name"]
        for path in (*files(name, unpacked).values(), release(name, unpacked)):
            if not path.is_file():
                raise ValueError(f"the archive holds no {path.relative_to(part)}")
        shutil.rmtree(folder, ignore_errors=True)  # holds no file: see `_absent`
        unpacked.replace(folder)
    finally:
        socket.setdefaulttimeout(before)
        shutil.rmtree(part, ignore_errors=True)
