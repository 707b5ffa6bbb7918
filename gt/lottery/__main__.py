"""``python -m gt.lottery``: measure how this machine computes attention best, keep that, and show it.

Writes the cost table that ``backend=auto`` goes by into the user's cache folder, and a copy of it, a table (JSON) and a
picture of every backend on a grid of workloads into a folder that it names.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gt.attention import costs
from gt.cli.program import quick_exit
from gt.errors import Parser, UserError, one_line
from gt.lottery.compare import Peaks, Row, compare, peaks
from gt.lottery.measure import measure
from gt.lottery.picture import draw
from gt.lottery.timing import ms
from gt.lottery.workloads import densities, workloads

RIVALS = ("TransformerConv", "GATv2Conv", "MultiheadAttention")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TRAINED_IN = {"cpu": "float32", "cuda": "bfloat16"}  # what trainer=cpu and trainer=gpu compute attention in


def table(rows: list[Row]) -> Table:
    """Medians in milliseconds with their spread, what ``auto`` took, and the layers beside it."""
    shown = Table(title="attention, forward and backward, ms (median, half the spread between quartiles)")
    backends = sorted({name for row in rows for name in row.times})
    layers = [name for name in ("gt", *RIVALS) if any(name in row.layers for row in rows)]
    shown.add_column("workload")
    shown.add_column("density", justify="right")
    for name in backends:
        shown.add_column(name, justify="right")
    shown.add_column("auto", justify="right")
    shown.add_column("roofline", justify="right")
    for name in layers:
        shown.add_column(f"layer: {name}", justify="right")
    for row in rows:
        cells = [row.workload, f"{row.density:.1%}"]
        cells += [ms(row.times[name]) if name in row.times else "-" for name in backends]
        cells += [f"{row.chosen} +{row.regret:.0%}", f"{row.floor / row.median(row.best):.0%}"]
        cells += [ms(row.layers[name]) if name in row.layers else "-" for name in layers]
        shown.add_row(*cells)
    return shown


def verdict(rows: list[Row]) -> list[str]:
    """How often ``auto`` was right, and the layers against what one would run instead."""
    within = [sum(row.regret <= most for row in rows) / len(rows) for most in (0.10, 0.25)]
    lines = [
        f"auto is within 10 % of the fastest backend on {within[0]:.0%} of the grid, within 25 % on {within[1]:.0%}"
    ]
    for name in RIVALS:
        ratios = sorted(row.median(name) / row.median("gt") for row in rows if name in row.layers)
        if ratios:
            lines.append(
                f"the layer takes 1 / {ratios[len(ratios) // 2]:.1f} of {name}'s time "
                f"(median of {len(ratios)}; {ratios[0]:.1f} at the least, {ratios[-1]:.1f} at the most)"
            )
    return lines


def write(folder: Path, rows: list[Row], swept: list[Row], facts: dict[str, str], peak: Peaks) -> Path:
    """Everything that was measured, as JSON; whole or not at all."""
    path = folder / "lottery.json"
    part = path.with_suffix(".part")
    table = {
        "machine": facts,
        "peaks": asdict(peak),
        "grid": [asdict(r) for r in rows],
        "densities": [asdict(r) for r in swept],
    }
    part.write_text(json.dumps(table, indent=1))
    os.replace(part, path)
    return path


WIDE = 180  # columns of a file or a pipe


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.lottery", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", choices=DTYPES, help="float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--out", type=Path, default=Path("runs/lottery"), help="folder of the tables and the picture")
    parser.add_argument("--table-only", action="store_true", help="measure what auto goes by and stop, in under 30 s")
    parser.add_argument("--keep", action="store_true", help="go by the table that is there; measure the grid alone")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("this machine has no GPU: choose --device cpu")
    kind = args.dtype or TRAINED_IN[args.device]
    dtype, console = DTYPES[kind], Console(width=None if sys.stdout.isatty() else WIDE)
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.keep:
        measured = measure(
            args.device, dtype, lambda cases: track(cases, description="measuring costs", console=console)
        )
        kept, copy = costs.cached_path(args.device), args.out / f"costs-{args.device}.json"
        for path in (kept, copy):
            measured.write(path)
        costs.cost_table.cache_clear()
        console.print(f"auto now goes by {kept}\na copy of it is {copy}", soft_wrap=True)
    if args.table_only:
        return
    peak = peaks(args.device, dtype)
    rows = [compare(w, args.device, dtype, peak) for w in track(workloads(), description="the grid", console=console)]
    swept = [
        compare(w, args.device, dtype, peak, layers=False)
        for w in track(densities(), description="densities", console=console)
    ]
    facts = {
        "device": costs.device_name(args.device),
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
