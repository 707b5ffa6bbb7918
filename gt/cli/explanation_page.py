"""The HTML page of an explanation: scores over a molecule, graph or text, curves, edges, attention by head."""

import base64
import html
import io

import matplotlib as mpl
import matplotlib.image
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from gt.cli.explanation import METHODS, Explanation
from gt.data.picture import layout
from gt.schema import format_number
from gt.train.page import page as html_page
from gt.train.page import picture, table

MAX_LABELLED = 40  # nodes labelled beside an attention matrix; in larger graphs some have numbers
MAX_NODES = 120  # maximum number of nodes for attention matrices and for labelling every node of a drawing
MAX_NAMED = 10  # labelled nodes in larger drawings, those with the largest scores
LINE_HEIGHT = 14  # height of a label beside a matrix, in pixels
COLOURS = mpl.colormaps["RdBu_r"]


def page(answer: Explanation) -> str:
    """Render the HTML page, with all pictures embedded."""
    faithful = ([name, format_number(value)] for name, value in answer.faithfulness.items())
    parts = [
        f"<p>Prediction {html.escape(answer.prediction)}; target {html.escape(answer.target)}. Explained here: "
        f"the {html.escape(answer.explained)}; red increases it, blue decreases it.</p>",
        f"<p>{html.escape(answer.note)}</p>" if answer.note else "",
    ]
    for name, values in answer.scores.items():
        parts.append(f"<h2>{name.capitalize()}</h2><p>{METHODS[name].capitalize()}.</p>{draw_sample(answer, values)}")
    parts.append(
        "<h2>Faithfulness</h2><p>The answer as the highest-ranked nodes of a method are hidden, one after the other. "
        "The number is the gap to random rankings, relative to the range between the highest and the lowest point: "
        "0 is no better than chance.</p>"
        f"{table(('method', 'faithfulness'), faithful, words=['method'])}{picture(deletion(answer))}"
    )
    if len(answer.edge_scores):
        order = answer.edge_scores.abs().argsort(descending=True)[:10].tolist()
        ends = (" - ".join(map(answer.node_name, answer.edges[:, k].tolist())) for k in order)
        rows = ([name, f"{float(answer.edge_scores[k]):.4f}"] for name, k in zip(ends, order, strict=True))
        parts.append(
            "<h2>Edges</h2><p>The drop in the answer when an edge is removed, for the ten edges that matter most.</p>"
            f"{table(('edge', 'drop'), rows, words=['edge'])}"
        )
    if answer.attention and answer.batch.num_nodes <= MAX_NODES:
        parts.append(
            "<h2>Attention</h2><p>Which node (row) attends to which (column), by layer and head.</p>" + matrices(answer)
        )
    style = (
        ".text { line-height: 2; white-space: pre-wrap } .text span { color: #000; border-radius: 3px } "
        "svg { max-width: 100%; height: auto } "
        ".heads figure { width: auto; max-width: 100%; overflow-x: auto } .heads svg { max-width: none } "
        ".heads text { font-size: 12px; fill: currentColor } .heads image { image-rendering: pixelated }"
    )
    return html_page(answer.title, "".join(parts), style)


def strength(values: Tensor) -> np.ndarray:
    """Scale scores to [-1, 1] by the largest magnitude; if none is negative, the smallest becomes 0."""
    values = values - values.min() if bool((values >= 0).all()) else values
    return (values / values.abs().max().clamp(min=1e-12)).numpy()


def draw_sample(answer: Explanation, values: Tensor) -> str:
    """Draw the sample with its nodes coloured by score."""
    if answer.is_text:
        spans = (
            f'<span style="background:{mpl.colors.to_hex(COLOURS(0.5 + 0.42 * share))}">{html.escape(word)}</span>'
            for word, share in zip(answer.labels, strength(values), strict=True)
        )
        separator = "" if any(" " in word for word in answer.labels) else " "  # tokens are words
        return f'<div class="text">{separator.join(spans)}</div>'
    if answer.smiles is not None:
        return molecule(answer.smiles, strength(values))
    return picture(network(answer, strength(values)))


