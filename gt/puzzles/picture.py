"""The grid as a picture: an example graph next to each row, the attention mask above each column."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import Any

import matplotlib
import networkx as nx
import numpy as np

from gt.data.files import atomic_file
from gt.data.puzzles.base import Puzzle
from gt.data.puzzles.rings import RingTransfer
from gt.data.puzzles.sequences import AssociativeRecall, Copying, Needle
from gt.data.puzzles.structure import Connectivity, Distance
from gt.data.puzzles.trees import TreeMatch
from gt.graph import path_graphs
from gt.masks import Causal, Complete, Window
from gt.puzzles.cells import Result
from gt.puzzles.grid import SETTINGS, Row, Setting
from gt.schema import UNLABELLED

matplotlib.use("Agg")
from matplotlib import pyplot as plt

EXAMPLES: tuple[Puzzle, ...] = (  # small enough to draw
    RingTransfer(),
    TreeMatch(depth=4),
    Distance(),
    Connectivity(),
    Copying(length=4, pause=10),
    AssociativeRecall(pairs=7),
    Needle(length=24, noise=1),
)
TOKENS = 12  # length of the path that shows a mask, and of a line of a sequence
Results = Mapping[tuple[Row, Setting], Sequence[Result]]


def layout(graph: nx.Graph, puzzle: Puzzle) -> dict[int, Any]:
    """Position of each node."""
    if isinstance(puzzle, RingTransfer):
        return nx.circular_layout(graph)
    if isinstance(puzzle, TreeMatch):  # nodes are numbered as in a heap
        level = [int(np.log2(node + 1)) for node in graph]
        return {node: ((node + 1.5) / 2 ** level[node] - 1, -level[node]) for node in graph}
    if isinstance(puzzle, Distance | Connectivity):
        parts = [nx.kamada_kawai_layout(graph.subgraph(part)) for part in nx.connected_components(graph)]
        return {
            node: position + np.array([2.4 * column, 0])
            for column, part in enumerate(parts)
            for node, position in part.items()
        }
    line, column = np.divmod(np.arange(len(graph)), TOKENS)
    column = np.where(line % 2, TOKENS - 1 - column, column)  # each line continues where the last one ends
    return dict(enumerate(zip(column, -line, strict=True)))


def draw_example(axes: Any, puzzle: Puzzle) -> None:
    """Draw one graph of a puzzle: the usual feature grey, others coloured, labelled nodes ringed."""
    example = puzzle.draw(np.random.default_rng(0), 1)
    x, y = example.x[0, :, -1], example.y[0]
    graph = nx.empty_graph(len(x))
    graph.add_edges_from(example.edges.reshape(2, -1).T.tolist())
    majority = np.bincount(x).argmax()
    colours = ["lightgrey" if value == majority else matplotlib.colormaps["tab20"](value % 20) for value in x]
    edges = ["black" if label != UNLABELLED else "none" for label in y]
    positions = layout(graph, puzzle)
    nx.draw_networkx_edges(graph, positions, ax=axes, edge_color="grey", width=0.7)
    nx.draw_networkx_nodes(
        graph,
        positions,
        nodelist=range(len(x)),
        ax=axes,
        node_size=26,
        node_color=colours,
        edgecolors=edges,
        linewidths=1.4,
    )
    axes.margins(0.12)
    axes.axis("off")


def draw_mask(axes: Any, setting: Setting) -> None:
    """Draw a layer's attention mask on a path, one row per reader."""
    mask = Complete() if setting.hops is None else Window(setting.hops)  # on a path, hops are a symmetric window
    path = path_graphs([TOKENS])
    reads = mask(path).dense[0, 0].float()
    if setting.hops is None:  # light grey: future nodes, read only if nodes are not tokens
        reads = reads * (0.3 + 0.7 * Causal()(path).dense[0, 0])
    axes.imshow(reads, cmap="Greys", vmin=0, vmax=1.3)
    axes.set_xticks([])
    axes.set_yticks([])


def draw(path: Path, rows: Sequence[Row], results: Results) -> None:
    """Write the picture; cells are coloured by accuracy, from white at chance level to green at 1."""
    width, height = len(SETTINGS), len(rows)
    figure, grid = plt.subplots(
        height + 1,
        width + 2,
        figsize=(2.2 + 2.0 + 1.45 * width, 1.0 + 1.02 * (height + 1)),
        dpi=120,
        gridspec_kw={"width_ratios": [1.9, 1.3] + [1.0] * width, "wspace": 0.06, "hspace": 0.08},
        squeeze=False,
    )
    for axes in grid.flat:
        axes.axis("off")
    for setting, axes in zip(SETTINGS, grid[0, 2:], strict=True):
        axes.axis("on")
        draw_mask(axes, setting)
        axes.set_title(setting.name, fontsize=8)
    colours = matplotlib.colormaps["Greens"]
    examples = {puzzle.name: puzzle for puzzle in EXAMPLES}
    for row, line in zip(rows, grid[1:], strict=True):
        chance = results[row, SETTINGS[0]][0].chance
        line[0].text(0, 0.82, row.data, fontsize=10, weight="bold", va="top")
        needs = "\n".join(wrap(f"needs {row.needs}", 32))
        line[0].text(0, 0.6, f"{needs}\nencoding: {row.encoding_name}; chance {chance:.3f}", fontsize=7.5, va="top")
        draw_example(line[1], examples[row.data])
        for setting, axes in zip(SETTINGS, line[2:], strict=True):
            runs = results[row, setting]
            skill = max(0.0, fmean(result.skill for result in runs))
            solved = all(result.solved for result in runs)
            axes.add_patch(plt.Rectangle((0, 0), 1, 1, color=colours(0.75 * skill), ec="lightgrey"))
            text = f"{fmean(result.accuracy for result in runs):.3f}"
            style = {"weight": "bold" if solved else "normal", "color": "white" if skill > 0.6 else "black"}
            axes.text(0.5, 0.5, text, ha="center", va="center", **style)
            axes.set(xlim=(0, 1), ylim=(0, 1))
    figure.suptitle(
        "Which mask, encoding and depth solve which puzzle\n"
        "test accuracy, green from chance to 1, bold: solved; light grey: masked in sequences; ringed: labelled nodes",
        fontsize=10,
    )
    with atomic_file(path) as handle:
        figure.savefig(handle, format="png", bbox_inches="tight")
    plt.close(figure)
