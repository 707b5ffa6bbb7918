"""Look at a dataset, or time how fast batches are made.

    python -m gt.data inspect NAME [data.root=FOLDER ...]   what the dataset holds, and a picture of a few graphs
    python -m gt.data bench [NAME] [data.root=FOLDER ...]   batches a second, side by side with PyG's DataLoader

NAME is an option of configs/data, what follows sets its keys as for train.py.
"""

import argparse
import itertools
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch
from hydra.utils import instantiate
from rich.console import Console

from gt.attention import Demand
from gt.cli.command import check_command, composed
from gt.cli.program import import_from_here, quick_exit
from gt.data import bench, inspect
from gt.data.datamodule import DataModule
from gt.data.graphs import Stored
from gt.data.notices import notices
from gt.data.picture import draw
from gt.errors import Parser, UserError, one_line
from gt.train.construct import constructing

PICTURES = Path("runs/inspect")


def opened(name: str, overrides: Sequence[str]) -> DataModule:
    """A dataset of configs/data, ready.

    Raises:
        UserError: there is no such option or key, or the dataset cannot be read.
    """
    cfg = composed(check_command([f"data={name}", *overrides]))
    with constructing(cfg):
        data: DataModule = instantiate(cfg.data)
    data.open([])
    return data


def show(data: DataModule, name: str, out: Path, console: Console) -> Path:
    """Print what a dataset holds and draw some of it; returns the picture's path."""
    held = inspect.contents(data)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tables = (
        inspect.size_table(held),
        inspect.feature_table(held, data.schema),
        inspect.label_table(data),
        inspect.mask_table(held.batch, Demand(device=device)),
    )
    for table in tables:
        console.print(table)
        console.print()
    console.print("\n".join([data.schema.task(), *notices(data)]), markup=False)
    notes = data.graphs.notes if isinstance(data, Stored) else {}
    for key, value in notes.items():
        if value not in ([], {}, None) and key != "attributes":  # those were said when the data were opened
            console.print(f"{key}: {value}", markup=False)
    path = unused(out, getattr(data.source, "name", name))
    draw(held.sample, data.schema, path)
    return path


def unused(folder: Path, name: str) -> Path:
    """Where a picture of a dataset goes, by its name and the time: one that is there already stays."""
    stem = f"{name}-{datetime.now():%Y-%m-%d_%H-%M-%S}"
    stems = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(path for path in (folder / f"{stem}.png" for stem in stems) if not path.exists())


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command, and the overrides among its arguments."""
    parser = Parser(prog="python -m gt.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    looking = commands.add_parser("inspect", help="what a dataset holds")
    looking.add_argument("name", help="an option of configs/data")
    looking.add_argument("--out", type=Path, default=PICTURES, help=f"folder of the picture, {PICTURES} unless told")
    timing = commands.add_parser("bench", help="how fast batches are made, beside PyG")
    timing.add_argument("name", nargs="?", default="python_functions", help="an option of configs/data")
    timing.add_argument("--seconds", type=float, default=4.0, help="time for each row of the table")
    args, rest = parser.parse_known_args()
    flags = [argument for argument in rest if argument.startswith("-")]
    if flags:
        parser.error(f"unknown option {flags[0]}")
    return args, rest


def main() -> None:
    args, overrides = arguments()
    import_from_here()
    data = opened(args.name, overrides)
    if args.command == "bench":
        if not isinstance(data, Stored):
            raise UserError(f"{args.name} keeps no stored graphs, which PyG could collate as well: choose another")
        Console().print(bench.table(bench.compare(data, args.seconds)))
        return
    path = show(data, args.name, args.out, Console())
    print(f"picture  {path}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
