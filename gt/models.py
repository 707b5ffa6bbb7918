"""``python -m gt.models``: list the models with paper, parts, parameters, what they read and what they cost.

Files added there are listed automatically; the paper is the text in brackets, with a year, in the first comment.
Parameters are counted at the file's own width and depth for molecules as in ZINC (28 atoms, 4 bonds, one number to
predict) or, if the output is tied to the embedding, for text of 65 characters. The time of a layer grows with N nodes,
E edges, N^2 pairs of nodes or P pairs that the model's mask allows.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from gt.cli.config_files import CONFIGS
from gt.cli.program import importing, quick_exit
from gt.errors import Parser, UserError, nearest, one_line

FOLDER = CONFIGS / "model"
PIPE_WIDTH = 150  # columns when the output is not a terminal


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.models", description=__doc__.partition("\n\n")[2])
    parser.add_argument("models", nargs="*", help="names of models, such as gps (default: all)")
    return parser.parse_args()


def paper(path: Path) -> str:
    """Authors and year from the first comment of a configuration; '' if there are none."""
    comments = [line for line in path.read_text().splitlines() if line.startswith("#") and "@package" not in line]
    cited = re.search(r"\(([^()]*\b\d{4}\b[^()]*)\)", " ".join(line.lstrip("# ") for line in comments))
    return cited[1] if cited else ""


def pair_cost(mask: Any) -> str:
    """How the number of pairs that a mask allows grows."""
    from gt.masks import Hops

    if mask.limits is not None and None in mask.limits:
        return "N^2"
    return "E" if isinstance(mask, Hops) and mask.hops == 1 else "P"


def row(name: str) -> list[str]:
    """The table row of a model."""
    from hydra import compose, initialize_config_dir

    from gt.layers import declared_attribute, name_of, parts_of, reads_of
    from gt.schema import Schema
    from gt.train.network import build, network_config

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=[f"model={name}"])
    schema = Schema(node_vocab=(28,), edge_vocab=(4,), kind="regression", max_nodes=37)
    if cfg.model.head.get("tied"):
        schema = Schema(node_vocab=(65,), level="node", outputs=65, max_nodes=256)
    net: Any = build(network_config(cfg), schema)
    parts = [(mask, part) for mask, block in zip(net.masks, net.blocks, strict=True) for part in parts_of(block)]
    names = dict.fromkeys(name_of(part) for _, part in parts)
    reads = [read for read in ("edges", "pairs", "graph") if any(reads_of(part) == read for _, part in parts)]
    costs = {"self": lambda mask: "N", "edges": lambda mask: "E", "pairs": pair_cost}
    terms = dict.fromkeys(
        declared_attribute(part, "cost", "?") if (read := reads_of(part)) == "graph" else costs[read](mask)
        for mask, part in parts
    )
    if len(terms) > 1:
        terms.pop("N", None)  # the other terms dominate
    return [
        name,
        paper(FOLDER / f"{name}.yaml"),
        f"{len(net.blocks)} x {net.width}: {', '.join(names)}",
        f"{net.parameter_count():,}",
        ", ".join(reads) or "self",
        " + ".join(terms),
    ]


def main() -> None:
    options = arguments()
    available = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    for name in options.models:
        if name not in available:
            raise UserError(f"there is no model '{name}': {nearest(name, available)}")
    with importing():  # late, so that --help and typos are answered at once
        from rich.console import Console
        from rich.progress import track
        from rich.table import Table

        import gt.train.network  # noqa: F401
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    table = Table("model", "paper", "depth x width: parts", "parameters", "reads", "cost")
    table.columns[0].no_wrap = table.columns[3].no_wrap = True
    table.columns[3].justify = "right"
    for name in track(options.models or available, "building", console=console, transient=True):
        table.add_row(*row(name))
    console.print(table)


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
