"""Files that a configuration names, found again from wherever a run is resumed or predicted with."""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from gt.data.files import whole

NAMES = ("path", "root", "tokenizer")  # keys of a dataset whose values are paths, and those that end in _path


def anchored(config: Any) -> None:
    """Make every path of a section absolute, in place.

    A value that stands for another's, or that begins with ``~``, is left as it is.
    """
    for key in range(len(config)) if isinstance(config, ListConfig) else list(config):
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        value, name = config[key], str(key)
        if isinstance(value, DictConfig | ListConfig):
            anchored(value)
        elif isinstance(value, str) and (name in NAMES or name.endswith("_path")) and value[:1] not in ("", "/", "~"):
            config[key] = os.path.abspath(value)


def anchor(cfg: DictConfig, kept: Path) -> None:
    """Make the paths of a run's data absolute, and keep its configuration as it now is.

    Args:
        kept: the file; not written where there is none.
    """
    anchored(cfg.data)
    if kept.is_file():
        with whole(kept) as file:
            file.write(OmegaConf.to_yaml(cfg).encode())
