"""What OGB knows of its own datasets: task, number of targets, address, the kind of split."""

import difflib
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from gt.errors import UserError

# importing ogb starts a thread that asks PyPI for a newer release, without a time-out; lacking `outdated` it does not
sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb import graphproppred  # noqa: E402


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """OGB's facts about each graph-property dataset, by its name: the columns of ``master.csv``."""
    path = Path(graphproppred.__file__).with_name("master.csv")
    table = pd.read_csv(path, index_col=0, keep_default_na=False, dtype=str)
    return {str(name): dict(column) for name, column in table.items()}


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
