"""Makes paths in a configuration absolute, so that a run can be resumed or used from any folder."""

import os
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

PATH_KEYS = ("path", "root", "tokenizer")  # keys whose values are paths, besides those that end in _path


def anchor(config: Any) -> None:
    """Make all paths in a section absolute, in place.

    Interpolations and paths that begin with ``~`` are left unchanged.
    """
    for key in range(len(config)) if isinstance(config, ListConfig) else list(config):
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        value, name = config[key], str(key)
        if isinstance(value, DictConfig | ListConfig):
            anchor(value)
        elif (
            isinstance(value, str) and (name in PATH_KEYS or name.endswith("_path")) and value[:1] not in ("", "/", "~")
        ):
            config[key] = os.path.abspath(value)
