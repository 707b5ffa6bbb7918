"""OGB's metadata of its datasets: level, task, number of targets, URL, files, kind of split."""

import difflib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from gt.errors import UserError

LEVELS = {
    "graph": "graphproppred",
    "node": "nodeproppred",
    "link": "linkproppred",
}  # and the packages with their metadata
PCQM4MV2 = {
    "level": "graph",
    "data type": "smiles",
    "folder": "pcqm4m-v2",
    "download_name": "pcqm4m-v2",
    "url": "https://dgl-data.s3-accelerate.amazonaws.com/dataset/OGB-LSC/pcqm4m-v2.zip",
    "version": "1",
    "num tasks": "1",
    "task type": "regression",
    "eval metric": "mae",
}  # part of the large-scale challenge, whose metadata OGB has in code only


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """OGB's metadata of each dataset, by name.

    The columns of OGB's three ``master.csv``, with each value as text (``"True"``, ``"None"``), and two additions:
    ``level`` (``graph``, ``node`` or ``link``) and ``folder``, the name of the dataset's folder.
    """
    sets = {}
    for level, package in LEVELS.items():
        table = pd.read_csv(_home() / package / "master.csv", index_col=0, keep_default_na=False, dtype=str)
        for name, column in table.items():
            sets[str(name)] = {**column, "level": level, "folder": str(name).replace("-", "_")}
    return sets | {"pcqm4m-v2": dict(PCQM4MV2)}


def _home() -> Path:
    """The folder where OGB is installed, found without importing it, which takes seconds."""
    spec = importlib.util.find_spec("ogb")
    if spec is None or spec.origin is None:
        raise UserError("OGB's datasets need OGB: pip install ogb")
    return Path(spec.origin).parent


def metadata(name: str, level: str | None = None, data_type: str | None = None) -> Mapping[str, str]:
    """OGB's metadata of one dataset, see `catalogue`.

    Args:
        name: such as ``ogbg-molhiv``, ``ogbn-arxiv``, ``ogbl-collab`` or ``pcqm4m-v2``.
        level: the required level, ``graph``, ``node`` or ``link``; None accepts any.
        data_type: the required ``data type``, such as ``mol``; None accepts any.

    Raises:
        UserError: no such dataset; suggests the nearest name.
    """
    datasets = catalogue()
    required = {"level": level, "data type": data_type}
    names = [n for n, column in datasets.items() if all(v is None or column.get(k) == v for k, v in required.items())]
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
        kind = "molecule " if data_type == "mol" else f"{level}-level " if level else ""
        raise UserError(f"no {kind}dataset {name!r} in OGB: did you mean {nearest}? Available are {', '.join(names)}")
    return datasets[name]


def list_of(column: Mapping[str, str], key: str) -> list[str]:
    """A list-valued entry, such as ``additional node files``; empty if OGB says ``None``."""
    value = column.get(key, "None")
    return [] if value == "None" else value.split(",")
