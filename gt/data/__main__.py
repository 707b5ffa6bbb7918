"""Inspect a dataset, or time how fast batches are made.

    python -m gt.data inspect NAME [data.root=FOLDER ...]   statistics of the dataset, and a picture of a few graphs
    python -m gt.data bench [NAME] [data.root=FOLDER ...]   time per batch, side by side with PyG's DataLoader

NAME is an option of configs/data; further arguments are overrides as for train.py.
"""

import argparse
from pathlib import Path

from gt.cli.program import import_from_here, importing, quick_exit
from gt.errors import Parser, UserError, one_line

PICTURES = Path("runs/inspect")


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The parsed command, and the overrides among its arguments."""
    parser = Parser(prog="python -m gt.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    inspecting = commands.add_parser("inspect", help="statistics of a dataset")
    inspecting.add_argument("name", help="an option of configs/data")
    inspecting.add_argument("--out", type=Path, default=PICTURES, help=f"folder of the picture, {PICTURES} by default")
    timing = commands.add_parser("bench", help="time batches, side by side with PyG")
    timing.add_argument("name", nargs="?", default="python_functions", help="an option of configs/data")
    timing.add_argument("--seconds", type=float, default=4.0, help="time for each row of the table")
    args, rest = parser.parse_known_args()
    if flags := [argument for argument in rest if argument.startswith("-")]:
        parser.error(f"unrecognized arguments: {flags[0]}")
    return args, rest


def main() -> None:
    args, overrides = arguments()
    import_from_here()
    with importing():  # late: --help and errors on typos are immediate
        from rich.console import Console

        from gt.cli.show_data import open_dataset, show
        from gt.data import bench
        from gt.data.graphs import Stored
    data = open_dataset(args.name, overrides)
    if args.command == "bench":
        if not isinstance(data, Stored):
            raise UserError(f"{args.name} has no stored graphs for PyG to collate: choose another dataset")
        Console().print(bench.table(bench.compare(data, args.seconds)))
        return
    path = show(data, args.name, args.out, Console())
    print(f"picture  {path}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
