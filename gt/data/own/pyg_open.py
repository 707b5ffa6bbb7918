"""Opens PyG datasets, with atomic downloads and one-line errors."""

import inspect
import os
import shutil
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch_geometric.data import Dataset
from torch_geometric.data.dataset import files_exist
from torch_geometric.io import fs

from gt.data.reading import load_tensors
from gt.data.store import lock
from gt.data.store_folders import writable
from gt.errors import UserError

TIMEOUT = 20.0  # seconds without a response after which a server counts as unreachable


class FilesMissing(Exception):
    """The raw files of a dataset are missing; ``str`` is the folder where they belong."""


def title(make: "partial[Any]") -> str:
    """The name of a dataset for messages: its file, its name within its class, or else that of the class."""
    name = make.keywords.get("path") or make.keywords.get("name")
    return str(name) if name else str(getattr(make.func, "__name__", "dataset"))


def is_named(make: Callable[..., Any]) -> bool:
    """Whether all required arguments of a dataset, such as its name, are set."""
    try:
        inspect.signature(make).bind()
    except TypeError:
        return False
    return True


def takes_split(make: "partial[Any]") -> bool:
    """Whether a class has an unset ``split`` whose default is training or None, as LRGBDataset, ZINC and MalNetTiny."""
    try:
        parameter = inspect.signature(make.func).parameters.get("split")
    except ValueError:  # some built-in callables have no signature
        return False
    return parameter is not None and "split" not in make.keywords and parameter.default in ("train", "trainval", None)


def open_dataset(make: "partial[Any]") -> Dataset:
    """Make a dataset, downloading it first if its raw files are missing.

    A download goes to a temporary folder and is moved to ``root`` once complete; partially processed files are removed.
    Safe for concurrent processes: one works while the others wait.

    Raises:
        UserError: wrong arguments, a failed download, or files that PyG cannot read.
    """
    root = make.keywords.get("root")
    if not (inspect.isclass(make.func) and issubclass(make.func, Dataset) and root):
        return _make(make)
    root = Path(root)
    guarded = partial(_without_download(make.func), *make.args, **make.keywords)
    with _locked(root):
        try:
            return _make(guarded)
        except FilesMissing as missing:
            raw_folder = str(missing)
        _download(make, root, raw_folder)
        return _make(make)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Lock a root against other processes of this program, unless it is read-only."""
    if not writable(root.parent):
        yield
        return
    path = root.with_name(f"{root.name}.lock")
    parents = [folder for folder in path.parents if not folder.exists()]
    try:
        with lock(path):
            yield
    except BaseException:
        if not root.exists():  # leave nothing behind
            path.unlink(missing_ok=True)
            for folder in parents:
                if not any(folder.iterdir()):
                    folder.rmdir()
        raise


def _without_download(cls: type) -> type:
    """A subclass that raises `FilesMissing` instead of downloading, and cleans up after failed processing."""

    def download(self: Any) -> None:
        if not files_exist(self.raw_paths):
            raise FilesMissing(self.raw_dir)

    def process(self: Any) -> None:
        folder = Path(self.processed_dir)
        existed = folder.exists()
        try:
            super(guarded, self)._process()
        except BaseException:
            if not existed:
                shutil.rmtree(folder, ignore_errors=True)
            raise

    members = {"_download": download, "_process": process, "__module__": cls.__module__, "__doc__": cls.__doc__}
    guarded: Any = type(cls.__name__, (cls,), members)
    return guarded


def _download(make: "partial[Any]", root: Path, raw_folder: str) -> None:
    """Download and process into a temporary folder in ``root``, then move each file to its final path."""
    existed = root.exists()
    root.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=root, prefix=".part-"))
    try:
        with _with_timeout(), tensors_only():
            make(root=str(part))
        for path in sorted(part.rglob("*")):
            if path.is_file():
                target = root / path.relative_to(part)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
    except Exception as error:
        raise UserError(
            f"{title(make)} is not in {root} and could not be downloaded ({_reason(error)}): "
            f"put its raw files into {raw_folder}, or set data.dataset.root to the folder that contains it"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if not existed and not any(root.iterdir()):
            root.rmdir()


@contextmanager
def _with_timeout() -> Iterator[None]:
    default = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # PyG's downloads set none and would wait forever
    try:
        yield
    finally:
        socket.setdefaulttimeout(default)


@contextmanager
def tensors_only() -> Iterator[None]:
    """Have PyG refuse files that hold anything but tensors: by default it unpickles, and so executes, any content."""
    original = fs.torch_load

    def load(path: str, map_location: Any = None) -> Any:
        return load_tensors(Path(path), f"remove {Path(path).parent}, so that PyG makes it again")

    fs.torch_load = load
    try:
        yield
    finally:
        fs.torch_load = original


def _make(make: "partial[Any]") -> Dataset:
    """Make the dataset; any exception in PyG becomes a one-line error."""
    try:
        with tensors_only():
            dataset = make()
    except (FilesMissing, UserError):
        raise
    except Exception as error:
        origin = f" from {root}" if (root := make.keywords.get("root")) else ""
        raise UserError(f"{title(make)} cannot be read{origin}: {_reason(error)}") from error
    if not isinstance(dataset, Dataset):
        raise UserError(f"data.dataset makes a {type(dataset).__name__}, not a dataset of torch_geometric")
    return dataset


def _reason(error: Exception) -> str:
    """An exception in one line; for a bare assertion, its source line."""
    text = " ".join(str(getattr(error, "reason", error)).split())
    line = traceback.extract_tb(error.__traceback__)[-1].line if error.__traceback__ else ""
    return f"{type(error).__name__}: {text or line}"
