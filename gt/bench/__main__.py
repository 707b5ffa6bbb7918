"""``python -m gt.bench``: compare the cost of a training step with standard PyG and PyTorch alternatives.

Times the networks of this package in a bare loop and with the trainer, and PyG's GPSConv or PyTorch's
TransformerEncoder of the same shape, in turn and in one process. Writes a table (JSON) and a picture.
"""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from gt.cli.program import device_of, importing, quick_exit
from gt.errors import Parser, UserError, nearest, one_line

PIPE_WIDTH = 180  # columns when the output is not a terminal
MODES = ("default", "reduce-overhead", "max-autotune", "cuda-graphs")
NAMES = ("gps_molhiv", "gps_molhiv_128", "gps_zinc", "gpt_small", "gpt", "large")


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.bench", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"some of {', '.join(NAMES)} (default: all, on a CPU all but gpt)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--rounds", type=int, default=20, help="timed steps per program (default: 20)")
    parser.add_argument("--compile", choices=MODES, help="also time the network in this mode of trainer.compile")
    parser.add_argument("--compare", type=Path, metavar="bench.json", help="compare with an earlier result")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for the table and the picture")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    for name in args.only or ():
        if name not in NAMES:
            raise UserError(f"no shape '{name}': {nearest(name, NAMES)}")
    if args.rounds < 1:
        raise UserError(f"--rounds must be 1 or more, not {args.rounds}")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silence the profiler's start and stop messages
    with importing():  # late, so that --help and typos are answered at once
        import torch
        from rich.console import Console

        from gt.allocation import keep_freed_memory
        from gt.attention.costs import device_name
        from gt.bench.shapes import SHAPES
        from gt.bench.show import changes, draw, read, table, write
        from gt.bench.steps import measure
        from gt.lottery.compare import peaks
        from gt.train.logging import quiet
    earlier = read(args.compare) if args.compare else []
    device = device_of(args.device)
    if args.compile == "cuda-graphs" and device.type != "cuda":
        raise UserError("--compile cuda-graphs needs a GPU: choose another mode")
    quiet()
    keep_freed_memory()  # as runs do; the alternatives gain as much
    half = device.type == "cuda"  # as trainer=gpu does
    peak, rows = peaks(device.type, torch.bfloat16 if half else torch.float32), []
    for name in args.only or [name for name in NAMES if half or name != "gpt"]:
        print(f"{name} ...", flush=True)
        rows += measure(SHAPES[name](), device, half, args.rounds, peak, args.compile)
    metadata = {"device": device_name(device.type), "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    args.out.mkdir(parents=True, exist_ok=True)
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table(rows))
    print("\n".join(changes(earlier, rows)))
    write(args.out / "bench.json", rows, metadata | {"peak": peak.operations})
    draw(args.out / "bench.png", rows, f"{metadata['device']}, torch {metadata['torch']}, {metadata['date']}")
    print(f"table    {args.out / 'bench.json'}\npicture  {args.out / 'bench.png'}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
