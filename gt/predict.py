"""``python -m gt.predict CHECKPOINT``: what a trained model says of a split, as a table.

The data are those of the run that made the checkpoint; ``data.root=FOLDER`` and the like say otherwise where they have
moved, ``data=NAME`` takes others of the same kind. The table has a row for each graph, node, token or link: which one,
its prediction and, where it is known, its target. Of data that are handed in somewhere a submission file is written as
well.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from gt.checkpoint import encodings_of, load
from gt.command import CONFIGS, check_command, parsed
from gt.config import check, check_path
from gt.construct import constructing
from gt.data.batching import Batches, GraphDataset, Live
from gt.data.datamodule import DataModule
from gt.data.store import Graphs
from gt.errors import UserError, one_line
from gt.graph import GraphBatch
from gt.model import GraphTransformer
from gt.schema import UNLABELLED, Schema
from gt.task import Task


@runtime_checkable
class HandedIn(Protocol):
    """A dataset of which a file of predictions is handed in."""

    def submission(self, split: str, prediction: np.ndarray, folder: Path) -> Path | None:
        """Write that file into a folder; None for a split that is not handed in."""


@runtime_checkable
class Spelled(Protocol):
    """A dataset whose predictions of several positions are better read otherwise than class by class."""

    def spelled(self, answers: Tensor) -> list[str]:
        """A text for each row of classes (rows, positions)."""


@runtime_checkable
class Named(Protocol):
    """A dataset whose source says more of a sample than its number."""

    graphs: Graphs | None

    def names(self) -> dict[str, np.ndarray]:
        """By column, what the source calls each graph (or each node, where the targets are those of nodes)."""


def configured(folder: Path, overrides: Sequence[str]) -> DictConfig:
    """The configuration of the run in a folder, its data changed as asked.

    Raises:
        UserError: no such run, or an override that is none of the data.
    """
    kept = folder / ".hydra" / "config.yaml"
    if not kept.is_file():
        raise UserError(f"no {kept}: a checkpoint says what its model is, its run folder what its data are")
    cfg = OmegaConf.load(kept)
    assert isinstance(cfg, DictConfig)
    options = [line for line in overrides if line.partition("=")[0] == "data"]
    values = [line for line in overrides if line not in options]
    if options:
        check_command(list(options), CONFIGS)
        with initialize_config_dir(str(CONFIGS.resolve()), version_base="1.3"):
            cfg.data = compose("train", overrides=[*options, f"seed={cfg.seed}"]).data
    for override in parsed(list(values)):
        key = override.key_or_group
        if not key.startswith("data."):
            raise UserError(f"{override.input_line}: only the data may be changed, by data.KEY=VALUE or data=NAME")
        check_path(cfg, key)
        OmegaConf.update(cfg, key, override.value(), force_add=True)
    check(cfg)
    return cfg


def check_schema(model: Schema, data: Schema) -> None:
    """Whether a model reads data of a schema and predicts its targets.

    Raises:
        UserError: names the first thing that differs.
    """
    for name in ("node_vocab", "node_floats", "edge_vocab", "edge_floats", "level", "kind", "outputs", "positions"):
        ours, theirs = getattr(model, name), getattr(data, name)
        if ours != theirs:
            raise UserError(f"this model cannot read these data: its {name} is {ours}, that of the data {theirs}")
    if model.names != data.names and model.names and data.names:
        raise UserError("this model cannot read these data: their classes, or targets, have other names")


def plan(data: DataModule, split: str) -> Iterator[list[int]]:
    """The items of each batch of a split, every sample once.

    Raises:
        UserError: there is no such split, or its batches leave samples out.
    """
    if not data.has(split):
        known = [name for name in ("train", "valid", "test") if data.has(name)]
        known += [name for name in getattr(getattr(data, "graphs", None), "splits", {}) if name not in known]
        raise UserError(f"these data have no split '{split}': there are {', '.join(known)}")
    dataset = data.dataset(split)
    if split != "train":
        return iter(data.batches(split))
    if not isinstance(dataset, GraphDataset):
        raise UserError("training batches of these data are drawn at random: choose --split valid or test")
    return iter(Batches(dataset.sizes, **data.measure("valid")))


def located(schema: Schema, dataset: Any, items: list[int], batch: GraphBatch) -> dict[str, np.ndarray]:
    """What each row of a batch's predictions is about, by columns.

    Raises:
        UserError: the batch is a sample of a graph, whose nodes have lost their numbers.
    """
    if schema.level == "link" and batch.links is not None:
        return {"from_node": batch.links[0].numpy(), "to_node": batch.links[1].numpy()}
    if schema.level == "node" and hasattr(dataset, "roots"):
        if batch.num_nodes != int(dataset.graphs.node_ptr[-1]):
            raise UserError("predictions for nodes are made on the whole graph: set data.evaluate=full")
        return {"node": np.arange(batch.num_nodes)}
    numbers = dataset.ids[items] if isinstance(dataset, GraphDataset) else np.asarray(items)
    if schema.level == "graph":
        return {"graph": numbers}
    if not isinstance(dataset, GraphDataset):  # an item of a text is where its block begins
        return {"token": numbers[batch.batch.numpy()] + batch.position.numpy()}
    return {"graph": numbers[batch.batch.numpy()], "node": batch.position.numpy()}


def named(table: pd.DataFrame, data: Named) -> pd.DataFrame:
    """The same table, with what the source calls each graph or node instead of, or beside, its number."""
    assert data.graphs is not None
    rows = data.graphs.node_ptr[table["graph"]] if "graph" in table and "node" in table else 0
    rows = rows + table["node" if "node" in table else "graph"].to_numpy()
    found: dict[Any, Any] = {name: table[name] for name in ("graph", "node") if name in table}
    found |= {name: values[rows] for name, values in data.names().items()}
    return pd.DataFrame(found | {name: table[name] for name in table if name not in found})


def columns(schema: Schema, prediction: Tensor, target: Tensor | None, spell: Spelled | None) -> dict[str, Any]:
    """Predictions as a person reads them, by columns: classes and probabilities, or numbers; then targets."""
    if schema.kind == "multiclass":
        scores = prediction.view(len(prediction), schema.positions, schema.outputs)
        best = scores.softmax(2).max(2)
        found: dict[str, Any] = {"prediction": _classes(schema, best.indices, spell)}
        if schema.positions == 1:
            found["probability"] = best.values[:, 0].numpy()
        if target is not None:
            found["target"] = _classes(schema, target.view(len(prediction), -1)[:, : schema.positions], spell)
        return found
    values = {"prediction": prediction.sigmoid() if schema.kind == "binary" else prediction}
    if target is not None:
        values["target"] = target.view_as(prediction)
    names = schema.names or [str(number) for number in range(schema.outputs)]
    ends = [""] if schema.outputs == 1 else [f"_{name}" for name in names]
    return {f"{what}{end}": rows[:, n].numpy() for what, rows in values.items() for n, end in enumerate(ends)}


def _classes(schema: Schema, answers: Tensor, spell: Spelled | None) -> list[Any]:
    """Rows of classes (rows, positions) by their names, empty where there is none."""
    if spell is not None:
        return spell.spelled(answers)
    named = [
        ["" if n == UNLABELLED else schema.names[n] if schema.names else n for n in row] for row in answers.tolist()
    ]
    return [row[0] if schema.positions == 1 else " ".join(map(str, row)) for row in named]


@torch.inference_mode()
def predict(task: Task, data: DataModule, split: str, device: torch.device) -> tuple[pd.DataFrame, dict[str, float]]:
    """A row for each graph, node or link of a split, in the order of the split; and what its targets say of them.

    Args:
        task: a trained one, in eval mode.
        data: open.
        device: where the network runs.
    """
    if isinstance(task.net, GraphTransformer):
        data.readings = Live(partial(task.net.readings, device.type, False))
    task.to(device)
    batches, schema, (measures, _) = plan(data, split), task.schema, data.measures()
    dataset = data.dataset(split)
    spell, measures = data if isinstance(data, Spelled) else None, measures.to(device)
    parts, order, known = [], [], False
    for items in batches:
        batch: GraphBatch = dataset.__getitems__(items)
        where = located(schema, dataset, items, batch)
        prediction, target = task(batch.to(device)).float(), None if batch.y is None else batch.y.to(device)
        rows = pd.DataFrame(where | columns(schema, prediction.cpu(), batch.y, spell))
        if target is not None and not (target.isnan() | (target == UNLABELLED)).all():
            known = True
            measures.update(prediction, target)
        if hasattr(dataset, "roots"):  # of one graph's nodes those that the split names
            rows = rows.iloc[dataset.roots]
        elif schema.level != "link":
            order.append(np.repeat(items, len(rows) // len(items) if schema.level == "graph" else batch.sizes.numpy()))
        parts.append(rows)
    table = pd.concat(parts, ignore_index=True)
    if order:
        table = table.iloc[np.argsort(np.concatenate(order), kind="stable")].reset_index(drop=True)
    if not known:
        table = table.drop(columns=[name for name in table if str(name).startswith("target")])
    if isinstance(data, Named):
        table = named(table, data)
    return table, {name: float(value) for name, value in measures.compute().items()} if known else {}


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.part-") as part:
        table.to_csv(Path(part) / path.name, index=False, float_format="%.8g")
        os.replace(Path(part) / path.name, path)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gt.predict", description=__doc__.partition("\n\n")[2])
    parser.add_argument("checkpoint", type=Path, help="a file such as RUN/checkpoints/best.ckpt, or the run folder")
    parser.add_argument("overrides", nargs="*", help="data.KEY=VALUE or data=NAME")
    parser.add_argument("--split", help="which samples; test where there is one, else valid")
    parser.add_argument("--out", type=Path, help="the table (.csv, .csv.gz); predictions-SPLIT.csv in the run folder")
    parser.add_argument("--device", help="such as cpu or cuda; a GPU where there is one")
    return parser.parse_intermixed_args(list(given))


def main(given: Sequence[str]) -> None:
    asked = arguments(given)
    path: Path = asked.checkpoint / "checkpoints" / "best.ckpt" if asked.checkpoint.is_dir() else asked.checkpoint
    task = load(path)
    folder = path.resolve().parent.parent
    cfg = configured(folder, asked.overrides)
    device = torch.device(asked.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with constructing(cfg):
        data: DataModule = instantiate(cfg.data)
    data.open(encodings_of(task.hparams["config"]))
    check_schema(task.schema, data.schema)
    split = asked.split or ("test" if data.has("test") else "valid")
    table, scores = predict(task, data, split, device)
    out: Path = asked.out or folder / f"predictions-{split}.csv"
    write(table, out)
    measured = "".join(f"  {name} {value:.4f}" for name, value in scores.items())
    print(f"{len(table):,} predictions of the {split} split: {out}{measured}")
    if isinstance(data, HandedIn):
        names = [name for name in table if str(name).startswith("prediction")]
        if handed := data.submission(split, table[names].to_numpy(), out.parent):
            print(f"submission file: {handed}")


if __name__ == "__main__":
    with one_line():
        main(sys.argv[1:])
