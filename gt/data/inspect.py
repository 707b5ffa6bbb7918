"""Statistics of a dataset: sizes, features, labels, diameters, and the cost of attention masks."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from gt.attention import Demand, choose, explain
from gt.data.batch_sampler import Batches
from gt.data.batching import gather
from gt.data.datamodule import DataModule
from gt.data.graphs import Stored
from gt.graph import GraphBatch
from gt.losses import classes
from gt.masks import Complete, Hops, Mask
from gt.schema import Schema, pluralise

SAMPLED = 256  # graphs whose diameters are estimated
BATCHES = 20  # examined if the source generates its graphs on the fly
LARGEST = 5_000_000  # edges up to which a single graph is examined as a whole
SHOWN = 12  # classes or tasks with a row of their own
WALKS = 30_000_000  # two-step walks in a batch up to which the pairs within two hops are listed
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Contents:
    """The graphs and features that are examined.

    Attributes:
        nodes, edges: (G,) of each graph; in_degree: (N,) incoming edges of each node.
        sample: some graphs, evenly over all sizes; for a single large graph, a training batch of it.
        batch: a training batch of median size.
        x: (N, F) node features, edge_attr: (E, F') edge features, or None.
        whole: all graphs of the dataset are counted, rather than those of a few batches.
    """

    nodes: np.ndarray
    edges: np.ndarray
    in_degree: np.ndarray
    sample: GraphBatch
    batch: GraphBatch
    x: np.ndarray | None
    edge_attr: np.ndarray | None
    whole: bool


def contents(data: DataModule) -> Contents:
    """Examine an open dataset."""
    graphs, batches = data.graphs if isinstance(data, Stored) else None, data.batches("train")
    if graphs is None:
        return _contents_of(list(islice(data.loader("train"), BATCHES)))
    nodes, edges = graphs.sizes, np.diff(graphs.edge_ptr)
    targets = np.asarray(graphs.edge_index)[1] + np.repeat(graphs.node_ptr[:-1], edges)
    if len(graphs) == 1 or not isinstance(batches, Batches):
        sampled = _contents_of(list(islice(data.loader("train"), BATCHES)))
        return replace(
            sampled,
            nodes=nodes,
            edges=edges,
            in_degree=np.bincount(targets, minlength=int(graphs.node_ptr[-1])),
            sample=gather(graphs, [0]) if edges.sum() <= LARGEST else sampled.sample,
            x=graphs.nodes.get("x"),
            edge_attr=graphs.edges.get("edge_attr"),
            whole=True,
        )
    by_size = np.argsort(nodes, kind="stable")
    sample = by_size[np.unique(np.linspace(0, len(nodes) - 1, min(SAMPLED, len(nodes))).astype(int))]
    plan = sorted(batches.plan(), key=lambda ids: int(nodes[np.asarray(graphs.splits["train"])[ids]].sum()))
    batch = plan[len(plan) // 2]
    return Contents(
        nodes,
        edges,
        np.bincount(targets, minlength=int(graphs.node_ptr[-1])),
        gather(graphs, sample),
        gather(graphs, np.asarray(graphs.splits["train"])[batch]),
        graphs.nodes.get("x"),
        graphs.edges.get("edge_attr"),
        whole=True,
    )


def _contents_of(batches: list[GraphBatch]) -> Contents:
    finished = [(batch.finish(), batch.padding) for batch in batches]
    real = [slice(0, batch.num_nodes - padding[1]) for batch, padding in finished]
    sizes = [batch.sizes[: batch.num_graphs - padding[0]] for batch, padding in finished]
    edges = [batch.rowptr[batch.ptr].diff()[: batch.num_graphs - padding[0]] for batch, padding in finished]
    middle = sorted(batches, key=lambda batch: batch.num_nodes)[len(batches) // 2]
    xs = [batch.x[rows] for (batch, _), rows in zip(finished, real, strict=True) if batch.x is not None]
    attributes = [batch.edge_attr for batch in batches if batch.edge_attr is not None]
    return Contents(
        torch.cat(sizes).numpy(),
        torch.cat(edges).numpy(),
        torch.cat([batch.in_degree[rows] for (batch, _), rows in zip(finished, real, strict=True)]).numpy(),
        batches[0],
        middle,
        torch.cat(xs).numpy() if xs else None,
        torch.cat(attributes).numpy() if attributes else None,
        whole=False,
    )


def double_sweep(batch: GraphBatch) -> tuple[np.ndarray, np.ndarray]:
    """A lower bound on the diameter of each graph, edges taken as undirected, and whether it is connected.

    Goes from the node of highest degree to the furthest node, and from there to the furthest again (Magnien et al.
    2009): exact on trees; in a disconnected graph, that of the component of the first node.

    Returns:
        (B,) int64 hops and (B,) bool; a graph without nodes has neither and counts as connected.
    """
    owner, graphs = batch.batch.numpy(), batch.num_graphs
    ends = batch.edge_index.numpy()
    ends = np.concatenate([ends, ends[::-1]], axis=1)
    degree = np.bincount(ends[0], minlength=batch.num_nodes)
    first = _hops_from(ends, _argmax_by_graph(degree, owner, graphs), batch.num_nodes)
    second = _hops_from(ends, _argmax_by_graph(first, owner, graphs), batch.num_nodes)
    furthest = np.zeros(graphs, np.int64)
    np.maximum.at(furthest, owner, second)
    disconnected = np.bincount(owner[first < 0], minlength=graphs) > 0
    return furthest, ~disconnected


def _argmax_by_graph(values: np.ndarray, owner: np.ndarray, graphs: int) -> np.ndarray:
    """The node of the largest value in each non-empty graph."""
    order = np.lexsort((values, owner))
    last = np.searchsorted(owner[order], np.arange(graphs), side="right") - 1
    last_of = order[np.maximum(last, 0)]
    return last_of[owner[last_of] == np.arange(graphs)]


def _hops_from(ends: np.ndarray, starts: np.ndarray, nodes: int) -> np.ndarray:
    """(N,) hops from the nearest start node; -1 if unreachable."""
    hops = np.full(nodes, -1)
    hops[starts] = 0
    hop, frontier = 0, hops == 0
    while frontier.any():
        hop += 1
        reached = ends[1][frontier[ends[0]]]
        frontier = np.zeros(nodes, bool)
        frontier[reached] = True
        frontier &= hops < 0
        hops[frontier] = hop
    return hops


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left")
    return table


def size_table(contents: Contents) -> Table:
    """Nodes, edges, degrees and diameters."""
    one, scope = len(contents.nodes) == 1, "" if contents.whole else ", in some training batches"
    nodes, edges = contents.nodes, contents.edges
    title = f"{pluralise(len(nodes), 'graph')}, {nodes.sum():,} nodes, {edges.sum():,} edges{scope}"
    table = _table(title, "", "least", "mean", "median", "most")
    hops, connected = double_sweep(contents.sample)
    rows = {} if one else {"nodes of a graph": contents.nodes, "edges of a graph": contents.edges}
    rows |= {"edges a node reads": contents.in_degree}
    for name, values in (*rows.items(), (f"diameter (at least{'' if one else f'; of {len(hops)} graphs'})", hops)):
        numbers = (values.min(), values.mean(), np.median(values), values.max()) if len(values) else (0, 0, 0, 0)
        table.add_row(name, f"{numbers[0]:,}", f"{numbers[1]:,.2f}", f"{numbers[2]:,.0f}", f"{numbers[3]:,}")
    isolated = float((contents.in_degree == 0).mean()) if len(contents.in_degree) else 0.0
    connectivity = f"{1 - connected.mean():.1%} of the sampled graphs are disconnected"
    if one:
        connectivity = "the graph is connected" if connected.all() else "the graph is disconnected"
    table.caption = f"{isolated:.1%} of nodes have no incoming edges; {connectivity}"
    return table


def feature_table(contents: Contents, schema: Schema) -> Table:
    """Each column of node and edge features: its vocabulary, the values that occur and the most frequent one."""
    table = _table("features", "", "values", "that occur", "most frequent", "its share")
    columns = (("node", contents.x, schema.node_vocab), ("edge", contents.edge_attr, schema.edge_vocab))
    for name, values, vocab in columns:
        if values is None:
            table.add_row(name, "none")
        elif not vocab:
            table.add_row(f"{name}: {values.shape[1]} numbers", "", "", f"mean {np.mean(values):.3g}", "")
        for column, size in enumerate(vocab if values is not None else ()):
            counts = np.bincount(np.asarray(values)[:, column], minlength=size)
            top, total = int(counts.argmax()), max(int(counts.sum()), 1)
            label = repr(schema.names[top]) if name == "node" and schema.is_language_model else str(top)
            table.add_row(
                f"{name} column {column}", f"{size:,}", f"{(counts > 0).sum():,}", label, f"{counts[top] / total:.1%}"
            )
    return table


def label_table(data: DataModule) -> Table:
    """The targets of each split: class shares, or mean and deviation, and how many are missing."""
    schema, splits = data.schema, [split for split in SPLITS if data.has(split)]
    table = _table(f"targets: for each {schema.level} {schema.answer()}", "", *splits)
    targets = [data.targets(split) for split in splits]
    if schema.level == "link":
        targets = [target[~target[:, 0].isnan()] for target in targets]  # without rivals
    samples = [len(data.dataset(split)) for split in splits]
    if schema.level == "node" and samples != list(map(len, targets)):
        table.add_row("graphs, or blocks", *(f"{count:,}" for count in samples))
    table.add_row("targets", *(f"{len(target):,}" for target in targets))
    for name, cells in _label_rows(schema, targets):
        table.add_row(name, *cells)
    return table


def _label_rows(schema: Schema, targets: list[Tensor]) -> Iterable[tuple[str, list[str]]]:
    if schema.kind == "multiclass":
        targets = [classes(schema, target) for target in targets]
        labelled = [target[target >= 0] for target in targets]
        yield "missing", [_share(1 - len(k) / max(t.numel(), 1)) for k, t in zip(labelled, targets, strict=True)]
        shares = [torch.bincount(k, minlength=schema.outputs) / max(len(k), 1) for k in labelled]
        order = shares[0].argsort(descending=True, stable=True)
        for index in order[:SHOWN].tolist():
            name = repr(schema.names[index]) if schema.names else str(index)
            yield f"class {name}", [_share(float(share[index])) for share in shares]
        if schema.outputs > SHOWN:
            rest = [_share(float(share[order[SHOWN:]].sum())) for share in shares]
            yield f"the other {schema.outputs - SHOWN} classes", rest
        return
    columns = [target.view(len(target), -1).double() for target in targets]
    for index in range(min(columns[0].shape[1], SHOWN)):
        values_by_split = [column[:, index] for column in columns]
        labelled = [values[~values.isnan()] for values in values_by_split]
        name = f"{schema.names[index] if schema.names else f'output {index}'}: " if schema.outputs > 1 else ""
        yield (
            f"{name}missing",
            [_share(1 - len(k) / max(len(v), 1)) for k, v in zip(labelled, values_by_split, strict=True)],
        )
        if schema.kind == "binary":
            yield f"{name}yes", [_share(float(k.mean())) if len(k) else "-" for k in labelled]
        else:
            yield f"{name}mean ± deviation", [f"{k.mean():.4g} ± {k.std(correction=0):.3g}" for k in labelled]
    if columns[0].shape[1] > SHOWN:
        yield f"{columns[0].shape[1] - SHOWN} more outputs", ["" for _ in targets]


def _share(value: float) -> str:
    return f"{value:.2%}"


def mask_table(batch: GraphBatch, demand: Demand) -> Table:
    """The cost of attention under each mask on a batch: pairs, and the expected time of each backend."""
    graphs, nodes = batch.num_graphs, batch.num_nodes
    share = 1 - nodes / (graphs * batch.max_nodes)
    table = _table(
        "masks", "", "pairs", "a node reads", "of all pairs", "auto takes", "expected ms, forward and backward"
    )
    padded = f", padded to {batch.max_nodes:,} each ({share:.0%} padding)" if graphs > 1 else ""
    table.caption = (
        f"on a training batch of {pluralise(graphs, 'graph')}, {nodes:,} nodes{padded}; "
        f"{demand.heads} heads of {demand.channels}, {demand.device}"
    )
    all_pairs = int((batch.sizes**2).sum())
    masks: dict[str, Mask] = {"Hops(1)": Hops(1), "Hops(2)": Hops(2), "Complete()": Complete()}
    for name, mask in masks.items():
        if name == "Hops(2)" and int(batch.in_degree[batch.edge_index[0]].sum()) > WALKS:
            table.add_row(name, "too many", "to list", "in passing", "-", "-")
            continue
        pairs = mask(batch)
        times = {k: v for k, v in explain(pairs, demand).items() if not isinstance(v, str)}
        shown = ", ".join(f"{backend} {1e3 * time:.2f}" for backend, time in sorted(times.items(), key=lambda i: i[1]))
        density = pairs.count / max(all_pairs, 1)
        reads = pairs.count / max(nodes, 1)
        table.add_row(name, f"{pairs.count:,}", f"{reads:.1f}", f"{density:.1%}", choose(pairs, demand), shown)
    return table
