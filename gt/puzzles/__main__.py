"""``python -m gt.puzzles``: which mask, encoding and depth solve which puzzle.

Trains a small grid of settings on tasks that are made up to show one thing each, prints it beside what a guess scores,
and writes it as a table (CSV) and a picture. A cell that is finished is kept: a run that was stopped goes on, and one
that is repeated trains nothing.
"""

import argparse
from pathlib import Path

from gt.cli.program import import_from_here, importing, quick_exit
from gt.errors import Parser, UserError, nearest, one_line
from gt.puzzles.grid import ROWS, Row, grid


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.puzzles", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of {', '.join(row.data for row in ROWS)}")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each cell, 1 unless told")
    parser.add_argument("--processes", type=int, help="trainings at a time, one thread each; as many as CPUs")
    parser.add_argument("--out", type=Path, default=Path("runs/puzzles"), help="folder of table and picture")
    return parser.parse_args()


def chosen(names: list[str] | None) -> list[Row]:
    """The rows of these names, in the order of the grid.

    Raises:
        UserError: there is no such puzzle.
    """
    known = [row.data for row in ROWS]
    for name in names or ():
        if name not in known:
            raise UserError(f"no puzzle '{name}': {nearest(name, known)}")
    return [row for row in ROWS if not names or row.data in names]


def main() -> None:
    args = arguments()
    rows = chosen(args.only)
    for flag in ("seeds", "processes"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise UserError(f"--{flag} must be 1 or more, not {value}")
    import_from_here()
    with importing():  # late: --help and a typo answer at once
        from gt.puzzles.cells import results
        from gt.puzzles.show import show
    show(rows, results(grid(rows, args.seeds), args.out, args.processes), args.out)


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
