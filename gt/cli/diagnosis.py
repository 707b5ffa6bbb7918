"""The batches, table and picture of a diagnosis."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from rich.table import Table

from gt.data.batch_sampler import Request
from gt.data.batching import BatchDataset
from gt.data.datamodule import DataModule
from gt.data.picture import write_picture
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference.whole_graph import WholeGraph

WIDE = 180  # console width for files and pipes
SENSITIVITY = "sensitivity_"


class LazyBatches(Sequence[GraphBatch]):
    """Batches that are collated on access."""

    def __init__(self, dataset: BatchDataset, requests: Sequence[Request]) -> None:
        self.dataset, self.requests = dataset, requests

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, index: int) -> GraphBatch:  # type: ignore[override]
        batch = self.dataset[self.requests[index]]
        if isinstance(batch, WholeGraph) and batch.num_nodes + batch.num_edges > batch.chunk:
            raise UserError(
                f"a graph of {batch.num_nodes:,} nodes exceeds data.chunk: set data.evaluate=sampled, or raise "
                "data.chunk if memory allows"
            )
        return batch


def sample_batches(data: DataModule, split: str, count: int) -> LazyBatches:
    """About ``count`` unpadded batches, evenly spaced over a split, which may be sorted by size.

    Raises:
        UserError: there is no such split.
    """
    data.check_split(split)
    requests = list(data.batches(split))
    return LazyBatches(data.dataset(split), requests[:: -(-len(requests) // count)])


def distances(measures: pd.DataFrame) -> list[int]:
    """The distances, in hops, at which sensitivity was measured."""
    return [
        int(end) for name in map(str, measures) if (end := name.removeprefix(SENSITIVITY)) != name and end.isdecimal()
    ]


def table(measures: pd.DataFrame) -> Table:
    """A table with a row for each layer: means over heads, and sensitivity at distances that are powers of two."""
    hops = [d for d in distances(measures) if d & (d - 1) == 0 and measures[f"{SENSITIVITY}{d}"].notna().any()]
    columns = {"dirichlet_energy": "Dirichlet energy", "effective_rank": "effective rank"}
    columns |= {"attention_entropy": "entropy", "sink_mass": "sink mass", "even_sink_mass": "if uniform"}
    columns |= {f"{SENSITIVITY}{d}": f"{d} hop{'' if d == 1 else 's'}" for d in hops}
    columns[f"{SENSITIVITY}further"] = "further"
    columns = {name: title for name, title in columns.items() if name in measures and measures[name].notna().any()}
    out = Table("layer", title="by layer; on the right the sensitivity of a node's state to nodes at each distance")
    for title in columns.values():
        out.add_column(title, justify="right")
    for _, row in measures.iterrows():
        out.add_row(row["layer"], *("-" if pd.isna(row[name]) else f"{row[name]:.3g}" for name in columns))
    return out


def draw(measures: pd.DataFrame, path: Path, title: str) -> None:
    """Write the picture of a diagnosis (PNG)."""
    names = [name for name in ("dirichlet_energy", "effective_rank", "attention_entropy", "sink_mass")
             if name in measures]  # fmt: skip
    figure = Figure(figsize=(4 * (1 + len(names) // 2) + 1.2, 7), layout="constrained")
    figure.suptitle(title, fontsize=11)
    halves: Any = figure.subfigures(1, 2, width_ratios=[len(names) // 2, 1.3])
    left, right = halves
    for axes, name in zip(left.subplots(2, len(names) // 2, squeeze=False).T.flat, names, strict=True):
        _plot_by_layer(axes, measures, name)
    _plot_sensitivity(right.subplots(), measures)
    write_picture(path, figure)


def _plot_by_layer(axes: Axes, measures: pd.DataFrame, name: str) -> None:
    """Plot one measure over the layers; for attention with a dot for each head."""
    titles = {
        "dirichlet_energy": ("Dirichlet energy", "0: adjacent nodes are alike"),
        "effective_rank": ("effective rank", "1: all nodes are alike up to a factor"),
        "attention_entropy": ("attention entropy", "1: uniform, 0: on one node"),
        "sink_mass": ("attention sink", "share of the node that gets most"),
    }
    layers = range(len(measures))
    for head in [column for column in map(str, measures) if column.startswith(f"{name}_head_")]:
        axes.plot(layers, measures[head], ".", color="#bbbbbb", label="a head" if head.endswith("_0") else None)
    axes.plot(layers, measures[name], "o-", ms=4, color="#4477aa", label="mean" if name == "sink_mass" else None)
    if name == "sink_mass":
        axes.plot(layers, measures["even_sink_mass"], "--", color="grey", label="if uniform")
        axes.legend(fontsize=8, loc="lower left")
    axes.set_title(f"{titles[name][0]}\n{titles[name][1]}", fontsize=9)
    axes.set_ylim(0, 1.05 if name == "attention_entropy" else 1.15 * axes.get_ylim()[1])
    step = -(-len(measures) // 9)
    axes.set_xticks(layers[::step], measures["layer"][::step], fontsize=8)
    axes.set_xlabel("layer", fontsize=8)
    axes.grid(alpha=0.3)


def _plot_sensitivity(axes: Axes, measures: pd.DataFrame) -> None:
    """Plot sensitivity over distance, a line for each layer."""
    hops, beyond = distances(measures), 1.2
    values = measures[[f"{SENSITIVITY}{d}" for d in hops]]
    axes.set_prop_cycle(color=_shades(len(measures)))
    for layer in range(1, len(measures)):  # the input depends on itself alone
        row = values.iloc[layer]
        positive = row.to_numpy() > 0  # a logarithmic scale has no zero
        (line,) = axes.plot([d for d, k in zip(hops, positive, strict=True) if k], row[positive], ".-",
                            label=f"layer {measures['layer'][layer]}")  # fmt: skip
        if (further := measures[f"{SENSITIVITY}further"][layer]) > 0:
            axes.plot(beyond * hops[-1], further, ">", color=line.get_color())
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if hops[-1] > 16:
        axes.set_xscale("symlog", base=2, linthresh=1)
        axes.set_xlim(-0.2, 1.5 * hops[-1])
        axes.xaxis.set_major_formatter(ScalarFormatter())
    if len(measures) <= 13:
        axes.legend(fontsize=8)
    axes.set_title("sensitivity to the features of nodes by distance\na line ends where it is zero, "
                   "> stands for all larger distances", fontsize=9)  # fmt: skip
    axes.set_xlabel("hops", fontsize=8)
    axes.set_ylabel("norm of the gradient", fontsize=8)
    axes.grid(alpha=0.3)


def _shades(count: int) -> list[tuple[float, float, float, float]]:
    """Colours from first to last layer."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * index / max(count - 2, 1)) for index in range(count)]
