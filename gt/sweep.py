"""``python -m gt.sweep FOLDER``: rank a sweep's finished jobs again.

Prints a table of settings with the mean, deviation and best of their seeds and their cost; which keys matter; and the
command that repeats the best run. Writes a page with plots, ranking.html, and the tables ranking.csv and runs.csv.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gt.cli.program import importing, quick_exit
from gt.errors import Parser, UserError, one_line


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m gt.sweep", description=__doc__.partition("\n\n")[2])
    parser.add_argument("folder", type=Path, help="the folder of a sweep, which it printed")
    against = "setting to compare each one with, paired by seed: overrides, or another sweep's folder"
    parser.add_argument("--against", default="", metavar="SETTING", help=against)
    return parser.parse_args(list(argv))


def main(argv: Sequence[str]) -> None:
    options = arguments(argv)
    if not options.folder.is_dir():
        raise UserError(f"there is no folder {options.folder}")
    with importing():  # late, so that --help and typos are answered at once
        from gt.cli.settings import check_reference, failures, job_results
        from gt.cli.sweep import show
    if options.against:
        check_reference(options.against, [*job_results(options.folder), *failures(options.folder)])
    if show(options.folder, options.against) is None:
        raise UserError(f"no job in {options.folder} has finished: give the folder of a sweep")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main(sys.argv[1:])
