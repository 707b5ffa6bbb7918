"""``python -m gt.bench``: what a training step costs, beside what one would run without this package.

Times the networks of this package in a bare loop and by the trainer, and PyG's GPSConv or PyTorch's TransformerEncoder
of the same shape, in turn and in one process. Writes a table (JSON) and a picture.
"""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from gt.cli.program import device_of, importing, quick_exit
from gt.errors import Parser, UserError, nearest, one_line

WIDE = 180  # columns of a file or a pipe
NAMES = ("gps_molhiv", "gps_molhiv_128", "gps_zinc", "gpt_small", "gpt", "large")


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of {', '.join(NAMES)}; on a CPU all but gpt")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one")
    parser.add_argument("--rounds", type=int, default=20, help="timed steps of each program, 20 unless told")
    parser.add_argument("--compare", type=Path, metavar="bench.json", help="an earlier result: what has changed")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of table and picture")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    for name in args.only or ():
        if name not in NAMES:
            raise UserError(f"no shape '{name}': {nearest(name, NAMES)}")
    if args.rounds < 1:
        raise UserError(f"--rounds must be 1 or more, not {args.rounds}")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells that it starts and stops
    with importing():  # late: --help and a typo answer at once
        import torch
        from rich.console import Console

        from gt.allocation import keep_freed_memory
        from gt.attention.costs import device_name
        from gt.bench.shapes import SHAPES
        from gt.bench.show import changes, draw, read, table, write
        from gt.bench.steps import measured
        from gt.lottery.compare import peaks
        from gt.train.logging import quiet
    before = read(args.compare) if args.compare else []
    device = device_of(args.device)
    quiet()
    keep_freed_memory()  # as a run does; rivals gain as much
    half = device.type == "cuda"  # as trainer=gpu trains
    peak, rows = peaks(device.type, torch.bfloat16 if half else torch.float32), []
    for name in args.only or [name for name in NAMES if half or name != "gpt"]:
        print(f"{name} ...", flush=True)
        rows += measured(SHAPES[name](), device, half, args.rounds, peak)
    facts = {"device": device_name(device.type), "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    args.out.mkdir(parents=True, exist_ok=True)
    Console(width=None if sys.stdout.isatty() else WIDE).print(table(rows))
    print("\n".join(changes(before, rows)))
    write(args.out / "bench.json", rows, facts | {"peak": peak.operations})
    draw(args.out / "bench.png", rows, f"{facts['device']}, torch {facts['torch']}, {facts['date']}")
    print(f"table    {args.out / 'bench.json'}\npicture  {args.out / 'bench.png'}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
