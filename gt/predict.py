"""``python -m gt.predict RUN``: predict with a trained model, as a table.

By default a split of the run's own data is predicted; ``data.root=FOLDER`` and the like say where they have moved. New
data, ``data.path=FILE`` or ``data=NAME``, need neither targets nor splits: every row is predicted, in the order of the
file and next to its own columns; rows that cannot be read stay empty and are listed. They are read as in training, with
the same columns, categories, classes and tokens. Several runs, or a folder of runs, form an ensemble: the mean of their
predictions, and their deviation. For benchmarks with a submission format, a submission file is written as well.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gt.cli.program import add_device, add_trust, device_of, import_from_here, importing, quick_exit
from gt.errors import Parser, UserError, one_line
from gt.schema import pluralise

OTHER_FORMATS = (".parquet", ".feather", ".json", ".jsonl", ".tsv", ".xls", ".xlsx", ".zip")  # not supported for output

if TYPE_CHECKING:
    import numpy as np


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m gt.predict", description=__doc__.partition("\n\n")[2])
    parser.add_argument("run", type=Path, help="a run folder or a checkpoint, such as RUN/checkpoints/best.ckpt")
    parser.add_argument(
        "overrides", nargs="*", metavar="RUN or data.KEY=VALUE", help="more runs; overrides such as data=NAME"
    )
    parser.add_argument("--split", help="split (default: all for new data, otherwise test if there is one)")
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="for links: a table of node pairs, by index or ID")
    parser.add_argument(
        "--out", type=Path, help="output .csv or .csv.gz, as out=FILE (default: predictions-SPLIT.csv in RUN)"
    )
    parser.add_argument("--probabilities", action="store_true", help="a column for each class, or for no and yes")
    parser.add_argument("--dropout", type=int, default=0, metavar="N", help="predict N times with dropout: deviations")
    parser.add_argument("--calibrate", action="store_true", help="fit a temperature on the validation split")
    parser.add_argument("--level", type=float, help="intervals or sets of classes with this coverage (such as 0.9)")
    parser.add_argument("--embeddings", type=Path, metavar="FILE", help="embeddings, one per row of the table (.npy)")
    parser.add_argument("--attention", type=Path, metavar="FILE", help="attention weights by layer and head (.npz)")
    add_device(parser)
    add_trust(parser)
    options = parser.parse_intermixed_args(list(argv))
    settings = [word for word in options.overrides if "=" in word and not Path(word).exists()]
    options.runs = [options.run, *(Path(word) for word in options.overrides if word not in settings)]
    options.overrides = [word for word in settings if not word.startswith("out=")]
    for word in settings:
        options.out = Path(word.removeprefix("out=")) if word.startswith("out=") else options.out
    if options.out is not None and options.out.suffix.lower() in OTHER_FORMATS:
        raise UserError(f"--out {options.out}: the table is written as CSV: choose a name ending in .csv or .csv.gz")
    if options.dropout in (1, *range(-9, 0)):
        raise UserError(f"--dropout {options.dropout}: a deviation needs at least 2 passes, such as --dropout 20")
    return options


def main(argv: Sequence[str]) -> None:
    options = arguments(argv)
    import_from_here()
    with importing():  # late, so that --help and typos are answered at once
        from gt.cli.run_folders import runs_in
        from gt.train.checkpoint import checkpoint_in, load
    paths = [checkpoint_in(run) for path in options.runs for run in runs_in(path)]
    tasks = [load(path, options.trust) for path in paths]
    with importing():
        import pandas as pd

        from gt.allocation import keep_freed_memory
        from gt.cli.new_data import check_learned, check_schema, check_unchanged, chooses_new_data, open_run_data
        from gt.cli.pairs import ask_pairs
        from gt.data.datamodule import ALL
        from gt.data.graphs import Stored
        from gt.losses import format_score
        from gt.prediction.asking import calibrate, predict
        from gt.prediction.attention import check_attended, write_attended
        from gt.prediction.by_target import ErrorsByTarget
        from gt.prediction.calibration import Calibration
        from gt.prediction.models import Models
        from gt.prediction.table import write
        from gt.train.objective import measures_of
    keep_freed_memory()
    calibrated = options.calibrate or options.level is not None
    answers = calibrated or (options.embeddings is None and options.attention is None)
    models = Models(tasks, options.dropout, options.embeddings is not None, answers)
    folder = paths[0].resolve().parent.parent
    device = device_of(options.device)
    is_new, has_pairs = chooses_new_data(options.overrides), options.pairs is not None
    predict_all = is_new if has_pairs else options.split == ALL or (options.split is None and is_new)
    if predict_all:
        check_learned(options.overrides)
    cfg, data = open_run_data(folder, options.overrides, options.trust, models, new=predict_all)
    check_schema(models.schema, data.schema)
    for task in [] if predict_all else tasks:
        check_unchanged(task, data, options.overrides)
    if has_pairs:
        ask_pairs(data, options.pairs)
    if options.attention is not None:
        check_attended(models, data)
    predict_all = predict_all or has_pairs
    split = ALL if predict_all else options.split or data.last_split()
    calibration = Calibration()
    if calibrated:
        if split == "valid":
            raise UserError("calibration is fitted on the validation split: predict another split or new data")
        run_data = open_run_data(folder, [], options.trust, models)[1] if predict_all else data
        for task in tasks:
            check_unchanged(task, run_data, [] if predict_all else options.overrides)
        calibration, line = calibrate(models, run_data, device, options.level, options.calibrate)
        print(line)
    measures = measures_of(cfg, data)[0]
    many_targets = models.schema.kind == "regression" and models.schema.outputs > 1
    by_target = ErrorsByTarget(models.schema) if many_targets and len(measures) else None
    if by_target is not None:
        measures.add_metrics({"by_target": by_target})
    predictions = predict(models, data, measures, split, device, calibration, options.probabilities)
    out: Path = options.out or folder / f"predictions-{split}.csv"
    write(predictions.table, out)
    scores, target_scores = predictions.scores, [] if by_target is None else by_target.reported
    score_text = "".join(
        f"  {name} {format_score(value)}" for name, value in scores.items() if name not in target_scores
    )
    rows, unreadable = len(predictions.table), predictions.unreadable
    split_text = "" if predict_all else f" of the {split} split"
    ensemble_text = f" by {models}" if models.members > 1 else ""
    noun = "prediction" if models.supervised else "row"
    print(f"{pluralise(rows - len(unreadable), noun)}{split_text}{ensemble_text}: {out}{score_text}")
    if by_target is not None and scores:
        print("\n".join(by_target.lines(scores)))
    if predictions.embeddings is not None:
        print(f"embeddings {write_rows(predictions.embeddings, options.embeddings)}")
    if options.attention is not None:
        print(f"attention {write_attended(models, data, split, device, options.attention)}")
    if unreadable:
        listed = out.with_name(f"{out.name.removesuffix('.gz').removesuffix('.csv')}.unreadable.csv")
        write(pd.DataFrame({"row": list(unreadable), "reason": list(unreadable.values())}), listed)
        print(
            f"{pluralise(len(unreadable), 'row')} of {rows:,} could not be read and have no prediction, "
            f"listed in {listed}"
        )
    if isinstance(data, Stored) and models.supervised:
        names = [name for name in predictions.table if str(name).startswith("prediction")]
        if submission := data.source.submission(split, predictions.table[names].to_numpy(), out.parent):
            print(f"submission file: {submission}")


def write_rows(rows: "np.ndarray", path: Path) -> str:
    """Write an array as ``.npy``; returns its shape and path for printing."""
    import numpy as np

    from gt.data.files import atomic_file

    path = path if path.suffix == ".npy" else path.with_name(f"{path.name}.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        np.save(file, rows)
    return f"{tuple(rows.shape)}: {path}"


if __name__ == "__main__":
    with quick_exit(), one_line():
        main(sys.argv[1:])
