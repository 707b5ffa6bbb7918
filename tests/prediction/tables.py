"""Small graphs as tables of nodes, edges and graphs, as JSON and as GraphML."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def graph_tables(with_numbers: bool) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tables of 30 graphs, each a path of three atoms; ``with_numbers``: real numbers beside the categories."""
    rng = np.random.default_rng(1)
    splits = ["train"] * 18 + ["valid"] * 6 + ["test"] * 6
    graphs = pd.DataFrame({"graph": [f"m{n}" for n in range(30)], "active": np.arange(30) % 2, "split": splits})
    owner = np.repeat(graphs["graph"], 3).to_numpy()
    nodes = pd.DataFrame(
        {"graph": owner, "node": [f"a{n}" for n in range(90)], "element": rng.choice(list("CNOS"), 90)}
    )
    nodes["ring"] = rng.integers(3, 6, 90)
    if with_numbers:
        nodes["charge"] = rng.normal(size=90).round(2)
    ends = {"source": nodes["node"][np.arange(90) % 3 < 2].to_numpy(), "target": nodes["node"][np.arange(90) % 3 > 0]}
    edges = pd.DataFrame({"graph": owner[np.arange(90) % 3 > 0], **ends, "bond": rng.choice(["one", "two", "ar"], 60)})
    return nodes, edges, graphs


def write_tables(folder: Path, nodes: pd.DataFrame, edges: pd.DataFrame, graphs: pd.DataFrame | None) -> Path:
    """Write tables as CSV files into a new folder; returns the folder."""
    folder.mkdir()
    for name, table in {"nodes": nodes, "edges": edges, "graphs": graphs}.items():
        if table is not None:
            table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def as_json(tables: tuple[pd.DataFrame, ...]) -> list[dict[str, Any]]:
    """The graphs in the node-link format."""
    nodes, edges, graphs = tables
    converted = []
    for attributes in graphs.to_dict("records"):
        name = attributes.pop("graph")
        members, links = (rows[rows["graph"] == name].drop(columns="graph") for rows in (nodes, edges))
        records = members.rename(columns={"node": "id"}).to_dict("records")
        converted.append({"directed": False, "graph": attributes, "nodes": records, "links": links.to_dict("records")})
    return converted


def as_graphml(tables: tuple[pd.DataFrame, ...]) -> str:
    lines = ["<graphml>"]
    for name, kind in {
        "element": "string",
        "ring": "int",
        "bond": "string",
        "active": "int",
        "split": "string",
    }.items():
        lines.append(f'<key id="{name}" for="all" attr.name="{name}" attr.type="{kind}"/>')
    for graph in as_json(tables):
        lines.append('<graph edgedefault="undirected">')
        lines += [f'<data key="{name}">{value}</data>' for name, value in graph["graph"].items()]
        for node in graph["nodes"]:
            inner = "".join(f'<data key="{name}">{value}</data>' for name, value in node.items() if name != "id")
            lines.append(f'<node id="{node["id"]}">{inner}</node>')
        for edge in graph["links"]:
            ends = f'source="{edge["source"]}" target="{edge["target"]}"'
            lines.append(f'<edge {ends}><data key="bond">{edge["bond"]}</data></edge>')
        lines.append("</graph>")
    return "\n".join([*lines, "</graphml>"])


def single_graph_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of the nodes and edges of one random graph of 40 labelled nodes."""
    rng = np.random.default_rng(2)
    nodes = pd.DataFrame({"node": [f"p{n}" for n in range(40)], "field": rng.choice(["bio", "art", "law"], 40)})
    nodes["label"] = rng.choice(["u", "v"], 40)
    nodes["split"] = ["train"] * 20 + ["valid"] * 10 + ["test"] * 10
    ends = np.unique(rng.integers(0, 40, (80, 2)), axis=0)
    return nodes, pd.DataFrame(
        {"source": nodes["node"].to_numpy()[ends[:, 0]], "target": nodes["node"].to_numpy()[ends[:, 1]]}
    )
