"""``python -m gt.predict RUN``: what a trained model says of data, as a table.

Of the run's own data a split is predicted; ``data.root=FOLDER`` and the like say where they have moved. Other data,
``data.path=FILE`` or ``data=NAME``, need neither targets nor splits: every row is predicted, in the order of the file
and beside its own columns; a row that cannot be read stays empty and is listed. They are read as the model has learned
to read such: by the same columns, categories, classes and tokens. Of data that are handed in somewhere a submission
file is written as well.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from gt.cli.arguments import parsed
from gt.cli.command import check_command, composed, settle
from gt.cli.config import check, check_path
from gt.cli.prediction import predict
from gt.data.datamodule import ALL, DataModule
from gt.errors import Parser, UserError, one_line
from gt.metrics import shown
from gt.schema import Schema, many
from gt.train.checkpoint import check_trusted, checkpoint_in, encodings_of, load
from gt.train.construct import constructing


@runtime_checkable
class HandedIn(Protocol):
    """A dataset of which a file of predictions is handed in."""

    def submission(self, split: str, prediction: np.ndarray, folder: Path) -> Path | None:
        """Write that file into a folder; None for a split that is not handed in."""


HANDLING = {  # what is set of data without making them others
    "root", "batch_size", "eval_batch_size", "batch_nodes", "static", "workers", "processes", "sampler", "evaluate",
    "chunk", "seed",
}  # fmt: skip


# what a model has learned of its data, and other data cannot change
LEARNED = {
    "target", "label", "features", "kind", "level", "tokens", "vocabulary", "tokenizer", "longest", "normalise", "log",
    "standardise", "view",
}  # fmt: skip


def are_new(overrides: Sequence[str]) -> bool:
    """Whether overrides choose other data than those of the run, or only say where they are and how to go about it."""
    keys = [override.key_or_group for override in parsed(list(overrides))]
    return any(key.split(".")[-1] not in HANDLING and key.split("/")[-1] not in HANDLING for key in keys)


def check_learned(overrides: Sequence[str]) -> None:
    """Whether overrides leave alone what a model has learned of its data.

    Raises:
        UserError: one does not.
    """
    for override in parsed(list(overrides)):
        if override.key_or_group.removeprefix("data.") in LEARNED:
            raise UserError(
                f"{override.input_line}: new data are read as the model has learned to read such, and this is part of "
                "it: leave it out"
            )


def configured(folder: Path, overrides: Sequence[str], trust: bool) -> DictConfig:
    """The configuration of the run in a folder, its data changed as asked.

    Raises:
        UserError: no such run, one that asks to import what is not trusted, or an override that is none of the data.
    """
    kept = folder / ".hydra" / "config.yaml"
    if not kept.is_file():
        raise UserError(f"no {kept}: a checkpoint says what its model is, its run folder what its data are")
    cfg = OmegaConf.load(kept)
    assert isinstance(cfg, DictConfig)
    check_trusted(OmegaConf.to_container(cfg), kept, trust)
    options = [line for line in overrides if line.partition("=")[0] == "data"]
    values = [line for line in overrides if line not in options]
    if options:
        check_command([*options, *values])
        cfg.data = composed([*options, f"seed={cfg.seed}"]).data
    for override in parsed(list(values)):
        key = override.key_or_group
        if not key.startswith("data."):
            raise UserError(f"{override.input_line}: only the data may be changed, by data.KEY=VALUE or data=NAME")
        check_path(cfg, key)
        OmegaConf.update(cfg, key, override.value(), force_add=True)
    settle(cfg, values)
    check(cfg)
    return cfg


def check_schema(model: Schema, data: Schema) -> None:
    """Whether a model reads data of a schema, as the source of these was read in training, and predicts their targets.

    Raises:
        UserError: names the first thing that differs.
    """
    for name in ("node_names", "node_categories", "edge_names", "edge_categories", "tokenizer", "answers"):
        if getattr(model, name) and getattr(model, name) != getattr(data, name):
            raise UserError(
                f"these are not the data that this model was trained on: what training found out of them has changed "
                f"({name}); to predict them as new data leave --split out, or say --split {ALL}"
            )
    for name in ("node_vocab", "node_floats", "edge_vocab", "edge_floats", "level", "kind", "outputs", "positions"):
        ours, theirs = getattr(model, name), getattr(data, name)
        if ours != theirs:
            raise UserError(f"this model cannot read these data: its {name} is {ours}, that of the data {theirs}")
    if model.names != data.names and model.names and data.names:
        raise UserError("this model cannot read these data: their classes, or targets, have other names")


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all; each number in the fewest digits that say it exactly.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.part-") as part:
            table.to_csv(Path(part) / path.name, index=False)
            os.replace(Path(part) / path.name, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another place by --out FILE") from None


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m gt.predict", description=__doc__.partition("\n\n")[2])
    parser.add_argument("checkpoint", type=Path, help="a file such as RUN/checkpoints/best.ckpt, or the run folder")
    parser.add_argument("overrides", nargs="*", help="data.KEY=VALUE or data=NAME")
    parser.add_argument("--split", help="which samples; of new data all, else test where there is one")
    parser.add_argument("--out", type=Path, help="the table (.csv, .csv.gz); predictions-SPLIT.csv in the run folder")
    parser.add_argument("--device", help="such as cpu or cuda; a GPU where there is one")
    parser.add_argument("--trust", action="store_true", help="import parts that do not come with this program")
    return parser.parse_intermixed_args(list(given))


def main(given: Sequence[str]) -> None:
    options = arguments(given)
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
    predictions = predict(task, data, split, device)
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
    if isinstance(data, HandedIn):
        names = [name for name in predictions.table if str(name).startswith("prediction")]
        if handed := data.submission(split, predictions.table[names].to_numpy(), out.parent):
            print(f"submission file: {handed}")


if __name__ == "__main__":
    with one_line():
        main(sys.argv[1:])
