"""Show the claims of "Transformers are Graph Neural Networks" (Joshi 2025, arXiv 2506.22084), each within minutes.

    python -m gt.demo equivalence [MODEL]         GPT-2 and BERT by matrices and by messages: the same numbers
    python -m gt.demo hints [KEY=VALUE ...]       a correct, absent or wrong encoding, for the same model
    python -m gt.demo structure [KEY=VALUE ...]   attention recovers the edges that are withheld from it

Each prints a table and writes a picture. KEY=VALUE as for train.py, such as other data. For the hardware lottery, see
python -m gt.lottery; for the effect of depth, python -m gt.diagnose RUN.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from gt.cli.program import import_from_here, importing, quick_exit
from gt.errors import Parser, UserError, one_line

PIPE_WIDTH = 160  # columns when the output is not a terminal


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    demos = parser.add_subparsers(dest="demo", required=True)
    equivalence = demos.add_parser("equivalence", help="GPT-2 and BERT by matrices and by messages")
    equivalence.add_argument(
        "model", nargs="?", help="name or folder of a pretrained GPT-2 or BERT (default: both, with random weights)"
    )
    hints = demos.add_parser("hints", help="a correct, absent or wrong encoding")
    hints.add_argument("--encoding", default="rwse", help="a precomputed encoding (default: rwse)")
    hints.add_argument("--seeds", type=int, default=3, help="runs per hint (default: 3)")
    structure = demos.add_parser("structure", help="where attention goes when edges are withheld")
    for demo in (hints, structure):
        demo.add_argument("overrides", nargs="*", help="KEY=VALUE as for train.py, such as data=NAME")
    for name, demo in demos.choices.items():
        demo.add_argument("--out", type=Path, default=Path("runs/demo") / name, help="output folder")
    options = parser.parse_args()
    if getattr(options, "seeds", 1) < 1:
        raise UserError("--seeds must be 1 or more")
    return options


def main() -> None:
    options = arguments()
    import_from_here()
    with importing():  # late, so that --help and typos are answered at once
        from rich.console import Console

        program = import_module(f"gt.cli.demo.{options.demo}")
    console, folder = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False), options.out
    folder.mkdir(parents=True, exist_ok=True)
    if options.demo == "equivalence":
        program.demonstrate(options.model, folder, console)
    elif options.demo == "hints":
        program.demonstrate(options.encoding, options.overrides, options.seeds, folder, console)
    else:
        program.demonstrate(options.overrides, folder, console)


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
