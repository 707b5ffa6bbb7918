"""Plot of time against density for each backend, and of the choice of ``auto``."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib

from gt.lottery.compare import Row

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def crossings(rows: Sequence[Row]) -> list[float]:
    """Densities at which the fastest backend changes."""
    return [(a.density * b.density) ** 0.5 for a, b in pairwise(rows) if a.best != b.best]


def draw(folder: Path, rows: Sequence[Row], metadata: Mapping[str, str]) -> Path:
    """Write ``lottery.png``; rows are sorted by density."""
    figure, axes = plt.subplots(figsize=(8, 5), dpi=120)
    names = sorted({name for row in rows for name in row.times})
    for name in names:
        measured = [row for row in rows if name in row.times]
        density = [100 * row.density for row in measured]
        times = [sorted(row.times[name]) for row in measured]
        (line,) = axes.plot(
            density, [1e3 * row.median(name) for row in measured], label=name, marker=".", linewidth=1.5
        )
        low, high = ([1e3 * t[quartile * (len(t) - 1) // 4] for t in times] for quartile in (1, 3))
        axes.fill_between(density, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    chosen = [1e3 * row.median(row.chosen) for row in rows]
    axes.plot([100 * row.density for row in rows], chosen, "o", mfc="none", mec="black", ms=9, label="chosen by auto")
    for number, crossing in enumerate(crossings(rows)):
        axes.axvline(100 * crossing, color="grey", linestyle=":", label="crossover" if number == 0 else None)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("density of the mask, % of all pairs")
    axes.set_ylabel("forward and backward, ms")
    axes.set_title(
        f"{rows[0].workload.partition(',')[0]}\n{metadata['device']}, torch {metadata['torch']}", fontsize=10
    )
    axes.legend(frameon=False)
    axes.grid(alpha=0.2)
    path = folder / "lottery.png"
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return path
