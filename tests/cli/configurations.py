"""Composed configurations, the options of all groups, and example classes as targets of sections."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from gt.cli.config_files import CONFIGS

OPTIONS = sorted(
    path.relative_to(CONFIGS).with_suffix("") for path in CONFIGS.rglob("*.yaml") if path.parent != CONFIGS
)
CHOICES = [
    f"{option.parent.as_posix()}={option.name}"
    for option in OPTIONS
    if option.parts[0] != "hydra" and option.parent.name != "wandb"  # W&B sweeps are tested in test_wandb_sweeps.py
]


def composed(*overrides: str) -> DictConfig:
    """The configuration of a run with some overrides."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def options_of(group: str) -> list[str]:
    """The choices of a group, each as ``GROUP=OPTION``."""
    return [choice for choice in CHOICES if choice.startswith(f"{group}=")]


class Base: ...


@dataclass
class Thing:
    """The default target of `section`."""

    size: int = 1
    mode: Literal["fast", "slow"] = "fast"
    parts: Sequence[Any] = ()
    inner: Base | None = None
    table: dict[str, int] | None = None
    monitor: str = ""
    betas: tuple[float, float] = (0.0, 1.0)


class Greedy:
    """Accepts any further arguments."""

    def __init__(self, first, *more, named: int = 0, **others):
        self.first = first


def section(class_name: str = "Thing", **values) -> dict[str, Any]:
    """A section with a class of this module as its target."""
    return {"_target_": f"{__name__}.{class_name}", **values}
