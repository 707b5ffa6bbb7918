"""``python -m gt.explain RUN``: why a trained model says what it says of one sample, as a page to look at.

Attention by layer and head, attention rollout, integrated gradients and occlusion of nodes and edges, drawn over the
molecule, graph or text; and how fast the answer falls when what they name is hidden, beside random rankings.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gt.cli.program import add_trust, import_from_here, importing, quick_exit
from gt.errors import Parser, one_line


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m gt.explain", description=__doc__.partition("\n\n")[2])
    parser.add_argument("checkpoint", type=Path, help="a file such as RUN/checkpoints/best.ckpt, or the run folder")
    parser.add_argument("overrides", nargs="*", help="data.KEY=VALUE or data=NAME")
    parser.add_argument("--sample", type=int, default=0, help="its number in the split, 0 unless told")
    parser.add_argument("--split", help="test where there is one")
    parser.add_argument("--output", type=int, help="the class, task or number; the predicted class, or the first")
    parser.add_argument(
        "--node", help="where nodes have answers, which: its number, or its name in a large graph; the last"
    )
    parser.add_argument("--position", type=int, default=0, help="where an answer is a sequence, which; the first, 0")
    parser.add_argument(
        "--out",
        type=Path,
        help="the page; explanation-SPLIT-SAMPLE.html, or explanation-node-NODE.html, in the run folder",
    )
    add_trust(parser)
    return parser.parse_intermixed_args(list(words))


def main(words: Sequence[str]) -> None:
    options = arguments(words)
    import_from_here()
    with importing():  # late: --help and a typo answer at once
        from gt.train.checkpoint import checkpoint_in, load
    path = checkpoint_in(options.checkpoint)
    task = load(path, options.trust)
    with importing():
        from gt.cli.explanation import explain
        from gt.cli.explanation_page import page
        from gt.cli.new_data import are_new, check_learned, check_schema, check_unchanged, opened
        from gt.data.datamodule import ALL
        from gt.data.files import write_bytes
        from gt.prediction.models import Models
        from gt.schema import number
    folder = path.resolve().parent.parent
    every = options.split in (None, ALL) and are_new(options.overrides)
    if every:
        check_learned(options.overrides)
    _, data = opened(folder, options.overrides, options.trust, Models([task]), new=every)
    check_schema(task.schema, data.schema)
    if not every:
        check_unchanged(task, data, options.overrides)
    split = ALL if every else options.split or data.last_split()
    explained = explain(task, data, split, options.sample, options.output, options.node, options.position)
    out: Path = options.out or folder / f"explanation-{explained.name}.html"
    write_bytes(out, page(explained).encode())
    print(f"{explained.title}: said {explained.prediction}, true {explained.target}")
    if explained.note:
        print(explained.note)
    for name, value in explained.faithful.items():
        top = explained.scores[name].argsort(descending=True)[:5].tolist()
        words_of_top = ", ".join(map(explained.called, top))
        print(f"{name:20}  faithfulness {number(value):>8}  highest: {words_of_top}")
    print(f"page  {out}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main(sys.argv[1:])
