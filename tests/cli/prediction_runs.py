"""Runs to predict with, and files of the user's own graphs."""

from pathlib import Path

import numpy as np

from gt.data.graphs import GraphData
from gt.data.ogb.graphs import OGBMolecules
from tests.data.ogb_files import write_molecules
from tests.runs import run_folder

LABELS = np.array([[0, 1, np.nan], [1, 1, 0], [np.nan, 0, 1], [0, 0, 1]])
MODEL = {
    "model": {"_target_": "gt.model.GraphTransformer", "_partial_": True, "width": 8, "depth": 0},
    "mask": {"_target_": "gt.masks.Complete"},
    "encoding": {},
}


def molecule_run(folder: Path) -> Path:
    """A run on four molecules with two binary tasks: 3 and 0 for training, 1 for validation, 2 for the test."""
    write_molecules(folder / "ogbg_molclintox", LABELS[:, :2])
    source = {"_target_": "gt.data.ogb.graphs.OGBMolecules", "dataset": "ogbg-molclintox", "root": str(folder)}
    config = {"_target_": "gt.data.graphs.GraphData", "source": source}
    return run_folder(folder / "run", GraphData(OGBMolecules("ogbg-molclintox", str(folder))), config, MODEL)


def write_graph_tables(folder: Path, by_node: bool) -> None:
    """Write ten graphs of two nodes as CSV tables, with nodes in reverse order; the last three are the test split."""
    folder.mkdir()
    splits = ["train"] * 5 + ["valid"] * 2 + ["test"] * 3
    label = "" if by_node else ",active"
    rows = [f"mol{i},{splits[i]}{'' if by_node else f',{i % 2}'}" for i in range(10)]
    (folder / "graphs.csv").write_text("\n".join([f"graph,split{label}", *rows]))
    nodes = [f"mol{i},{atom}{i},{i % 3},{i % 2}" for i in reversed(range(10)) for atom in "CO"]
    last = "label" if by_node else "charge"
    (folder / "nodes.csv").write_text("\n".join([f"graph,node,kind,{last}", *nodes]))
    (folder / "edges.csv").write_text("\n".join(["graph,source,target", *(f"mol{i},C{i},O{i}" for i in range(10))]))
