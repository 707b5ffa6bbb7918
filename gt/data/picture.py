"""A picture of a few graphs, laid out by springs; and how any picture is written."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gt.data.files import whole
from gt.graph import GraphBatch
from gt.schema import Schema

LARGEST = 200  # nodes drawn of a graph: those nearest to its first one with an edge
COLOURS = mpl.colormaps["tab20"]
UNKNOWN = (0.8, 0.8, 0.8, 1.0)
ROUNDS = 120


def layout(ends: np.ndarray, nodes: int) -> np.ndarray:
    """(nodes, 2) places in the plane: neighbours pull, all push apart (Fruchterman & Reingold 1991).

    Args:
        ends: (2, E) node numbers.
    """
    links = np.zeros((nodes, nodes), bool)
    links[ends[0], ends[1]] = links[ends[1], ends[0]] = True
    np.fill_diagonal(links, False)
    place = _spectral(links)
    ideal = 1 / np.sqrt(max(nodes, 1))
    centre = np.where(links.any(1), 0.3, 2.0)[:, None]  # holds parts together; single nodes have nothing else
    for heat in np.linspace(0.15, 0.002, ROUNDS):
        apart = place[:, None] - place[None]  # (n, n, 2)
        distance = np.maximum(np.sqrt((apart**2).sum(-1)), 1e-3)
        force = (ideal / distance) ** 2 - links * distance / ideal
        shift = (apart * force[..., None]).sum(1) - centre * place
        length = np.maximum(np.sqrt((shift**2).sum(-1, keepdims=True)), 1e-9)
        place = place + shift / length * np.minimum(length, heat)
    return place


def _spectral(links: np.ndarray) -> np.ndarray:
    """The two slowest modes of the Laplacian, slightly disturbed: nodes that share a place would never part."""
    nodes = len(links)
    noise = np.random.default_rng(0).normal(size=(nodes, 2)) * 0.05
    if nodes < 3:
        return noise + np.arange(nodes)[:, None] * 0.3
    _, vectors = np.linalg.eigh(np.diag(links.sum(1)) - links.astype(float))
    return vectors[:, 1:3] + noise


def nearest(ends: np.ndarray, nodes: int, most: int) -> np.ndarray:
    """Up to so many nodes, those that a search meets first; it begins at the first node that reads an edge."""
    hops = np.full(nodes, nodes)
    hops[ends[1].min() if ends.size else 0] = 0
    for hop in range(1, nodes):
        touched = np.concatenate([ends[1][hops[ends[0]] < hop], ends[0][hops[ends[1]] < hop]])
        fresh = np.unique(touched[hops[touched] > hop])
        if not len(fresh) or (hops < nodes).sum() >= most:
            break
        hops[fresh] = hop
    return np.sort(np.argsort(hops, kind="stable")[:most])


def _title(batch: GraphBatch, graph: int, nodes: int, edges: int, schema: Schema) -> str:
    target = ""
    if batch.y is not None and schema.level == "graph":
        values = batch.y[graph].flatten()
        values = values[: schema.positions] if schema.kind == "multiclass" else values
        of_class = schema.kind == "multiclass" and schema.names
        shown = [schema.names[int(v)] if of_class and v >= 0 else f"{float(v):.4g}" for v in values[:3]]
        target = f"\ntarget {', '.join(shown)}{', ...' if len(values) > 3 else ''}".replace("$", r"\$")
    return f"{nodes:,} nodes, {edges:,} edges{target}"


def coloured(batch: GraphBatch, schema: Schema) -> np.ndarray:
    """(N, 4) a colour for each node."""
    if batch.x is None or batch.x.shape[1] == 0:
        return COLOURS(np.zeros(batch.num_nodes, int))
    first = batch.x[:, 0].numpy()
    if schema.node_vocab:
        return COLOURS(first % COLOURS.N)
    if schema.level == "node" and schema.kind == "multiclass" and batch.y is not None:
        answers = batch.y.numpy()
        return np.where(answers[:, None] >= 0, COLOURS(answers % COLOURS.N), UNKNOWN)
    low, high = first.min(initial=0), first.max(initial=0)
    return mpl.colormaps["viridis"]((first - low) / max(high - low, 1e-9))


def draw(batch: GraphBatch, schema: Schema, path: Path, count: int = 6) -> None:
    """Draw a few graphs of a batch, evenly from the smallest to the largest, and write them as a PNG file.

    Nodes are coloured by their first feature: its categories alike in all pictures, numbers from dark to light. Where
    it is a number and each node has a class, they are coloured by this.
    """
    batch.finish()
    sizes = batch.sizes[: batch.num_graphs - batch.padding[0]].numpy()
    order = np.argsort(sizes, kind="stable")
    chosen = order[np.unique(np.linspace(0.1, 0.95, min(count, len(order))) * (len(order) - 1)).astype(int)]
    columns = min(3, len(chosen))
    lines = -(-len(chosen) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.9 * lines), layout="constrained")
    for axes in figure.subplots(lines, columns, squeeze=False).ravel():
        axes.axis("off")
    colours = coloured(batch, schema)
    ptr, edge_ptr = batch.ptr.tolist(), batch.rowptr[batch.ptr].tolist()
    for axes, graph in zip(figure.axes, chosen.tolist(), strict=False):
        nodes, edges = ptr[graph + 1] - ptr[graph], edge_ptr[graph + 1] - edge_ptr[graph]
        ends = batch.edge_index[:, edge_ptr[graph] : edge_ptr[graph + 1]].numpy() - ptr[graph]
        kept = np.arange(nodes) if nodes <= LARGEST else nearest(ends, nodes, LARGEST)
        number = np.full(nodes, -1)
        number[kept] = np.arange(len(kept))
        ends = number[ends]
        ends = ends[:, (ends >= 0).all(0)]
        place = layout(ends, len(kept))
        thin = 0.8 * min(1.0, (500 / max(ends.shape[1], 1)) ** 0.7)  # or many edges would be one blot
        axes.plot(*(place[ends, axis] for axis in (0, 1)), color="#999999", lw=thin, zorder=1)
        colour, area = colours[ptr[graph] : ptr[graph + 1]][kept], max(8, 600 / max(len(kept), 8))
        axes.scatter(place[:, 0], place[:, 1], c=colour, s=area, zorder=2, linewidths=0)
        part = "" if len(kept) == nodes else f"\n{len(kept)} nodes shown"
        axes.set_title(_title(batch, graph, nodes, edges, schema) + part)
        axes.set_aspect("equal", "datalim")
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"font.size": 9}):
        write_picture(path, figure)


def write_picture(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    with whole(path) as file:
        figure.savefig(file, dpi=130, format="png")
