"""``python -m gt.sweep FOLDER``: a sweep's jobs ranked again, as far as they have finished.

A table of settings, with the mean, the deviation and the best of their seeds and what they cost; which keys matter; the
command that runs the best again. A page, ranking.html, shows it all with pictures; ranking.csv and runs.csv keep it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gt.cli.program import importing, quick_exit
from gt.errors import Parser, UserError, one_line


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m gt.sweep", description=__doc__.partition("\n\n")[2])
    parser.add_argument("folder", type=Path, help="a sweep's, which it named when it began or ended")
    against = "compare each setting with this one, in pairs of the same seed: overrides, or another sweep's folder"
    parser.add_argument("--against", default="", metavar="SETTING", help=against)
    return parser.parse_args(list(words))


def main(words: Sequence[str]) -> None:
    options = arguments(words)
    if not options.folder.is_dir():
        raise UserError(f"there is no folder {options.folder}")
    with importing():  # late: --help and a typo answer at once
        from gt.cli.settings import check_chosen, failures, job_results
        from gt.cli.sweep import show
    if options.against:
        check_chosen(options.against, [*job_results(options.folder), *failures(options.folder)])
    if show(options.folder, options.against) is None:
        raise UserError(f"no job in {options.folder} has ended: it takes the folder of a sweep")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main(sys.argv[1:])
