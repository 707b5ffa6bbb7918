"""Files that a configuration names, found again from wherever a run is resumed or predicted with."""

import os
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

NAMES = ("path", "root", "tokenizer")  # keys of a dataset whose values are paths, and those that end in _path


def anchor(config: Any) -> None:
    """Make every path of a section absolute, in place.

    A value that stands for another's, or that begins with ``~``, is left as it is.
    """
    for key in range(len(config)) if isinstance(config, ListConfig) else list(config):
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        value, name = config[key], str(key)
        if isinstance(value, DictConfig | ListConfig):
            anchor(value)
        elif isinstance(value, str) and (name in NAMES or name.endswith("_path")) and value[:1] not in ("", "/", "~"):
            config[key] = os.path.abspath(value)
