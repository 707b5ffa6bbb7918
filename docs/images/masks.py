"""Draws ``masks.png``: who reads whom on one molecule, caffeine, from each atom alone to the complete graph."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from gt.data.picture import layout
from gt.graph import GraphBatch
from gt.masks import Complete, Expander, Hops, Mask

ATOMS = "CNCNCCCONCONCC"  # CN1C=NC2=C1C(=O)N(C(=O)N2C)C
BONDS = "0-1 1-2 2-3 3-4 4-5 5-1 5-6 6-7 6-8 8-9 9-10 9-11 11-4 11-12 8-13"
COLOURS = {"C": "#4d4d4d", "N": "#3366cc", "O": "#cc3333"}
MASKS: dict[str, Mask] = {
    "Hops(0): a set": Hops(0),
    "Hops(1): a GNN": Hops(1),
    "Hops(2)": Hops(2),
    "Hops(1) | Expander(4)": Hops(1) | Expander(degree=4, seed=0),
    "Complete(): a Transformer": Complete(),
}


def main() -> None:
    pairs = np.array([bond.split("-") for bond in BONDS.split()], int).T
    edges = torch.from_numpy(np.concatenate([pairs, pairs[::-1]], axis=1))
    edges = edges[:, edges[1].argsort(stable=True)]
    batch = GraphBatch(ptr=torch.tensor([0, len(ATOMS)]), edge_index=edges, max_nodes=len(ATOMS)).finish()
    figure = Figure(figsize=(11, 2.4), layout="constrained")
    molecule, *panels = figure.subplots(1, 1 + len(MASKS))
    place = layout(pairs, len(ATOMS))
    molecule.plot(*(place[pairs, axis] for axis in (0, 1)), color="#999999", lw=1.5, zorder=1)
    molecule.scatter(*place.T, c=[COLOURS[atom] for atom in ATOMS], s=110, zorder=2)
    for number, (x, y) in enumerate(place):
        molecule.text(x, y, number, color="white", fontsize=6, ha="center", va="center", zorder=3)
    molecule.set(title="caffeine", aspect="equal")
    molecule.axis("off")
    for axes, (name, mask) in zip(panels, MASKS.items(), strict=True):
        axes.imshow(mask(batch).dense[0, 0].numpy(), cmap=ListedColormap(["#f2f2f2", "#4477aa"]), vmin=0, vmax=1)
        axes.set(title=name, xticks=[], yticks=[], xlabel="is read")
        axes.set_xticks(np.arange(len(ATOMS) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(ATOMS) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", lw=0.5)
        axes.tick_params(which="minor", length=0)
        axes.title.set_fontsize(9)
    panels[0].set_ylabel("reads")
    figure.savefig(Path(__file__).with_name("masks.png"), dpi=110)


if __name__ == "__main__":
    main()
