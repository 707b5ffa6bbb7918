"""Results of the lottery: a table, a verdict, and a file."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from gt.lottery.compare import Peaks, Row
from gt.lottery.timing import ms

RIVALS = ("TransformerConv", "GATv2Conv", "MultiheadAttention")


def table(rows: list[Row]) -> Table:
    """Medians in milliseconds with their spread, the choice of ``auto``, and whole layers."""
    out = Table(title="attention, forward and backward, ms (median ± half the interquartile range)")
    backends = sorted({name for row in rows for name in row.times})
    layers = [name for name in ("gt", *RIVALS) if any(name in row.layers for row in rows)]
    out.add_column("workload")
    out.add_column("density", justify="right")
    for name in backends:
        out.add_column(name, justify="right")
    out.add_column("auto", justify="right")
    out.add_column("roofline", justify="right")
    for name in layers:
        out.add_column(f"layer: {name}", justify="right")
    for row in rows:
        cells = [row.workload, f"{row.density:.1%}"]
        cells += [ms(row.times[name]) if name in row.times else "-" for name in backends]
        cells += [f"{row.chosen} +{row.regret:.0%}", f"{row.floor / row.median(row.best):.0%}"]
        cells += [ms(row.layers[name]) if name in row.layers else "-" for name in layers]
        out.add_row(*cells)
    return out


def verdict(rows: list[Row]) -> list[str]:
    """How often ``auto`` is near the fastest backend, and our layer compared with others."""
    lines = []
    for variant, regrets in (
        ("by its cost table alone", [row.regret_unsettled for row in rows]),
        ("after timing close calls, as runs do,", [row.regret for row in rows]),
    ):
        near, far = (sum(regret <= limit for regret in regrets) for limit in (0.10, 0.25))
        lines.append(
            f"auto {variant} is within 10 % of the fastest backend on {near} of {len(rows)}, within 25 % on {far}"
        )
    for name in RIVALS:
        ratios = sorted(row.median(name) / row.median("gt") for row in rows if name in row.layers)
        if ratios:
            lines.append(
                f"the layer takes 1 / {ratios[len(ratios) // 2]:.1f} of {name}'s time "
                f"(median of {len(ratios)}; minimum {ratios[0]:.1f}, maximum {ratios[-1]:.1f})"
            )
    return lines


def write(folder: Path, rows: list[Row], sweep: list[Row], metadata: dict[str, str], peak: Peaks) -> Path:
    """Write all measurements as JSON, atomically."""
    path = folder / "lottery.json"
    temporary = path.with_suffix(".part")
    record = {
        "machine": metadata,
        "peaks": asdict(peak),
        "grid": [asdict(row) for row in rows],
        "densities": [asdict(row) for row in sweep],
    }
    temporary.write_text(json.dumps(record, indent=1))
    os.replace(temporary, path)
    return path
