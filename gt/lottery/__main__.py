"""``python -m gt.lottery``: measure the attention backends on this machine, save their costs and show them.

Writes the cost table used by ``backend=auto`` to the user's cache folder and, to the output folder, a copy of it and a
table (JSON) and a picture of all backends on a grid of workloads.
"""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from gt.cli.program import device_of, importing, quick_exit
from gt.errors import Parser, one_line

PIPE_WIDTH = 180  # columns when the output is not a terminal
DEFAULT_DTYPE = {"cpu": "float32", "cuda": "bfloat16"}  # of attention with trainer=cpu and trainer=gpu


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.lottery", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--out", type=Path, default=Path("runs/lottery"), help="folder for the tables and the picture")
    parser.add_argument(
        "--table-only", action="store_true", help="only measure the cost table of auto, which takes a minute"
    )
    parser.add_argument("--keep", action="store_true", help="keep the existing cost table and measure only the grid")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silence the profiler's start and stop messages
    with importing():  # late, so that --help and typos are answered at once
        import torch
        from rich.console import Console
        from rich.progress import track

        from gt.allocation import keep_freed_memory
        from gt.attention import costs
        from gt.lottery.compare import compare, peaks
        from gt.lottery.measure import measure
        from gt.lottery.picture import draw
        from gt.lottery.show import table, verdict, write
        from gt.lottery.workloads import densities, workloads
    device = device_of(args.device).type
    keep_freed_memory()  # as runs do, which use these times
    dtype_name = args.dtype or DEFAULT_DTYPE[device]
    dtype, console = getattr(torch, dtype_name), Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.keep:
        measured = measure(device, dtype, lambda cases: track(cases, description="measuring costs", console=console))
        path_in_cache, copy = costs.table_path(device, dtype_name != "float32"), args.out / f"costs-{device}.json"
        for path in (path_in_cache, copy):
            measured.write(path)
        costs.cost_table.cache_clear()
        console.print(f"auto now uses {path_in_cache}\ncopied to {copy}", soft_wrap=True)
    if args.table_only:
        return
    peak = peaks(device, dtype)
    rows = [
        compare(workload, device, dtype, peak)
        for workload in track(workloads(), description="the grid", console=console)
    ]
    sweep = [
        compare(workload, device, dtype, peak, layers=False)
        for workload in track(densities(), description="densities", console=console)
    ]
    metadata = {
        "device": costs.device_name(device),
        "torch": torch.__version__,
        "dtype": dtype_name,
        "date": datetime.now(UTC).date().isoformat(),
    }
    console.print(table(rows))
    for line in verdict(rows):
        console.print(line)
    console.print(f"table    {write(args.out, rows, sweep, metadata, peak)}")
    console.print(f"picture  {draw(args.out, sweep, metadata)}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
