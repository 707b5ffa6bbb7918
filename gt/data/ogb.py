"""Molecule datasets of the Open Graph Benchmark (Hu et al. 2020), read from OGB's raw CSV files, and OGB's metrics.

OGB's own classes pickle what they read and ask questions on the terminal; here the CSV files are read directly. A
dataset of another data type than ``mol`` differs in its columns and its targets only: see `build`.
"""

import difflib
import gzip
import hashlib
import http.client
import io
import os
import shutil
import socket
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from gt.data.store import Arrays, Graphs, lock, pointers, smallest
from gt.errors import UserError
from gt.schema import Kind, Schema

# importing ogb starts a thread that asks PyPI for a newer release, without a time-out; lacking `outdated` it does not
sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb import graphproppred  # noqa: E402
from ogb.utils.features import get_atom_feature_dims, get_bond_feature_dims  # noqa: E402
from ogb.utils.url import download_url, extract_zip  # noqa: E402

VERSION = 1  # raise when `build` makes something else of the same files
TIMEOUT = 20.0  # seconds without an answer after which a server counts as unreachable
RAW = ("num-node-list", "num-edge-list", "node-feat", "edge", "edge-feat", "graph-label")
SPLITS = ("train", "valid", "test")
Number = type[np.int64] | type[np.float64]
KINDS: dict[str, Kind] = {"binary classification": "binary", "regression": "regression"}


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """OGB's facts about each graph-property dataset, by its name: the columns of ``master.csv``."""
    path = Path(graphproppred.__file__).with_name("master.csv")
    return pd.read_csv(path, index_col=0, keep_default_na=False, dtype=str).to_dict()


def facts(name: str) -> Mapping[str, str]:
    """OGB's facts about one dataset.

    Raises:
        UserError: no molecule dataset has this name.
    """
    names = [known for known, found in catalogue().items() if found["data type"] == "mol"]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
        raise UserError(f"no molecule dataset {name!r} in OGB: did you mean {near}? Known are {', '.join(names)}")
    return catalogue()[name]


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


def key(name: str, root: Path) -> dict[str, Any]:
    """What the result of `build` depends on; a copy of the same files elsewhere gives the same key."""
    found = files(name, locate(name, root))
    digests = {part: hashlib.sha256(path.read_bytes()).hexdigest() for part, path in found.items()}
    return {"source": "ogb", "name": name, "version": VERSION, "files": digests}


def build(name: str, root: Path) -> Graphs:
    """Read a molecule dataset: ``x`` (N, 9) atom and ``edge_attr`` (E, 3) bond categories, ``y`` (G, tasks) float32.

    The files store each bond once; here it is an edge in each direction. Unlabelled targets are NaN. The splits are
    OGB's (by scaffold).

    Raises:
        UserError: a file is missing or malformed; names the file, and the row where one is to blame.
    """
    found, about = files(name, locate(name, root)), facts(name)
    kind, tasks = KINDS[about["task type"]], int(about["num tasks"])
    vocab = {"node-feat": tuple(get_atom_feature_dims()), "edge-feat": tuple(get_bond_feature_dims())}

    sizes = _counts(found["num-node-list"])
    bonds = _counts(found["num-edge-list"], len(sizes))
    nodes = _categories(found["node-feat"], vocab["node-feat"], sizes.sum())
    edges = _categories(found["edge-feat"], vocab["edge-feat"], bonds.sum())
    ends = _numbers(found["edge"], 2, np.int64, bonds.sum())
    _refuse(found["edge"], (ends < 0) | (ends >= np.repeat(sizes, bonds)[:, None]), ends, "is no atom of its graph")
    y = _numbers(found["graph-label"], tasks, np.float64, len(sizes)).astype(np.float32)
    _refuse(found["graph-label"], np.isinf(y), y, "is not finite")
    if kind == "binary":
        _refuse(found["graph-label"], ~np.isnan(y) & (y != 0) & (y != 1), y, "is neither 0 nor 1 nor empty")

    return Graphs(
        node_ptr=pointers(sizes),
        edge_ptr=pointers(2 * bonds),
        edge_index=np.stack([ends.ravel(), ends[:, ::-1].ravel()]),  # (2, E): each bond, then its inverse
        nodes={"x": nodes},
        edges={"edge_attr": np.repeat(edges, 2, axis=0)},
        graphs={"y": y},
        splits=_splits(found, len(sizes)),
        schema=Schema(
            node_vocab=vocab["node-feat"],
            edge_vocab=vocab["edge-feat"],
            level="graph",
            kind=kind,
            outputs=tasks,
            max_nodes=int(sizes.max()),
        ),
    ).sort_edges()


def _splits(found: Mapping[str, Path], graphs: int) -> Arrays:
    """The graph numbers of each split; a graph in two of them would be trained on and tested on."""
    seen = np.zeros(graphs, dtype=np.int64)
    splits = {}
    for part in SPLITS:
        ids = _numbers(found[part], 1, np.int64)
        _refuse(found[part], (ids < 0) | (ids >= graphs), ids, f"is no graph: there are {graphs}")
        splits[part] = ids[:, 0]
        np.add.at(seen, splits[part], 1)
        _refuse(found[part], seen[ids] > 1, ids, "is in the splits more than once")
    return splits


