"""The code blocks and commands of README.md and docs/, and small files for everything that the commands name."""

import json
import re
import shlex
import string
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch_geometric.data import Data

from gt.cli.spectrum.plan import Plan
from tests.small_runs import configured, write_graphs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:pip install .*&& )?(python (?:train\.py|-m gt\.).*)$", re.MULTILINE)
FOLDERS = {"csv_graphs": "graphs", "csv_nodes": "nodes", "csv_links": "nodes"}  # what replaces FOLDER, by dataset


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text()) if language in languages]


def commands(page: Path) -> list[str]:
    """The commands in the shell blocks of a page, then those in its text and tables."""
    shell = "\n".join(blocks(page, "", "sh", "bash", "console")).replace("\\\n", " ")
    inline = re.findall(r"`(python (?:train\.py|-m gt\.)[^`]*)`", BLOCK.sub("", page.read_text()))
    return [re.sub(r"\s+# .*", "", command) for command in (*COMMAND.findall(shell), *inline)]


def filled_in(command: str, data: str = "", run: str = "run") -> list[str]:
    """The words of a command, with existing files and values in place of what a reader fills in."""
    words = shlex.split(re.sub(r"\s\[.*?\.\.\.\]|\s\.\.\.(?=\s|$)", "", command.replace("range(10)", "range(2)")))
    data = next((word.removeprefix("data=") for word in words if word.startswith("data=") or word in FOLDERS), data)
    values = {
        "FOLDER": FOLDERS.get(data, str(ROOT / "gt")),
        "FILE": "book.txt",
        "NAME": "ring_transfer",
        "MAP_FOLDER": "map",
        "SWEEP_FOLDER": "sweep",
        "RUN_FOLDER": run,
        "RUN": run,
        "CHECKPOINT": f"{run}/checkpoints/best.ckpt",
    }
    words = [re.sub(r"\b[A-Z]+(_FOLDER)?\b", lambda match: values.get(match[0], match[0]), word) for word in words]
    return [re.sub(r"\w+\.txt$", "book.txt", word) for word in words]


def split_command(words: list[str]) -> tuple[str, list[str]]:
    """Split a command into the module of its program, ``train`` or one of `gt`, and its arguments."""
    return ("train", words[2:]) if words[1] == "train.py" else (words[2], words[3:])


def write_files(folder: Path) -> None:
    """Write what the commands name: tables, texts, graphs, a run, a map, and the files of the pages' own blocks."""
    groups = ("O", "N", "Cl", "c1ccccc1", "C1CCCCC1", "C(=O)O")
    molecules = [("C" * (n // 6 + 1) + groups[n % 6], n / 7) for n in range(60)]
    texts = [(f"{'good' if n % 2 else 'bad'} number {n}", n % 2) for n in range(60)]
    splits = ("train", "valid", "test") * 20
    pairs = [(graph, node) for graph in range(40) for node in range(3)]
    lines = {
        "my.csv": ["smiles,logS,split", *(f"{s},{y},{split}" for (s, y), split in zip(molecules, splits, strict=True))],
        "series.csv": ["smiles,logS,series", *(f"{s},{y},s{n % 9}" for n, (s, y) in enumerate(molecules))],
        "rows.csv": [f"{s},{y}" for s, y in molecules],
        "new.csv": ["smiles,text", *(f"{s},{text}" for (s, _), (text, _) in zip(molecules, texts, strict=True))],
        "reviews.csv": ["text,label", *(f"{text},{label}" for text, label in texts)],
        "book.txt": [string.ascii_letters, *(f"{a} and {b} make {a + b};" for a in range(40) for b in range(40))],
        "graphs/nodes.csv": ["graph,node,element,charge", *(f"{g},{n},{'CNO'[(g + n) % 3]},0.{n}" for g, n in pairs)],
        "graphs/edges.csv": ["graph,source,target,bond", *(f"{g},{n},{(n + 1) % 3},single" for g, n in pairs)],
        "graphs/graphs.csv": ["graph,label", *(f"{g},{g % 2}" for g in range(40))],
        "pairs.csv": ["source,target", "0,1", "5,9"],
        "nodes/nodes.csv": ["node,element,label", *(f"{n},{'CNO'[n % 3]},{n % 2}" for n in range(90))],
        "nodes/edges.csv": ["source,target", *(f"{n},{(7 * n + 1) % 90}" for n in range(90))],
    }  # fmt: skip
    lines["held_out.csv"] = lines["reviews.csv"]
    nodes = [{"id": n, "kind": n % 3, "label": n % 2} for n in range(90)]
    links = [{"source": n, "target": (7 * n + 1) % 90} for n in range(90)]
    lines["graph.json"] = [json.dumps({"directed": True, "nodes": nodes, "links": links})]
    for name, text in lines.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join(text) + "\n")
    write_graphs(folder, train=16, valid=8, test=8)
    edge_index = torch.tensor([[n, (7 * n + 1) % 30] for n in range(30)]).T
    graphs = [Data(torch.eye(30), edge_index, y=torch.tensor([n % 2])) for n in range(40)]
    torch.save(graphs, folder / "graphs.pt")
    torch.save(Data(torch.eye(30), edge_index, y=torch.arange(30) % 2), folder / "graph.pt")
    for text in (text for page in PAGES for text in blocks(page, "python", "yaml")):
        if heading := re.match(r"# (\S+\.(?:py|yaml))\n", text):
            (folder / heading[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / heading[1]).write_text(text)
    (folder / "sweep").mkdir()
    (folder / "sweep/sweep.json").write_text(json.dumps({"arguments": ["-m", "seed=1,2"]}))
    Plan("data", "hops", [], ["experiment=spectrum"], [], {"radii": [0], "weights": [0.0], "seeds": 1}).save(
        folder / "map"
    )
    with configured(folder / "run", "data.source.path=graphs.jsonl") as cfg:
        (folder / "run/.hydra").mkdir()
        OmegaConf.save(cfg, folder / "run/.hydra/config.yaml")
    (folder / "run/checkpoints").mkdir()
    (folder / "run/checkpoints/last.ckpt").touch()
