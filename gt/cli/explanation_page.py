"""The page of an explanation: scores drawn over a molecule, a graph or a text, curves, edges, attention by head."""

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
from gt.schema import number
from gt.train.page import page as html_page
from gt.train.page import picture, table

LABELLED = 40  # nodes that have names beside a matrix of attention; of more some have numbers
DRAWN = 120  # nodes whose attention is drawn at all, and of which each is named in a drawing,
NAMED = 10  # of more those that say most
LINE = 14  # pixels that a label beside a matrix takes
COLOURS = mpl.colormaps["RdBu_r"]


def page(why: Explanation) -> str:
    """One HTML page, with all pictures in it."""
    faithful = ([name, number(value)] for name, value in why.faithful.items())
    parts = [
        f"<p>Said {html.escape(why.prediction)}; true {html.escape(why.target)}. Explained is the "
        f"{html.escape(why.of)}: red speaks for it, blue against it.</p>",
        f"<p>{html.escape(why.note)}</p>" if why.note else "",
    ]
    for name, values in why.scores.items():
        parts.append(f"<h2>{name.capitalize()}</h2><p>{METHODS[name].capitalize()}.</p>{shown(why, values)}")
    parts.append(
        "<h2>Is it so?</h2><p>The answer as the nodes that a method ranks highest are hidden, one after the other. The "
        "number is the gap to random rankings, in units of what lies between the highest and the lowest point: 0 is no "
        "better than chance.</p>"
        f"{table(('method', 'faithfulness'), faithful, words=['method'])}{picture(deletion(why))}"
    )
    if len(why.edge_scores):
        order = why.edge_scores.abs().argsort(descending=True)[:10].tolist()
        ends = (" - ".join(map(why.called, why.edges[:, k].tolist())) for k in order)
        rows = ([name, f"{float(why.edge_scores[k]):.4f}"] for name, k in zip(ends, order, strict=True))
        parts.append(
            "<h2>Edges</h2><p>By how much the answer falls where an edge is taken away, the ten that matter most.</p>"
            f"{table(('edge', 'fall'), rows, words=['edge'])}"
        )
    if why.attention and why.batch.num_nodes <= DRAWN:
        parts.append(
            "<h2>Attention</h2><p>Which node (row) reads which (column), by layer and head.</p>" + matrices(why)
        )
    style = (
        ".text { line-height: 2; white-space: pre-wrap } .text span { color: #000; border-radius: 3px } "
        "svg { max-width: 100%; height: auto } "
        ".heads figure { width: auto; max-width: 100%; overflow-x: auto } .heads svg { max-width: none } "
        ".heads text { font-size: 12px; fill: currentColor } .heads image { image-rendering: pixelated }"
    )
    return html_page(why.title, "".join(parts), style)


def strength(values: Tensor) -> np.ndarray:
    """Scores in [-1, 1], the largest 1; where none is negative, from 0 for the least."""
    values = values - values.min() if bool((values >= 0).all()) else values
    return (values / values.abs().max().clamp(min=1e-12)).numpy()


def shown(why: Explanation, values: Tensor) -> str:
    """The sample with its nodes coloured by their scores."""
    if why.is_text:
        spans = (
            f'<span style="background:{mpl.colors.to_hex(COLOURS(0.5 + 0.42 * share))}">{html.escape(word)}</span>'
            for word, share in zip(why.labels, strength(values), strict=True)
        )
        between = "" if any(" " in word for word in why.labels) else " "  # tokens are words
        return f'<div class="text">{between.join(spans)}</div>'
    if why.smiles is not None:
        return molecule(why.smiles, strength(values))
    return picture(network(why, strength(values)))


def molecule(smiles: str, shares: np.ndarray) -> str:
    """A molecule as SVG, its atoms coloured."""
    from rdkit import Chem, rdBase
    from rdkit.Chem.Draw import rdMolDraw2D

    canvas = rdMolDraw2D.MolDraw2DSVG(460, 340)
    colours = {n: tuple(map(float, COLOURS(0.5 + 0.42 * share)[:3])) for n, share in enumerate(shares)}
    with rdBase.BlockLogs():
        read = Chem.MolFromSmiles(smiles)
    rdMolDraw2D.PrepareAndDrawMolecule(
        canvas, read, highlightAtoms=list(colours), highlightAtomColors=colours, highlightBonds=[]
    )
    canvas.FinishDrawing()
    drawing: str = canvas.GetDrawingText()
    return f"<div>{drawing[drawing.index('<svg') :]}</div>"


