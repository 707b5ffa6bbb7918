"""``python -m gt.lottery``: measure how this machine computes attention best, keep that, and show it.

Writes the cost table that ``backend=auto`` goes by into the user's cache folder, and a copy of it, a table (JSON) and a
picture of every backend on a grid of workloads into a folder that it names.
"""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from gt.cli.program import device_of, importing, quick_exit
from gt.errors import Parser, one_line

WIDE = 180  # columns of a file or a pipe
TRAINED_IN = {"cpu": "float32", "cuda": "bfloat16"}  # what trainer=cpu and trainer=gpu compute attention in


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.lottery", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--out", type=Path, default=Path("runs/lottery"), help="folder of the tables and the picture")
    parser.add_argument("--table-only", action="store_true", help="measure what auto goes by, in a minute, and stop")
    parser.add_argument("--keep", action="store_true", help="go by the table that is there; measure the grid alone")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells that it starts and stops
    with importing():  # late: --help and a typo answer at once
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
    keep_freed_memory()  # as the runs do that go by these times
    kind = args.dtype or TRAINED_IN[device]
    dtype, console = getattr(torch, kind), Console(width=None if sys.stdout.isatty() else WIDE)
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.keep:
        measured = measure(device, dtype, lambda cases: track(cases, description="measuring costs", console=console))
        kept, copy = costs.table_path(device, kind != "float32"), args.out / f"costs-{device}.json"
        for path in (kept, copy):
            measured.write(path)
        costs.cost_table.cache_clear()
        console.print(f"auto now goes by {kept}\na copy of it is {copy}", soft_wrap=True)
    if args.table_only:
        return
    peak = peaks(device, dtype)
    rows = [compare(w, device, dtype, peak) for w in track(workloads(), description="the grid", console=console)]
    swept = [
        compare(w, device, dtype, peak, layers=False)
        for w in track(densities(), description="densities", console=console)
    ]
    facts = {
        "device": costs.device_name(device),
        "torch": torch.__version__,
        "dtype": kind,
        "date": datetime.now(UTC).date().isoformat(),
    }
    console.print(table(rows))
    for line in verdict(rows):
        console.print(line)
    console.print(f"table    {write(args.out, rows, swept, facts, peak)}")
    console.print(f"picture  {draw(args.out, swept, facts)}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
