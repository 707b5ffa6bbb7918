"""Open a dataset of configs/data and show it: tables of its contents and a picture of a few graphs."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from hydra.utils import instantiate
from rich.console import Console

from gt.attention import Demand
from gt.cli.command import check_command
from gt.cli.composing import compose_config
from gt.cli.program import device_of
from gt.data import inspect
from gt.data.datamodule import DataModule
from gt.data.graphs import Stored
from gt.data.notices import notices
from gt.data.picture import draw
from gt.train.construct import constructing


def open_dataset(name: str, overrides: Sequence[str]) -> DataModule:
    """Open a dataset of configs/data.

    Raises:
        UserError: there is no such option or key, or the dataset cannot be read.
    """
    cfg = compose_config(check_command([f"data={name}", *overrides], trains=False))
    with constructing(cfg):
        data: DataModule = instantiate(cfg.data)
    data.open([])
    return data


def show(data: DataModule, name: str, out: Path, console: Console) -> Path:
    """Print the contents of a dataset and draw some graphs; returns the path of the picture."""
    contents = inspect.contents(data)
    tables = (
        inspect.size_table(contents),
        inspect.feature_table(contents, data.schema),
        inspect.label_table(data),
        inspect.mask_table(contents.batch, Demand(device=device_of(None).type)),
    )
    for table in tables:
        console.print(table)
        console.print()
    console.print("\n".join([data.schema.task(), *notices(data)]), markup=False)
    notes = data.graphs.notes if isinstance(data, Stored) else {}
    for key, value in notes.items():
        if value not in ([], {}, None) and key != "attributes":  # those were printed when the data were opened
            console.print(f"{key}: {value}", markup=False)
    path = unused(out, getattr(data.source, "name", name))
    draw(contents.sample, data.schema, path)
    return path


def unused(folder: Path, name: str) -> Path:
    """An unused path for a picture of a dataset, from its name and the time."""
    stem = f"{name}-{datetime.now():%Y-%m-%d_%H-%M-%S}"
    stems = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(path for path in (folder / f"{stem}.png" for stem in stems) if not path.exists())