def network(why: Explanation, shares: np.ndarray) -> Figure:
    """Any graph, its nodes coloured and named; a black ring marks the one whose answer it is."""
    ends, nodes = why.batch.edge_index.numpy(), why.batch.num_nodes
    place = layout(ends, nodes)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.plot(*(place[ends, axis] for axis in (0, 1)), color="#bbbbbb", lw=0.7, zorder=1)
    area = max(25, 4000 / max(nodes, 10))
    axes.scatter(
        place[:, 0],
        place[:, 1],
        c=shares,
        cmap=COLOURS,
        vmin=-1.2,
        vmax=1.2,
        s=area,
        zorder=2,
        edgecolors=["black" if n == why.node else "#666666" for n in range(nodes)],
        lw=[2.0 if n == why.node else 0.4 for n in range(nodes)],
    )
    few = nodes <= DRAWN
    for n in range(nodes) if few else np.abs(shares).argsort()[-NAMED:]:
        label = why.labels[n][:14].replace("$", r"\$")
        axes.text(place[n, 0], place[n, 1], label, fontsize=8, ha="center", va="center" if few else "bottom", zorder=3)
    axes.set_axis_off()
    return figure


def deletion(why: Explanation) -> Figure:
    """The answer as nodes are hidden in the order of each method."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    share = np.linspace(0, 100, why.random.shape[1])
    mean, spread = why.random.mean(0).numpy(), why.random.std(0).numpy()
    axes.fill_between(share, mean - spread, mean + spread, color="grey", alpha=0.25, lw=0)
    axes.plot(share, mean, color="grey", ls="--", label=f"{len(why.random)} random rankings")
    for name, curve in why.curves.items():
        axes.plot(share, curve, marker="o", ms=3, label=name)
    axes.set(xlabel="share of nodes hidden, %", ylabel=why.of)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def matrices(why: Explanation) -> str:
    """The attention weights of each layer and head as matrices, each at its own size: what is too wide scrolls.

    Beside them stand the names of nodes or, of many, the numbers of some.
    """
    nodes = why.batch.num_nodes
    step = -(-nodes // LABELLED)
    names = [repr(label)[1:-1][:11] for label in why.labels] if step == 1 else [str(n) for n in range(nodes)]
    entry = min(max(LINE, 280 / nodes), 2 * LINE) if step == 1 else LINE / step  # a line for each label at least
    margin = 12 + 8 * max(map(len, names))
    texts = []
    for n in range(0, nodes, step):
        name, middle = html.escape(names[n]), margin + (n + 0.5) * entry + 4
        texts.append(f'<text x="{margin - 5}" y="{middle:.1f}" text-anchor="end">{name}</text>')
        texts.append(f'<text transform="translate({middle:.1f} {margin - 5}) rotate(-90)">{name}</text>')
    parts = [f'<svg class="heads" width="0" height="0"><defs><g id="labels">{"".join(texts)}</g></defs></svg>']
    side = f"{margin + nodes * entry:.0f}"
    for layer, weights in why.attention:
        parts.append(f'<h3>{html.escape(layer)}</h3><div class="cards heads">')
        for head, matrix in enumerate(weights.numpy()):
            file = io.BytesIO()
            mpl.image.imsave(file, matrix, cmap="viridis", vmin=0, format="png")
            source = base64.b64encode(file.getvalue()).decode()
            parts.append(
                f"<figure><figcaption>head {head}, up to {matrix.max():.2f}</figcaption>"
                f'<svg width="{side}" height="{side}" viewBox="0 0 {side} {side}"><use href="#labels"/>'
                f'<image x="{margin}" y="{margin}" width="{nodes * entry:.1f}" height="{nodes * entry:.1f}" '
                f'href="data:image/png;base64,{source}"/></svg></figure>'
            )
        parts.append("</div>")
    return "".join(parts)
