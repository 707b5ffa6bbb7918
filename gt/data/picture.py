"""Pictures of a few graphs in a force-directed layout, and writing of figures."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gt.data.files import atomic_file
from gt.graph import GraphBatch
from gt.schema import Schema

LARGEST = 200  # maximum number of nodes drawn of a graph: those nearest to its first node with an edge
COLOURS = mpl.colormaps["tab20"]
UNKNOWN = (0.8, 0.8, 0.8, 1.0)
ROUNDS = 120


def layout(ends: np.ndarray, nodes: int) -> np.ndarray:
    """(nodes, 2) positions: neighbours attract and all nodes repel each other (Fruchterman & Reingold 1991).

    Args:
        ends: (2, E) node indices.
    """
    links = np.zeros((nodes, nodes), bool)
    links[ends[0], ends[1]] = links[ends[1], ends[0]] = True
    np.fill_diagonal(links, False)
    position = _spectral(links)
    ideal = 1 / np.sqrt(max(nodes, 1))
    gravity = np.where(links.any(1), 0.3, 2.0)[:, None]  # keeps components together; the only pull on isolated nodes
    for heat in np.linspace(0.15, 0.002, ROUNDS):
        offset = position[:, None] - position[None]  # (n, n, 2)
        distance = np.maximum(np.sqrt((offset**2).sum(-1)), 1e-3)
        force = (ideal / distance) ** 2 - links * distance / ideal
        shift = (offset * force[..., None]).sum(1) - gravity * position
        length = np.maximum(np.sqrt((shift**2).sum(-1, keepdims=True)), 1e-9)
        position = position + shift / length * np.minimum(length, heat)
    return position


def _spectral(links: np.ndarray) -> np.ndarray:
    """The two smoothest non-trivial Laplacian eigenvectors plus noise: nodes at the same position would never part."""
    nodes = len(links)
    noise = np.random.default_rng(0).normal(size=(nodes, 2)) * 0.05
    if nodes < 3:
        return noise + np.arange(nodes)[:, None] * 0.3
    _, vectors = np.linalg.eigh(np.diag(links.sum(1)) - links.astype(float))
    return vectors[:, 1:3] + noise


def nearest(ends: np.ndarray, nodes: int, most: int) -> np.ndarray:
    """At most ``most`` nodes in the order of a breadth-first search from the first node with an incoming edge."""
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


def node_colours(batch: GraphBatch, schema: Schema) -> np.ndarray:
    """(N, 4) a colour for each node."""
    if batch.x is None or batch.x.shape[1] == 0:
        return COLOURS(np.zeros(batch.num_nodes, int))
    first = batch.x[:, 0].numpy()
    if schema.node_vocab:
        return COLOURS(first % COLOURS.N)
    if schema.level == "node" and schema.kind == "multiclass" and batch.y is not None:
        classes = batch.y.numpy()
        return np.where(classes[:, None] >= 0, COLOURS(classes % COLOURS.N), UNKNOWN)
    low, high = first.min(initial=0), first.max(initial=0)
    return mpl.colormaps["viridis"]((first - low) / max(high - low, 1e-9))


def draw(batch: GraphBatch, schema: Schema, path: Path, count: int = 6) -> None:
    """Draw a few graphs of a batch, evenly over their sizes, and write them to a PNG file.

    Nodes are coloured by their first feature: categories with the same colours in all pictures, numbers from dark to
    light. If it is a number and nodes have classes, they are coloured by class.
    """
    batch.finish()
    sizes = batch.sizes[: batch.num_graphs - batch.padding[0]].numpy()
    order = np.argsort(sizes, kind="stable")
    chosen = order[np.unique(np.linspace(0.1, 0.95, min(count, len(order))) * (len(order) - 1)).astype(int)]
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.9 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).ravel():
        axes.axis("off")
    colours = node_colours(batch, schema)
    ptr, edge_ptr = batch.ptr.tolist(), batch.rowptr[batch.ptr].tolist()
    for axes, graph in zip(figure.axes, chosen.tolist(), strict=False):
        nodes, edges = ptr[graph + 1] - ptr[graph], edge_ptr[graph + 1] - edge_ptr[graph]
        ends = batch.edge_index[:, edge_ptr[graph] : edge_ptr[graph + 1]].numpy() - ptr[graph]
        visible = np.arange(nodes) if nodes <= LARGEST else nearest(ends, nodes, LARGEST)
        number = np.full(nodes, -1)
        number[visible] = np.arange(len(visible))
        ends = number[ends]
        ends = ends[:, (ends >= 0).all(0)]
        position = layout(ends, len(visible))
        width = 0.8 * min(1.0, (500 / max(ends.shape[1], 1)) ** 0.7)  # many edges would blur into a blot
        axes.plot(*(position[ends, axis] for axis in (0, 1)), color="#999999", lw=width, zorder=1)
        colour, area = colours[ptr[graph] : ptr[graph + 1]][visible], max(8, 600 / max(len(visible), 8))
        axes.scatter(position[:, 0], position[:, 1], c=colour, s=area, zorder=2, linewidths=0)
        note = "" if len(visible) == nodes else f"\n{len(visible)} nodes shown"
        axes.set_title(_title(batch, graph, nodes, edges, schema) + note)
        axes.set_aspect("equal", "datalim")
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"font.size": 9}):
        write_picture(path, figure)


def write_picture(path: Path, figure: Figure) -> None:
    """Write a figure to a PNG file atomically."""
    with atomic_file(path) as file:
        figure.savefig(file, dpi=130, format="png")