def molecule(smiles: str, shares: np.ndarray) -> str:
    """Draw a molecule as SVG with coloured atoms."""
    from rdkit import Chem, rdBase
    from rdkit.Chem.Draw import rdMolDraw2D

    canvas = rdMolDraw2D.MolDraw2DSVG(460, 340)
    colours = {n: tuple(map(float, COLOURS(0.5 + 0.42 * share)[:3])) for n, share in enumerate(shares)}
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    rdMolDraw2D.PrepareAndDrawMolecule(
        canvas, mol, highlightAtoms=list(colours), highlightAtomColors=colours, highlightBonds=[]
    )
    canvas.FinishDrawing()
    drawing: str = canvas.GetDrawingText()
    return f"<div>{drawing[drawing.index('<svg') :]}</div>"


def network(answer: Explanation, shares: np.ndarray) -> Figure:
    """Draw any graph with coloured, labelled nodes; a black ring marks the node that the answer is for."""
    ends, nodes = answer.batch.edge_index.numpy(), answer.batch.num_nodes
    xy = layout(ends, nodes)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.plot(*(xy[ends, axis] for axis in (0, 1)), color="#bbbbbb", lw=0.7, zorder=1)
    area = max(25, 4000 / max(nodes, 10))
    axes.scatter(
        xy[:, 0],
        xy[:, 1],
        c=shares,
        cmap=COLOURS,
        vmin=-1.2,
        vmax=1.2,
        s=area,
        zorder=2,
        edgecolors=["black" if n == answer.node else "#666666" for n in range(nodes)],
        lw=[2.0 if n == answer.node else 0.4 for n in range(nodes)],
    )
    label_all = nodes <= MAX_NODES
    for n in range(nodes) if label_all else np.abs(shares).argsort()[-MAX_NAMED:]:
        label = answer.labels[n][:14].replace("$", r"\$")
        axes.text(
            xy[n, 0],
            xy[n, 1],
            label,
            fontsize=8,
            ha="center",
            va="center" if label_all else "bottom",
            zorder=3,
        )
    axes.set_axis_off()
    return figure


def deletion(answer: Explanation) -> Figure:
    """Plot the answer as nodes are hidden in the order of each method."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    share = np.linspace(0, 100, answer.random.shape[1])
    mean, spread = answer.random.mean(0).numpy(), answer.random.std(0).numpy()
    axes.fill_between(share, mean - spread, mean + spread, color="grey", alpha=0.25, lw=0)
    axes.plot(share, mean, color="grey", ls="--", label=f"{len(answer.random)} random rankings")
    for name, curve in answer.curves.items():
        axes.plot(share, curve, marker="o", ms=3, label=name)
    axes.set(xlabel="share of nodes hidden, %", ylabel=answer.explained)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def matrices(answer: Explanation) -> str:
    """Draw the attention weights of each layer and head as a matrix at full size; wide matrices scroll.

    Rows and columns are labelled with the names of nodes or, in large graphs, the numbers of some.
    """
    nodes = answer.batch.num_nodes
    step = -(-nodes // MAX_LABELLED)
    names = [repr(label)[1:-1][:11] for label in answer.labels] if step == 1 else [str(n) for n in range(nodes)]
    entry = (
        min(max(LINE_HEIGHT, 280 / nodes), 2 * LINE_HEIGHT) if step == 1 else LINE_HEIGHT / step
    )  # at least one line for each label
    margin = 12 + 8 * max(map(len, names))
    texts = []
    for n in range(0, nodes, step):
        name, middle = html.escape(names[n]), margin + (n + 0.5) * entry + 4
        texts.append(f'<text x="{margin - 5}" y="{middle:.1f}" text-anchor="end">{name}</text>')
        texts.append(f'<text transform="translate({middle:.1f} {margin - 5}) rotate(-90)">{name}</text>')
    parts = [f'<svg class="heads" width="0" height="0"><defs><g id="labels">{"".join(texts)}</g></defs></svg>']
    size = f"{margin + nodes * entry:.0f}"
    for layer, weights in answer.attention:
        parts.append(f'<h3>{html.escape(layer)}</h3><div class="cards heads">')
        for head, matrix in enumerate(weights.numpy()):
            file = io.BytesIO()
            mpl.image.imsave(file, matrix, cmap="viridis", vmin=0, format="png")
            source = base64.b64encode(file.getvalue()).decode()
            parts.append(
                f"<figure><figcaption>head {head}, up to {matrix.max():.2f}</figcaption>"
                f'<svg width="{size}" height="{size}" viewBox="0 0 {size} {size}"><use href="#labels"/>'
                f'<image x="{margin}" y="{margin}" width="{nodes * entry:.1f}" height="{nodes * entry:.1f}" '
                f'href="data:image/png;base64,{source}"/></svg></figure>'
            )
        parts.append("</div>")
    return "".join(parts)
