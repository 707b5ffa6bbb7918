"""Compose configurations with Hydra, turn its errors into one line and remove the leftovers of replaced parts."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from gt.cli.arguments import alternatives, parse_overrides
from gt.cli.config import accepted_parameters, check_path
from gt.cli.config_files import CONFIGS, Files, as_list, value_at, yaml_line
from gt.cli.suggestions import suggestion
from gt.errors import UserError, nearest
from gt.train.construct import OPTIONS
from gt.train.resume import settings

NOT_IN_DEFAULTS = re.compile(r"Could not override '([\w/]+)'(?:.*\n.* override (?:one of )?(.+)\?)?")  # Hydra's wording
UNKNOWN_KEY = re.compile(r"Could not override '((?!hydra)[\w.]+)'")


def configuration(
    overrides: list[str], name: str = "train", files: Files | None = None, hydra: bool = False
) -> DictConfig:
    """Compose a configuration from overrides in the folder that Hydra was initialised with.

    Args:
        hydra: include Hydra's own section.

    Raises:
        UserError: one line for what Hydra refuses.
    """
    try:
        return compose(name, overrides=overrides, return_hydra_config=hydra)
    except MarkedYAMLError as error:
        raise UserError(yaml_line(error.problem_mark.name if error.problem_mark else name, error)) from None
    except (HydraException, OmegaConfBaseException) as error:
        text = str(error) or str(error.__cause__)
        if files and (not_in_defaults := NOT_IN_DEFAULTS.match(text)):
            text = files.unavailable_group(not_in_defaults[1], (not_in_defaults[2] or "").split(", "))
        elif files and (unknown_key := UNKNOWN_KEY.match(text)):  # a sweep combines each option with the keys of all
            chosen = [line for line in overrides if parse_overrides([line])[0].key_or_group in files.groups]
            text = f"with {' '.join(chosen)} there is no key '{unknown_key[1]}'"
        raise UserError(" ".join(text.split("\n")[:2]).strip()) from None


def compose_config(overrides: Sequence[str], configs: Path = CONFIGS, name: str = "train") -> DictConfig:
    """The configuration of one run, without leftovers.

    Raises:
        UserError: one line for what Hydra refuses.
    """
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        cfg = configuration(list(overrides), name, hydra=True)
        outdated = Files.from_hydra(cfg.hydra).outdated(list(overrides), name)
    with open_dict(cfg):
        del cfg["hydra"]
    remove_leftovers(cfg, overrides, outdated)
    return cfg


def refuse_overruled(cfg: DictConfig, lines: list[str], files: Files, name: str = "train") -> None:
    """Check that each option chosen by an override takes effect: a file merged later may set another ``_target_``.

    Raises:
        UserError: one does not.
    """
    chosen = [o for o in parse_overrides(lines) if o.key_or_group in files.groups and not o.is_delete()]
    options = {f"{o.key_or_group}/{option}": o for o in chosen for option in as_list(o.value())}
    for path, section, content in files.merge_order(lines, name) if options else ():
        if path not in options:
            continue
        for prefix in dict.fromkeys((section, options[path].key_or_group.replace("/", "."))):
            key = f"{prefix}._target_"
            last_file = files.last_file(key, lines, name)
            for target in value_at(content, key) if last_file not in (path, None) else ():
                if OmegaConf.select(cfg, key) != target:
                    line, last_name = options[path].input_line, files.name(str(last_file))
                    raise UserError(f"{line} has no effect: {last_name} sets {key}; to keep it, add {key}={target}")


def remove_leftovers(cfg: DictConfig, overrides: Sequence[str], outdated: Collection[str] = ()) -> list[str]:
    """Remove from a configuration, in place, the leftovers of each ``_target_`` that an override or file has replaced.

    Leftovers are keys of the section that the new target does not accept and no override sets. In a sweep they may
    differ from job to job.

    Args:
        outdated: the keys that files set for a target that a later file replaced, see `Files.outdated`.

    Returns:
        The removed keys.

    Raises:
        WrongKey: a new ``_target_`` does not exist.
    """
    values = [override for override in parse_overrides(list(overrides)) if not override.is_delete()]
    override_keys = [key for override in values for key, _ in settings(override.value(), override.key_or_group)]
    retargeted = [key.removesuffix("._target_") for key in override_keys if key.endswith("._target_")]
    leftovers = []
    for path in dict.fromkeys([*retargeted, *sorted(key.rpartition(".")[0] for key in outdated)]):
        section = OmegaConf.select(cfg, path)
        if not isinstance(section, DictConfig):  # Hydra's own, or removed with its parent section
            continue
        parameters = {*accepted_parameters(path, section["_target_"]), *OPTIONS}
        for key in [key for key in map(str, section) if key not in parameters]:
            replaced = path in retargeted or f"{path}.{key}" in outdated
            if replaced and not any(f"{override_key}.".startswith(f"{path}.{key}.") for override_key in override_keys):
                with open_dict(section):
                    del section[key]
                leftovers.append(f"{path}.{key}")
    return leftovers


def additions(values: list[Override], base: DictConfig, available: Mapping[str, Any]) -> set[str]:
    """The overrides whose key no file sets but its section accepts.

    Args:
        base: the configuration to override; each new ``_target_`` is set in it, as it decides which keys are accepted.

    Raises:
        UserError: nothing accepts the key.
    """
    added = set()
    for override in sorted(values, key=lambda override: not override.key_or_group.endswith("._target_")):
        key = override.key_or_group
        if "/" in key or "@" in key:
            raise UserError(f"no group '{key}': {nearest(key, available)}")
        if override.is_add() or override.is_force_add():
            continue
        if "." not in key and key not in base:
            names = {*available, *map(str, base)}
            raise UserError(f"unknown key '{key}': {suggestion(key, names, base)}")
        if override.is_delete():
            check_path(base, key)
            continue
        if not check_path(base, key):
            added.add(str(override.input_line))
        if key.endswith("._target_"):
            OmegaConf.update(base, key, parse_overrides(alternatives(override)[:1])[0].value(), force_add=True)
    return added


def run_dir(overrides: list[str], configs: Path = CONFIGS, name: str = "train") -> str:
    """The configured ``hydra.run.dir``, with its interpolations unresolved."""
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        hydra = compose(name, overrides=overrides, return_hydra_config=True).hydra
    return OmegaConf.to_container(hydra.run, resolve=False)["dir"]  # type: ignore[call-overload, index]
