"""The data that a trained model is applied to: those of its run, or new data read in the same way."""

from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from gt.cli.arguments import expand_keys, parse_overrides
from gt.cli.command import check_command
from gt.cli.composing import compose_config, remove_leftovers
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

READING_KEYS = {  # change how the data are read, but not the data
    "root", "batch_size", "eval_batch_size", "batch_nodes", "static", "workers", "processes", "sampler", "evaluate",
    "chunk", "seed",
}  # fmt: skip
SPLIT_KEYS = {"folds", "fold", "split", "split_seed", "fractions"}  # split the same data differently
FRACTION_KEYS = {"valid", "test"}  # so do these if they are fractions rather than numbers of samples to generate

# fixed by training; new data cannot change them
LEARNED_KEYS = {
    "target", "label", "features", "kind", "level", "tokens", "vocabulary", "tokenizer", "longest", "normalise", "log",
    "standardise", "view", "weights",
}  # fmt: skip


def chooses_new_data(overrides: Sequence[str]) -> bool:
    """Whether overrides choose data other than those of the run, rather than where to find or how to read them."""
    for override in parse_overrides(list(overrides)):
        neutral = READING_KEYS | SPLIT_KEYS | (FRACTION_KEYS if isinstance(override.value(), float) else set())
        if neutral.isdisjoint({override.key_or_group.split(".")[-1], override.key_or_group.split("/")[-1]}):
            return True
    return False


def check_learned(overrides: Sequence[str]) -> None:
    """Check that no override changes what a model has learned from its data.

    Raises:
        UserError: one does.
    """
    for override in parse_overrides(list(overrides)):
        if override.key_or_group.split(".")[-1] in LEARNED_KEYS:
            raise UserError(
                f"{override.input_line}: new data are read as in training, which fixes this setting: leave it out"
            )


def run_config(folder: Path, overrides: Sequence[str], trust: bool) -> DictConfig:
    """The configuration of the run in a folder, with overrides of its data.

    Raises:
        UserError: there is no such run, it imports untrusted code, or an override is not one of the data.
    """
    path = configuration_of(folder) / "config.yaml"
    if not path.is_file():
        raise UserError(f"there is no {path}: the data are configured in the run folder, not in the checkpoint")
    try:
        cfg = OmegaConf.load(path)
    except YAMLError:
        cfg = DictConfig({})
    if not (isinstance(cfg, DictConfig) and "data" in cfg and "seed" in cfg):
        raise UserError(f"{path} is truncated or damaged: copy it again")
    check_trusted(OmegaConf.to_container(cfg), path, trust)
    if "weights" in (cfg.data.get("source") or {}):  # older runs had it in the source of molecules
        cfg.data.weights = cfg.data.source.pop("weights")
    options = [line for line in overrides if line.partition("=")[0] in ("data", "hydra.searchpath")]
    values = [line for line in overrides if line not in options]
    if options:
        cfg.data = compose_config([*check_command([*options, *values]), f"seed={cfg.seed}"]).data
    values = expand_keys(values, cfg)
    for override in parse_overrides(values):
        key = override.key_or_group
        if not key.startswith("data."):
            raise UserError(f"{override.input_line}: only the data may be changed, by data.KEY=VALUE or data=NAME")
        check_path(cfg, key)
        OmegaConf.update(cfg, key, override.value(), force_add=True)
    remove_leftovers(cfg, values)
    check(cfg)
    return cfg


def open_run_data(
    folder: Path, overrides: Sequence[str], trust: bool, models: Models, new: bool = False
) -> tuple[DictConfig, DataModule]:
    """The configuration of the run in a folder, with overrides of its data, and the data opened for some models.

    Args:
        new: whether the data are new to the models, see `gt.data.datamodule.DataModule.open`.

    Raises:
        UserError: see `run_config`; the data cannot be read.
    """
    cfg = run_config(folder, overrides, trust)
    with constructing(cfg):
        data: DataModule = instantiate(cfg.data)
    data.open(models.encodings, models.schema if new else None)
    return cfg, data


def check_unchanged(task: Task, data: DataModule, overrides: Sequence[str]) -> None:
    """Check that data opened from a run's own configuration are still those of its training.

    Raises:
        UserError: they are not, so their splits may differ.
    """
    if not chooses_new_data(overrides):
        is_link = data.schema.level == "link"  # the split ALL does not exist for them
        advice = "and leave out what changes them" if is_link else f"or predict all as new data with --split {ALL}"
        check_data(task.data_key, data_key(data), advice)


def check_schema(model: Schema, data: Schema) -> None:
    """Check that a model can read data of this schema, which were read as in training, and predict their targets.

    Raises:
        UserError: names the first difference.
    """
    for name in ("columns", "node_categories", "edge_names", "edge_categories", "tokenizer", "answers"):
        if getattr(model, name) and getattr(model, name) != getattr(data, name):
            raise UserError(
                f"these are not the data that this model was trained on ({name} differs); "
                f"to predict them as new data use --split {ALL}"
            )
    for name in ("node_vocab", "node_floats", "edge_vocab", "edge_floats", "level", "kind", "outputs", "positions"):
        ours, theirs = getattr(model, name), getattr(data, name)
        if ours != theirs:
            raise UserError(f"this model cannot read these data: its {name} is {ours}, theirs is {theirs}")
    if model.names != data.names and model.names and data.names:
        raise UserError("this model cannot read these data: their classes or targets have other names")
