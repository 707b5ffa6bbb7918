"""``python -m gt.report RUN RUN ...``: compare runs on one page: scores, differing settings, overlaid curves."""

import argparse
import os
from pathlib import Path

from gt.cli.program import importing, quick_exit
from gt.errors import Parser, UserError, one_line


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or folders that contain runs")
    parser.add_argument(
        "--out", type=Path, default=Path("comparison.html"), help="output page (default: comparison.html)"
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with importing():  # late, so that --help and typos are answered at once
        from gt.cli.comparison import page
        from gt.cli.run_list import runs_below
        from gt.data.files import write_bytes
    runs = {run.folder.resolve(): run for folder in args.runs for run in reversed(list(runs_below(folder)))}
    if not runs:
        raise UserError(f"no run below {', '.join(map(str, args.runs))}")
    top = Path(os.path.commonpath([folder.parent for folder in runs]))
    write_bytes(args.out, page(list(runs.values()), top).encode())
    print(f"{len(runs)} run{'s' * (len(runs) > 1)}: {args.out}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
