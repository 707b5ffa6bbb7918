"""``python -m gt.diagnose RUN``: show what each layer of a trained network does, as a table and a picture.

Per layer: the Dirichlet energy of node states (0: neighbours are equal) and their effective rank, the entropy of
attention (1: uniform) and its sink mass (how much goes to a single node), and how much a node's state depends on the
features of nodes 0, 1, 2, ... hops away. Measured on a few batches of the run's own data, with its best checkpoint.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gt.cli.program import add_device, add_trust, device_of, import_from_here, importing, quick_exit
from gt.errors import Parser, UserError, one_line


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m gt.diagnose", description=__doc__.partition("\n\n")[2])
    parser.add_argument("run", type=Path, help="a run folder or a checkpoint")
    parser.add_argument("overrides", nargs="*", help="data.KEY=VALUE, if the data have moved or batches are too large")
    parser.add_argument("--split", help="split of the data (default: test if there is one, else valid)")
    parser.add_argument("--batches", type=int, default=4, help="number of batches, spread evenly over the split")
    parser.add_argument(
        "--hops", type=int, help="number of distances (default: 8; for text, where a hop is a token, 64)"
    )
    parser.add_argument("--targets", type=int, default=64, help="nodes per batch whose sensitivity is measured")
    parser.add_argument("--out", type=Path, help="folder for diagnostics.csv and diagnostics.png (default: the run's)")
    add_device(parser)
    add_trust(parser)
    options = parser.parse_intermixed_args(list(argv))
    for name in ("batches", "hops", "targets"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UserError(f"--{name} must be 1 or more")
    return options


def main(argv: Sequence[str]) -> None:
    options = arguments(argv)
    import_from_here()
    with importing():  # late, so that --help and typos are answered at once
        from gt.train.checkpoint import checkpoint_in, load
    path = checkpoint_in(options.run)
    task = load(path, options.trust)
    with importing():
        from rich.console import Console
        from rich.progress import track

        from gt.cli.diagnosis import WIDE, draw, sample_batches, table
        from gt.cli.new_data import check_schema, check_unchanged, open_run_data
        from gt.inference.diagnostics import diagnose
        from gt.layers import attention_layers
        from gt.model import GraphTransformer
        from gt.prediction.models import Models
        from gt.prediction.table import write
    net = task.net
    if not isinstance(net, GraphTransformer) or not len(net.blocks):
        raise UserError(f"{path} holds no gt.model.GraphTransformer with layers: only those can be diagnosed")
    for _, layer in attention_layers(net):
        layer.backend = "auto"  # same numbers; some backends have no gradients on some devices
    folder = path.resolve().parent.parent
    _, data = open_run_data(folder, options.overrides, options.trust, Models([task], answers=False))
    check_schema(task.schema, data.schema)
    check_unchanged(task, data, options.overrides)
    split = options.split or data.last_split()
    net.to(device_of(options.device))
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    batches = sample_batches(data, split, options.batches)
    hops = options.hops or (64 if task.schema.is_language_model else 8)
    progress = track(batches, "diagnosing batches", len(batches), console=console, transient=True)
    measures = diagnose(net, progress, hops, options.targets)
    console.print(table(measures))
    out: Path = options.out or folder
    write(measures, out / "diagnostics.csv")
    draw(measures, out / "diagnostics.png", f"{folder.name}, {split} split")
    print(f"table    {out / 'diagnostics.csv'}\npicture  {out / 'diagnostics.png'}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main(sys.argv[1:])
