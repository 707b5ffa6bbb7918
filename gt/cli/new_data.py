"""Which data a trained model is asked about: those of its run, or others, read as it has learned to read such."""

from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from gt.cli.arguments import in_full, parsed
from gt.cli.command import check_command
from gt.cli.composing import composed, settle
from gt.cli.config import check, check_path
from gt.cli.run_folders import configuration_of
from gt.data.datamodule import ALL, DataModule
from gt.errors import UserError
from gt.prediction.models import Models
from gt.schema import Schema
from gt.train.construct import constructing
from gt.train.resume import check_data, data_key
from gt.train.task import Task
from gt.train.trust import check_trusted

HANDLING = {  # what is set of data without making them others
    "root", "batch_size", "eval_batch_size", "batch_nodes", "static", "workers", "processes", "sampler", "evaluate",
    "chunk", "seed",
}  # fmt: skip
SPLITTING = {"folds", "fold", "split", "split_seed", "fractions"}  # what deals the same data out anew
SHARES = {"valid", "test"}  # so do these where they are shares, not numbers of samples that are drawn

# what a model has learned of its data, and other data cannot change
LEARNED = {
    "target", "label", "features", "kind", "level", "tokens", "vocabulary", "tokenizer", "longest", "normalise", "log",
    "standardise", "view", "weights",
}  # fmt: skip


def are_new(overrides: Sequence[str]) -> bool:
    """Whether overrides choose other data than those of the run, or only say where they are and how to go about it."""
    for override in parsed(list(overrides)):
        same = HANDLING | SPLITTING | (SHARES if isinstance(override.value(), float) else set())
        if same.isdisjoint({override.key_or_group.split(".")[-1], override.key_or_group.split("/")[-1]}):
            return True
    return False


def check_learned(overrides: Sequence[str]) -> None:
    """Whether overrides leave alone what a model has learned of its data.

    Raises:
        UserError: one does not.
    """
    for override in parsed(list(overrides)):
        if override.key_or_group.split(".")[-1] in LEARNED:
            raise UserError(
                f"{override.input_line}: new data are read as the model has learned to read such, and this is part of "
                "it: leave it out"
            )


def configured(folder: Path, overrides: Sequence[str], trust: bool) -> DictConfig:
    """The configuration of the run in a folder, its data changed as asked.

    Raises:
        UserError: no such run, one that asks to import what is not trusted, or an override that is none of the data.
    """
    kept = configuration_of(folder) / "config.yaml"
    if not kept.is_file():
        raise UserError(f"no {kept}: a checkpoint says what its model is, its run folder what its data are")
    try:
        cfg = OmegaConf.load(kept)
    except YAMLError:
        cfg = DictConfig({})
    if not (isinstance(cfg, DictConfig) and "data" in cfg and "seed" in cfg):
        raise UserError(f"{kept} is cut off or damaged: copy it again")
    check_trusted(OmegaConf.to_container(cfg), kept, trust)
    if "weights" in (cfg.data.get("source") or {}):  # of molecules alone before other data had them
        cfg.data.weights = cfg.data.source.pop("weights")
    options = [line for line in overrides if line.partition("=")[0] in ("data", "hydra.searchpath")]
    values = [line for line in overrides if line not in options]
    if options:
        cfg.data = composed([*check_command([*options, *values]), f"seed={cfg.seed}"]).data
    values = in_full(values, cfg)
    for override in parsed(values):
        key = override.key_or_group
        if not key.startswith("data."):
            raise UserError(f"{override.input_line}: only the data may be changed, by data.KEY=VALUE or data=NAME")
        check_path(cfg, key)
        OmegaConf.update(cfg, key, override.value(), force_add=True)
    settle(cfg, values)
    check(cfg)
    return cfg


def opened(
    folder: Path, overrides: Sequence[str], trust: bool, models: Models, new: bool = False
) -> tuple[DictConfig, DataModule]:
    """The configuration of the run in a folder, its data changed as asked, and these open for some models.

    Args:
        new: whether they are new to the models, see `gt.data.datamodule.DataModule.open`.

    Raises:
        UserError: see `configured`; the data cannot be read.
    """
    cfg = configured(folder, overrides, trust)
    with constructing(cfg):
        data: DataModule = instantiate(cfg.data)
    data.open(models.encodings, models.schema if new else None)
    return cfg, data


def check_unchanged(task: Task, data: DataModule, overrides: Sequence[str]) -> None:
    """Whether data that are opened by a run's own configuration are those that it was trained on, and held out from.

    Raises:
        UserError: they are not, so that their splits may be others.
    """
    if not are_new(overrides):
        links = data.schema.level == "link"  # of which all cannot be asked for
        advice = "and leave out what changes them" if links else f"or ask for all of them as new data by --split {ALL}"
        check_data(task.data_key, data_key(data), advice)


def check_schema(model: Schema, data: Schema) -> None:
    """Whether a model reads data of a schema, as the source of these was read in training, and predicts their targets.

    Raises:
        UserError: names the first thing that differs.
    """
    for name in ("columns", "node_categories", "edge_names", "edge_categories", "tokenizer", "answers"):
        if getattr(model, name) and getattr(model, name) != getattr(data, name):
            raise UserError(
                f"these are not the data that this model was trained on: what training found out of them has changed "
                f"({name}); to predict them as new data say --split {ALL}"
            )
    for name in ("node_vocab", "node_floats", "edge_vocab", "edge_floats", "level", "kind", "outputs", "positions"):
        ours, theirs = getattr(model, name), getattr(data, name)
        if ours != theirs:
            raise UserError(f"this model cannot read these data: its {name} is {ours}, that of the data {theirs}")
    if model.names != data.names and model.names and data.names:
        raise UserError("this model cannot read these data: their classes, or targets, have other names")
