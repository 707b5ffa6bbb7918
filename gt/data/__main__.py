"""Look at a dataset, or time how fast batches are made.

    python -m gt.data inspect NAME [data.root=FOLDER ...]   what the dataset holds, and a picture of a few graphs
    python -m gt.data bench [NAME] [data.root=FOLDER ...]   batches a second, side by side with PyG's DataLoader

NAME is an option of configs/data, what follows sets its keys as for train.py.
"""

import argparse
from pathlib import Path

from gt.cli.program import import_from_here, importing, quick_exit
from gt.errors import Parser, UserError, one_line

PICTURES = Path("runs/inspect")


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
    if flags := [argument for argument in rest if argument.startswith("-")]:
        parser.error(f"unrecognized arguments: {flags[0]}")
    return args, rest


def main() -> None:
    args, overrides = arguments()
    import_from_here()
    with importing():  # late: --help and a typo answer at once
        from rich.console import Console

        from gt.cli.show_data import opened, show
        from gt.data import bench
        from gt.data.graphs import Stored
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
