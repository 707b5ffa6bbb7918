"""``python -m gt.predict RUN``: what a trained model says of data, as a table.

Of the run's own data a split is predicted; ``data.root=FOLDER`` and the like say where they have moved. Other data,
``data.path=FILE`` or ``data=NAME``, need neither targets nor splits: every row is predicted, in the order of the file
and beside its own columns; a row that cannot be read stays empty and is listed. They are read as the model has learned
to read such: by the same columns, categories, classes and tokens. Of data that are handed in somewhere a submission
file is written as well.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gt.cli.program import import_from_here, importing, quick_exit
from gt.errors import Parser, one_line
from gt.schema import many


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m gt.predict", description=__doc__.partition("\n\n")[2])
    parser.add_argument("checkpoint", type=Path, help="a file such as RUN/checkpoints/best.ckpt, or the run folder")
    parser.add_argument("overrides", nargs="*", help="data.KEY=VALUE or data=NAME")
    parser.add_argument("--split", help="which samples; of new data all, else test where there is one")
    parser.add_argument("--out", type=Path, help="the table (.csv, .csv.gz); predictions-SPLIT.csv in the run folder")
    parser.add_argument("--device", help="such as cpu or cuda; a GPU where there is one")
    parser.add_argument("--trust", action="store_true", help="import parts that do not come with this program")
    return parser.parse_intermixed_args(list(words))


def main(words: Sequence[str]) -> None:
    options = arguments(words)
    import_from_here()
    with importing():  # late: --help and a typo answer at once
        import pandas as pd
        import torch
        from hydra.utils import instantiate

        from gt.cli.new_data import are_new, check_learned, check_schema, configured
        from gt.cli.prediction import predict, write
        from gt.data.datamodule import ALL, DataModule
        from gt.data.graphs import Stored
        from gt.metrics import shown
        from gt.train.checkpoint import checkpoint_in, encodings_of, load
        from gt.train.construct import constructing
        from gt.train.objective import measures_of
    path = checkpoint_in(options.checkpoint)
    task = load(path, options.trust)
    folder = path.resolve().parent.parent
    cfg = configured(folder, options.overrides, options.trust)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with constructing(cfg):
        data: DataModule = instantiate(cfg.data)
    every = options.split == ALL or (options.split is None and are_new(options.overrides))
    if every:
        check_learned(options.overrides)
    data.open(encodings_of(task.hparams["config"]), task.schema if every else None)
    check_schema(task.schema, data.schema)
    split = ALL if every else options.split or ("test" if data.has("test") else "valid")
    predictions = predict(task, data, measures_of(cfg, data)[0], split, device)
    out: Path = options.out or folder / f"predictions-{split}.csv"
    write(predictions.table, out)
    measured = "".join(f"  {name} {shown(value)}" for name, value in predictions.scores.items())
    rows, unreadable = len(predictions.table), predictions.unreadable
    of_split = "" if every else f" of the {split} split"
    print(f"{many(rows - len(unreadable), 'prediction')}{of_split}: {out}{measured}")
    if unreadable:
        listed = out.with_name(f"{out.name.removesuffix('.gz').removesuffix('.csv')}.unreadable.csv")
        write(pd.DataFrame({"row": list(unreadable), "reason": list(unreadable.values())}), listed)
        print(f"{many(len(unreadable), 'row')} of {rows:,} could not be read and have none, listed in {listed}")
    if isinstance(data, Stored):
        names = [name for name in predictions.table if str(name).startswith("prediction")]
        if handed := data.source.submission(split, predictions.table[names].to_numpy(), out.parent):
            print(f"submission file: {handed}")


if __name__ == "__main__":
    with quick_exit(), one_line():
        main(sys.argv[1:])
