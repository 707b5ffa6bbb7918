"""``python -m gt.puzzles``: find which mask, encoding and depth solve which puzzle.

Trains a small grid of settings on synthetic tasks that each isolate one property, prints accuracies next to chance
level, and writes them as a table (CSV) and a picture. Finished cells are cached: an interrupted run resumes, and a
repeated one trains nothing.
"""

import argparse
from pathlib import Path

from gt.cli.program import import_from_here, importing, quick_exit
from gt.errors import Parser, UserError, nearest, one_line
from gt.puzzles.grid import ROWS, Row, grid


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.puzzles", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of {', '.join(row.data for row in ROWS)}")
    parser.add_argument("--seeds", type=int, default=1, help="trainings per cell (default: 1)")
    parser.add_argument("--processes", type=int, help="parallel trainings, one thread each (default: one per CPU)")
    parser.add_argument("--out", type=Path, default=Path("runs/puzzles"), help="folder for the table and the picture")
    return parser.parse_args()


def select_rows(names: list[str] | None) -> list[Row]:
    """The rows with these names, in the order of the grid.

    Raises:
        UserError: there is no such puzzle.
    """
    puzzles = [row.data for row in ROWS]
    for name in names or ():
        if name not in puzzles:
            raise UserError(f"no puzzle '{name}': {nearest(name, puzzles)}")
    return [row for row in ROWS if not names or row.data in names]


def main() -> None:
    args = arguments()
    rows = select_rows(args.only)
    for flag in ("seeds", "processes"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise UserError(f"--{flag} must be 1 or more, not {value}")
    import_from_here()
    with importing():  # late, so that --help and typos are answered at once
        from gt.puzzles.cells import results
        from gt.puzzles.show import show
    show(rows, results(grid(rows, args.seeds), args.out, args.processes), args.out)


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
