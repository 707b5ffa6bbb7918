"""Have PyG make one of its datasets: downloaded whole or not at all, and what goes wrong said in one line."""

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

TIMEOUT = 20.0  # seconds without an answer after which a server counts as unreachable


class Absent(Exception):
    """The files that a dataset is read from are not there; ``str`` is the folder where they belong."""


def title(make: "partial[Any]") -> str:
    """What messages call a dataset: its file, or its name among several of a class, else that of the class."""
    name = make.keywords.get("path") or make.keywords.get("name")
    return str(name) if name else str(getattr(make.func, "__name__", "dataset"))


def is_named(make: Callable[..., Any]) -> bool:
    """Whether a dataset is given all that its class asks for, such as a name."""
    try:
        inspect.signature(make).bind()
    except TypeError:
        return False
    return True


def takes_split(make: "partial[Any]") -> bool:
    """Whether a class gives its training graphs unless asked for others, as LRGBDataset, ZINC and MalNetTiny do."""
    try:
        parameter = inspect.signature(make.func).parameters.get("split")
    except ValueError:  # some built-in callables do not tell
        return False
    return parameter is not None and "split" not in make.keywords and parameter.default in ("train", "trainval", None)


def open_dataset(make: "partial[Any]") -> Dataset:
    """The dataset that ``make`` makes, downloaded first where its raw files are absent.

    A download goes to a folder of its own and from there to ``root`` when it is complete; what PyG began to process
    and could not is removed. Several processes may ask at once: one works while the others wait.

    Raises:
        UserError: wrong arguments, a failed download, or files that PyG cannot read.
    """
    root = make.keywords.get("root")
    if not (inspect.isclass(make.func) and issubclass(make.func, Dataset) and root):
        return _called(make)
    root = Path(root)
    guarded = partial(_guarded(make.func), *make.args, **make.keywords)
    with _alone(root):
        try:
            return _called(guarded)
        except Absent as absent:
            where = str(absent)
        _download(make, root, where)
        return _called(make)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """No other process of this program works on the same root; one that cannot be written to needs no such care."""
    if not writable(root.parent):
        yield
        return
    path = root.with_name(f"{root.name}.lock")
    parents = [folder for folder in path.parents if not folder.exists()]
    try:
        with lock(path):
            yield
    except BaseException:
        if not root.exists():  # nothing came of it: leave nothing
            path.unlink(missing_ok=True)
            for folder in parents:
                if not any(folder.iterdir()):
                    folder.rmdir()
        raise


def _guarded(cls: type) -> type:
    """The same class, but for a download: it raises `Absent`; and it leaves nothing behind that it fails to process."""

    def download(self: Any) -> None:
        if not files_exist(self.raw_paths):
            raise Absent(self.raw_dir)

    def process(self: Any) -> None:
        folder = Path(self.processed_dir)
        before = folder.exists()
        try:
            super(guarded, self)._process()
        except BaseException:
            if not before:
                shutil.rmtree(folder, ignore_errors=True)
            raise

    members = {"_download": download, "_process": process, "__module__": cls.__module__, "__doc__": cls.__doc__}
    guarded: Any = type(cls.__name__, (cls,), members)
    return guarded


def _download(make: "partial[Any]", root: Path, where: str) -> None:
    """Download and process into a folder beside what is there, then move each file to its place."""
    before = root.exists()
    root.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=root, prefix=".part-"))
    try:
        with _impatient(), tensors_only():
            make(root=str(part))
        for path in sorted(part.rglob("*")):
            if path.is_file():
                goal = root / path.relative_to(part)
                goal.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, goal)
    except Exception as error:
        raise UserError(
            f"{title(make)} is not in {root} and could not be downloaded ({_reason(error)}): "
            f"put its raw files into {where}, or set data.dataset.root to the folder that has it"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if not before and not any(root.iterdir()):
            root.rmdir()


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # PyG's downloads set none, and would wait for ever
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def tensors_only() -> Iterator[None]:
    """Have PyG refuse a file of tensors that holds anything else: its own way is to unpickle, and so run, whatever."""
    before = fs.torch_load

    def tensors(path: str, map_location: Any = None) -> Any:
        return load_tensors(Path(path), f"remove {Path(path).parent}, for PyG to fill it again")

    fs.torch_load = tensors
    try:
        yield
    finally:
        fs.torch_load = before


def _called(make: "partial[Any]") -> Dataset:
    """The dataset; whatever goes wrong in PyG is one line."""
    try:
        with tensors_only():
            dataset = make()
    except (Absent, UserError):
        raise
    except Exception as error:
        where = f" from {root}" if (root := make.keywords.get("root")) else ""
        raise UserError(f"{title(make)} cannot be made{where}: {_reason(error)}") from error
    if not isinstance(dataset, Dataset):
        raise UserError(f"data.dataset makes a {type(dataset).__name__}, not a dataset of torch_geometric")
    return dataset


def _reason(error: Exception) -> str:
    """One line of an exception; of a bare assertion, what it asserts."""
    text = " ".join(str(getattr(error, "reason", error)).split())
    line = traceback.extract_tb(error.__traceback__)[-1].line if error.__traceback__ else ""
    return f"{type(error).__name__}: {text or line}"