def _counts(path: Path, rows: int | None = None) -> np.ndarray:
    """(G,) nodes or edges of each graph."""
    counts = _numbers(path, 1, np.int64, rows)
    if not len(counts):
        raise UserError(f"{path} is empty: replace it by OGB's file")
    _refuse(path, counts < 0, counts, "is less than 0")
    return counts[:, 0]


def _categories(path: Path, vocab: Sequence[int], rows: int) -> np.ndarray:
    """(rows, len(vocab)) categories, column c below ``vocab[c]``, in a small integer type."""
    values = _numbers(path, len(vocab), np.int64, rows)
    _refuse(path, (values < 0) | (values >= vocab), values, "is outside of the table of OGB's features")
    return smallest(values)


def _refuse(path: Path, wrong: np.ndarray, values: np.ndarray, why: str) -> None:
    """Name the first wrong one of the values (rows, columns)."""
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(f"{path}, row {row + 1}: {values[row, column]} {why}; replace the file by OGB's")


def _numbers(path: Path, columns: int, kind: Number, rows: int | None = None) -> np.ndarray:
    """(rows, columns) numbers of a gzipped CSV file without a header; empty cells are NaN where reals are read."""
    try:
        text = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path} ({error}): replace the file by OGB's") from None
    try:
        values = np.empty((0, columns), kind)  # what no text is, such as the edges of molecules of one atom each
        if text.strip():
            values = pd.read_csv(io.BytesIO(text), header=None, dtype=kind).to_numpy()
    except (ValueError, OverflowError):
        raise UserError(_fault(path, text, columns, kind)) from None
    # pandas fills a short row with NaN without a word
    if values.shape[1] != columns or text.count(b",") != len(values) * (columns - 1):
        raise UserError(_fault(path, text, columns, kind))
    if rows is not None and len(values) != rows:
        raise UserError(f"{path} has {len(values)} rows where num-*-list.csv.gz ask for {rows}: replace all by OGB's")
    return values


def _fault(path: Path, text: bytes, columns: int, kind: Number) -> str:
    """What is wrong with the first wrong row of a CSV file."""
    for row, line in enumerate(text.decode(errors="replace").splitlines(), 1):
        cells = line.split(",")
        if line and len(cells) != columns:
            return f"{path}, row {row}: {len(cells)} columns where there should be {columns}; replace the file by OGB's"
        for cell in cells if line else ():
            try:
                kind(cell.strip('"') or "nan")
            except (ValueError, OverflowError):
                what = "whole number" if kind is np.int64 else "number"
                return f"{path}, row {row}: {cell!r} is not a {what}; replace the file by OGB's"
    return f"{path} is not a table of numbers with {columns} columns: replace the file by OGB's"


class OGBMetric(Metric):
    """The metric of a dataset's leaderboard, computed by OGB's own Evaluator over all samples seen.

    It is NaN, and nothing fails, where it is not defined: no task with both classes, no label of some task of a
    regression, or a prediction that is not finite.

    Args:
        name: the dataset, such as ``ogbg-molhiv``.

    Attributes:
        measure: ``rocauc``, ``ap`` or ``rmse``.
    """

    full_state_update: bool = False
    is_differentiable: bool = False
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, name: str) -> None:
        super().__init__()
        facts(name)  # raises where the name is unknown
        self.evaluator = graphproppred.Evaluator(name)
        self.measure: Literal["rocauc", "ap", "rmse"] = self.evaluator.eval_metric
        # flat, and float32 whatever the precision of the run: a process without samples joins in with an empty vector
        self.set_dtype(torch.float32)
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        return self.measure != "rmse"

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take logits or values (B, tasks) and labels (B, tasks), NaN where there is none."""
        tasks = self.evaluator.num_tasks
        if preds.shape != target.shape or preds.shape[1:] != (tasks,):
            raise ValueError(f"{tuple(preds.shape)} predictions, {tuple(target.shape)} targets: expected (B, {tasks})")
        self.preds.append(preds.detach().float().flatten())
        self.target.append(target.detach().float().flatten())

    def compute(self) -> Tensor:
        """The metric, a scalar."""
        value = torch.tensor(torch.nan, device=self.device)
        if not len(self.preds):
            return value
        preds, target = (dim_zero_cat(state).view(-1, self.evaluator.num_tasks) for state in (self.preds, self.target))
        labelled = ~target.isnan()
        if self.measure == "rmse":
            defined = labelled.any(0).all()
        else:
            defined = ((target == 0).any(0) & (target == 1).any(0)).any()
        if defined and preds[labelled].isfinite().all():
            value.fill_(self.evaluator.eval({"y_true": target, "y_pred": preds})[self.measure])
        return value
