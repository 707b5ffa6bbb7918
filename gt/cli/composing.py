"""Configurations composed by Hydra: mistakes become one line, and what a replaced part leaves behind is taken out."""

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

from gt.cli.arguments import alternatives, parsed
from gt.cli.config import accepted, check_path
from gt.cli.config_files import CONFIGS, Files, listed, value_at, yaml_line
from gt.cli.suggestions import suggested
from gt.errors import UserError, nearest
from gt.train.construct import OPTIONS
from gt.train.resume import settings

UNASKED = re.compile(r"Could not override '([\w/]+)'(?:.*\n.* override (?:one of )?(.+)\?)?")  # as Hydra has it
ABSENT = re.compile(r"Could not override '((?!hydra)[\w.]+)'")


def configuration(
    overrides: list[str], name: str = "train", files: Files | None = None, hydra: bool = False
) -> DictConfig:
    """What Hydra composes of overrides in the folder of configurations that it was given.

    Args:
        hydra: with Hydra's own section.

    Raises:
        UserError: one line for what it refuses.
    """
    try:
        return compose(name, overrides=overrides, return_hydra_config=hydra)
    except MarkedYAMLError as error:
        raise UserError(yaml_line(error.problem_mark.name if error.problem_mark else name, error)) from None
    except (HydraException, OmegaConfBaseException) as error:
        text = str(error) or str(error.__cause__)
        if files and (unasked := UNASKED.match(text)):
            text = files.without(unasked[1], (unasked[2] or "").split(", "))
        elif files and (absent := ABSENT.match(text)):  # a sweep tries each option with the keys of all
            chosen = [line for line in overrides if parsed([line])[0].key_or_group in files.groups]
            text = f"with {' '.join(chosen)} there is no key '{absent[1]}'"
        raise UserError(" ".join(text.split("\n")[:2]).strip()) from None


def composed(overrides: Sequence[str], configs: Path = CONFIGS, name: str = "train") -> DictConfig:
    """The settled configuration of one run.

    Raises:
        UserError: one line for what Hydra refuses.
    """
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        cfg = configuration(list(overrides), name, hydra=True)
        outdated = Files.of(cfg.hydra).outdated(list(overrides), name)
    with open_dict(cfg):
        del cfg["hydra"]
    settle(cfg, overrides, outdated)
    return cfg


def refuse_overruled(cfg: DictConfig, lines: list[str], files: Files, name: str = "train") -> None:
    """Whether each option that overrides choose is heard: a file that is merged later may put another class there.

    Raises:
        UserError: one is not.
    """
    chosen = [o for o in parsed(lines) if o.key_or_group in files.groups and not o.is_delete()]
    options = {f"{o.key_or_group}/{option}": o for o in chosen for option in listed(o.value())}
    for path, section, content in files.counting(lines, name) if options else ():
        if path not in options:
            continue
        for place in dict.fromkeys((section, options[path].key_or_group.replace("/", "."))):
            key = f"{place}._target_"
            last = files.setting(key, lines, name)
            for target in value_at(content, key) if last not in (path, None) else ():
                if OmegaConf.select(cfg, key) != target:
                    line, other = options[path].input_line, files.name(str(last))
                    raise UserError(f"{line} counts for nothing: {other} sets {key}; to have it, add {key}={target}")


def settle(cfg: DictConfig, overrides: Sequence[str], outdated: Collection[str] = ()) -> list[str]:
    """Take out of a configuration, in place, the leftovers of each ``_target_`` that an override or file has replaced.

    Leftovers are the keys of its section that the new one does not take and that no override sets. A sweep may try
    several: which these are is known for each of its jobs alone.

    Args:
        outdated: the keys that files set for what another file has replaced, see `Files.outdated`.

    Returns:
        The keys that were taken out.

    Raises:
        WrongKey: there is nothing of the name that an override gives.
    """
    values = [override for override in parsed(list(overrides)) if not override.is_delete()]
    typed = [key for override in values for key, _ in settings(override.value(), override.key_or_group)]
    swapped = [key.removesuffix("._target_") for key in typed if key.endswith("._target_")]
    leftovers = []
    for path in dict.fromkeys([*swapped, *sorted(key.rpartition(".")[0] for key in outdated)]):
        section = OmegaConf.select(cfg, path)
        if not isinstance(section, DictConfig):  # Hydra's own, or gone with the section that it was in
            continue
        known = {*accepted(path, section["_target_"]), *OPTIONS}
        for key in [key for key in map(str, section) if key not in known]:
            old = path in swapped or f"{path}.{key}" in outdated
            if old and not any(f"{each}.".startswith(f"{path}.{key}.") for each in typed):
                with open_dict(section):
                    del section[key]
                leftovers.append(f"{path}.{key}")
    return leftovers


def additions(values: list[Override], base: DictConfig, available: Mapping[str, Any]) -> set[str]:
    """Those overrides of values whose key a section takes though no file sets it.

    Args:
        base: what the overrides change; those of a ``_target_`` are made in it, for they say what a section takes.

    Raises:
        UserError: a key that nothing takes.
    """
    added = set()
    for override in sorted(values, key=lambda override: not override.key_or_group.endswith("._target_")):
        key = override.key_or_group
        if "/" in key or "@" in key:
            raise UserError(f"no group '{key}': {nearest(key, available)}")
        if override.is_add() or override.is_force_add():
            continue
        if "." not in key and key not in base:
            known = {*available, *map(str, base)}
            raise UserError(f"unknown key '{key}': {suggested(key, known, base)}")
        if override.is_delete():
            check_path(base, key)
            continue
        if not check_path(base, key):
            added.add(str(override.input_line))
        if key.endswith("._target_"):
            OmegaConf.update(base, key, parsed(alternatives(override)[:1])[0].value(), force_add=True)
    return added


def run_dir(overrides: list[str], configs: Path = CONFIGS, name: str = "train") -> str:
    """``hydra.run.dir`` as it is configured, its interpolations as they stand."""
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        hydra = compose(name, overrides=overrides, return_hydra_config=True).hydra
    return OmegaConf.to_container(hydra.run, resolve=False)["dir"]  # type: ignore[call-overload, index]
