"""``python -m gt.explain RUN``: explain a trained model's prediction for one sample, as an HTML page.

Attention by layer and head, attention rollout, integrated gradients and occlusion of nodes and edges, drawn over the
molecule, graph or text; and how fast the output falls when top-ranked parts are hidden, against random rankings.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gt.cli.program import add_trust, import_from_here, importing, quick_exit
from gt.errors import Parser, one_line


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m gt.explain", description=__doc__.partition("\n\n")[2])
    parser.add_argument(
        "checkpoint", type=Path, help="a checkpoint such as RUN/checkpoints/best.ckpt, or the run folder"
    )
    parser.add_argument("overrides", nargs="*", help="data.KEY=VALUE or data=NAME")
    parser.add_argument("--sample", type=int, default=0, help="index of the sample in the split (default: 0)")
    parser.add_argument("--split", help="default: test if there is one")
    parser.add_argument(
        "--output", type=int, help="index of the class, task or number (default: the predicted class, or the first)"
    )
    parser.add_argument(
        "--node", help="for node-level models, index of the node, or its name in a large graph (default: the last)"
    )
    parser.add_argument(
        "--position", type=int, default=0, help="for sequence outputs, index of the position (default: 0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="output page (default: explanation-SPLIT-SAMPLE.html or explanation-node-NODE.html in the run folder)",
    )
    add_trust(parser)
    return parser.parse_intermixed_args(list(argv))


def main(argv: Sequence[str]) -> None:
    options = arguments(argv)
    import_from_here()
    with importing():  # late, so that --help and typos are answered at once
        from gt.train.checkpoint import checkpoint_in, load
    path = checkpoint_in(options.checkpoint)
    task = load(path, options.trust)
    with importing():
        from gt.cli.explanation import explain
        from gt.cli.explanation_page import page
        from gt.cli.new_data import check_learned, check_schema, check_unchanged, chooses_new_data, open_run_data
        from gt.data.datamodule import ALL
        from gt.data.files import write_bytes
        from gt.prediction.models import Models
        from gt.schema import format_number
    folder = path.resolve().parent.parent
    all_samples = options.split in (None, ALL) and chooses_new_data(options.overrides)
    if all_samples:
        check_learned(options.overrides)
    _, data = open_run_data(folder, options.overrides, options.trust, Models([task]), new=all_samples)
    check_schema(task.schema, data.schema)
    if not all_samples:
        check_unchanged(task, data, options.overrides)
    split = ALL if all_samples else options.split or data.last_split()
    explained = explain(task, data, split, options.sample, options.output, options.node, options.position)
    out: Path = options.out or folder / f"explanation-{explained.name}.html"
    write_bytes(out, page(explained).encode())
    print(f"{explained.title}: predicted {explained.prediction}, true {explained.target}")
    if explained.note:
        print(explained.note)
    for name, value in explained.faithfulness.items():
        top = explained.scores[name].argsort(descending=True)[:5].tolist()
        top_names = ", ".join(map(explained.node_name, top))
        print(f"{name:20}  faithfulness {format_number(value):>8}  highest: {top_names}")
    print(f"page  {out}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main(sys.argv[1:])
