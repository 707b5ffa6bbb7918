"""What OGB knows of its own datasets: level, task, number of targets, address, files, the kind of split."""

import difflib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from gt.errors import UserError

LEVELS = {"graph": "graphproppred", "node": "nodeproppred", "link": "linkproppred"}  # and where OGB keeps its facts
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
}  # of the large-scale challenge, whose facts stand in OGB's code and in no table


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """OGB's facts about each dataset, by its name.

    They are the columns of OGB's three ``master.csv``, every value a text as it stands there (``"True"``, ``"None"``),
    with two of our own: ``level`` (``graph``, ``node`` or ``link``) and ``folder``, the name of the dataset's folder.
    """
    sets = {}
    for level, package in LEVELS.items():
        table = pd.read_csv(_home() / package / "master.csv", index_col=0, keep_default_na=False, dtype=str)
        for name, column in table.items():
            sets[str(name)] = {**column, "level": level, "folder": str(name).replace("-", "_")}
    return sets | {"pcqm4m-v2": dict(PCQM4MV2)}


def _home() -> Path:
    """Where OGB is installed; it is not imported, which takes seconds."""
    spec = importlib.util.find_spec("ogb")
    if spec is None or spec.origin is None:
        raise UserError("OGB's datasets need OGB: pip install ogb")
    return Path(spec.origin).parent


def facts(name: str, level: str | None = None, data_type: str | None = None) -> Mapping[str, str]:
    """OGB's facts about one dataset: see `catalogue`.

    Args:
        name: such as ``ogbg-molhiv``, ``ogbn-arxiv``, ``ogbl-collab`` or ``pcqm4m-v2``.
        level: the only level that will do: ``graph``, ``node`` or ``link``.
        data_type: the only ``data type`` that will do, such as ``mol``.

    Raises:
        UserError: no such dataset, which names the nearest one there is.
    """
    known = catalogue()
    wanted = {"level": level, "data type": data_type}
    names = [n for n, column in known.items() if all(v is None or column.get(k) == v for k, v in wanted.items())]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
        kind = "molecule " if data_type == "mol" else f"{level}-level " if level else ""
        raise UserError(f"no {kind}dataset {name!r} in OGB: did you mean {near}? Known are {', '.join(names)}")
    return known[name]


def listed(column: Mapping[str, str], key: str) -> list[str]:
    """A fact that is a list, such as ``additional node files``; empty where OGB says ``None``."""
    value = column.get(key, "None")
    return [] if value == "None" else value.split(",")
