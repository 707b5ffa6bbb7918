"""Structure without edges: does a complete Transformer attend to neighbours in a graph that was withheld from it?"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn

from gt.cli.demo.runs import begin, open_run, settings, train_once
from gt.cli.diagnosis import sample_batches
from gt.data.picture import write_picture
from gt.errors import UserError
from gt.inference.analysis import Reach, attention_reach
from gt.layers import Attention, name_of, parts_of, reads_of
from gt.model import GraphTransformer
from gt.prediction.table import write
from gt.schema import Schema, format_number
from gt.train.network import build, network_config

USUAL = ("data=hidden_grid", "data.batch_size=32", "encoding=none", "model.depth=2", "model.block.dropout=0.0",
         "optim.lr=0.002", "trainer.max_epochs=3")  # fmt: skip
FARTHEST = 6  # hops that are distinguished
BATCHES = 8


def check_withheld(net: nn.Module) -> None:
    """Check that no part of a network reads edges or anything computed from them.

    Raises:
        UserError: names the part that does.
    """
    if not isinstance(net, GraphTransformer):
        raise UserError(f"{type(net).__name__} does not declare what it reads: choose model=transformer")
    for mask in net.masks_of_training():
        if mask.limits is None:
            raise UserError(f"the mask {mask} follows edges: keep the default mask")
    for encoding in net.encodings:
        if encoding.reads != "position":
            raise UserError(f"{type(encoding).__name__} is computed from edges: choose encoding=none or sinusoidal")
    for part in (part for block in net.blocks for part in parts_of(block)):
        by_hops = isinstance(part, Attention) and (part.demand("cpu", False).hops is not None or part.reads_edges)
        if by_hops or reads_of(part) in ("edges", "graph"):
            raise UserError(f"{name_of(part)} reads edges: remove it, or keep the default model")


def columns() -> list[str]:
    """The names of the distance columns."""
    return [*(f"hops_{d}" for d in range(FARTHEST + 1)), "further"]


def shares(reach: Reach) -> pd.DataFrame:
    """The share of attention at each distance: rows for each head and, in each layer, for uniform attention."""
    rows = []
    for layer, (heads, even) in enumerate(zip(reach.share, reach.even, strict=True)):
        for head, share in [*((str(n), share) for n, share in enumerate(heads)), ("even", even)]:
            rows.append({"layer": layer, "head": head, **dict(zip(columns(), share.tolist(), strict=True))})
    return pd.DataFrame(rows)


def best_head(reach: Reach) -> tuple[int, int]:
    """The layer and head with the largest share of attention to nodes one hop away."""
    layer = max(range(len(reach.share)), key=lambda index: float(reach.share[index][:, 1].max()))
    return layer, int(reach.share[layer][:, 1].argmax())


def table(reach: Reach) -> Table:
    """For each layer the head that attends to neighbours most, the mean of all heads, and uniform attention."""
    out = Table("layer", "head", title="share of attention by distance in the withheld graph")
    for heading in [*(f"{d} hop{'' if d == 1 else 's'}" for d in range(FARTHEST + 1)), "further"]:
        out.add_column(heading, justify="right")
    for layer, (heads, even) in enumerate(zip(reach.share, reach.even, strict=True)):
        best = int(heads[:, 1].argmax())
        for name, share in ((str(best), heads[best]), ("mean", heads.mean(0)), ("even", even)):
            out.add_row(str(layer), name, *(f"{value:.3f}" for value in share.tolist()), end_section=name == "even")
    return out


def verdict(reach: Reach) -> str:
    """One sentence on how much attention goes to neighbours."""
    layer, head = best_head(reach)
    share, even = float(reach.share[layer][head, 1]), float(reach.even[layer, 1])
    return (
        f"layer {layer}, head {head} gives {share:.2f} of its attention to nodes one hop away, "
        f"{share / even:.1f} times the {even:.2f} of uniform attention"
    )


def draw(reach: Reach, title: str, path: Path) -> None:
    """Plot the shares of heads over distance, with uniform attention; a panel for each layer."""
    layers = len(reach.share)
    across = min(layers, 4)
    rows = -(-layers // across)
    figure = Figure(figsize=(3.6 * across + 0.6, 3.3 * rows + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    best = best_head(reach)
    distances = range(FARTHEST + 2)
    grid = figure.subplots(rows, across, squeeze=False, sharey=True).flat
    for axes in grid[layers:]:
        axes.axis("off")
    for layer, axes in enumerate(grid[:layers]):
        labelled = int(best[1] == 0)  # the head whose line represents all but the best in the legend
        for head, share in enumerate(reach.share[layer]):
            chosen = (layer, head) == best
            axes.plot(distances, share, ".-", color="#cc3311" if chosen else "#4477aa", alpha=1.0 if chosen else 0.5,
                      label=f"head {head}" if chosen else "a head" if head == labelled else None)  # fmt: skip
        axes.plot(distances, reach.even[layer], "--", color="black", label="uniform")
        axes.set_xticks(distances, [*map(str, range(FARTHEST + 1)), "further"], fontsize=8)
        axes.set_title(f"layer {layer}", fontsize=9)
        axes.set_xlabel("hops away in the withheld graph", fontsize=8)
        axes.set_ylim(0, 1.08 * float(max(values.max() for values in (*reach.share, reach.even))))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        if layer % across == 0:
            axes.set_ylabel("share of attention")
    write_picture(path, figure)


def demonstrate(arguments: Sequence[str], folder: Path, console: Console) -> None:
    """Train without edges, then measure where attention goes."""
    overrides = settings(arguments, USUAL)
    config = network_config(begin(folder, overrides))
    check_withheld(build(config, Schema(node_vocab=(2,), edge_vocab=(2,), max_nodes=1)))  # before reading the data
    result = train_once(folder / "run", overrides)
    task, data = open_run(folder / "run")
    reach = attention_reach(task.net, sample_batches(data, result["split"], BATCHES), FARTHEST)
    if reach is None:
        raise UserError("the network has no attention, or the graphs are too large to measure it: choose other data")
    name = result["criterion"]
    console.print(f"{result['split']} {name} {format_number(result['scores'][name])}, "
                  f"trivial baseline {format_number(result['baseline'].get(name, float('nan')))}")  # fmt: skip
    console.print(table(reach))
    console.print(verdict(reach), soft_wrap=True)
    write(shares(reach), folder / "structure.csv")
    draw(reach, "edges were withheld: do heads attend to neighbours?", folder / "structure.png")
    console.print(f"table    {folder / 'structure.csv'}\npicture  {folder / 'structure.png'}", soft_wrap=True)
