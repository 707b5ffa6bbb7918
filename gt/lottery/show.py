"""What the lottery has measured: a table, its verdict, and a file."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from gt.lottery.compare import Peaks, Row
from gt.lottery.timing import ms

RIVALS = ("TransformerConv", "GATv2Conv", "MultiheadAttention")


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
    lines = []
    for what, regrets in (
        ("by its cost table alone", [row.regret_unsettled for row in rows]),
        ("with close calls settled, as a run does,", [row.regret for row in rows]),
    ):
        near, far = (sum(regret <= most for regret in regrets) for most in (0.10, 0.25))
        lines.append(
            f"auto {what} is within 10 % of the fastest backend on {near} of {len(rows)}, within 25 % on {far}"
        )
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
