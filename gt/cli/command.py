"""The command line around a run: mistakes become one line, a stopped run says how it goes on."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from gt.cli.arguments import ASKING, COLUMNS, alternatives, arranged, in_full, parsed, value_of
from gt.cli.config import MANY, Config, WrongKey, accepted, check, check_path
from gt.cli.config_files import CONFIGS, Files, searched, yaml_line
from gt.cli.program import import_from_here
from gt.cli.run_folders import RESUMED, check_new, configuration_of, sweep_again, unfinished
from gt.cli.seeds import check_against, repeated, taken_out
from gt.cli.suggestions import suggested
from gt.cli.trials.search import as_trials
from gt.errors import UserError, nearest, shell_override
from gt.train.construct import OPTIONS
from gt.train.job import in_use
from gt.train.launch import started_outside
from gt.train.resume import changes, settings


def check_command(
    arguments: list[str],
    configs: Path = CONFIGS,
    name: str = "train",
    beside: Sequence[str] = (),
    seeds: int = 0,
    notes: bool = False,
) -> list[str]:
    """Hold overrides, the files that they choose and the resulting configuration against what exists.

    Args:
        arguments: overrides, and flags, which are left alone.
        configs: the folder of the primary configuration.
        name: that of its file.
        beside: further folders of configurations; those that ``hydra.searchpath`` names are found among the overrides.
        notes: whether to say which encodings of a model's own are left out.
        seeds: how often each setting is to run, see `gt.cli.seeds.repeated`; 0: as the arguments say.

    Returns:
        The same arguments; a key that a section takes and its file leaves out is marked as an addition for Hydra. To
        those that show a configuration is added what takes leftovers out of it, see `settle`.

    Raises:
        UserError: one line for the first thing that is wrong, naming the file where it is not the command line.
    """
    overrides = parsed(arguments)
    hydras = [alternatives(override)[0] for override in overrides if override.is_hydra_override()]
    searches = [override.value() for override in overrides if override.key_or_group == "hydra.searchpath"]
    places = [*beside, *(searches[-1] if searches and isinstance(searches[-1], list) else ())]
    files = Files(configs, *map(searched, map(str, places)))
    if places:
        hydras.append(f"hydra.searchpath=[{','.join(map(repr, map(str, files.folders[1:])))}]")
    chosen = [override for override in overrides if override.key_or_group in files.groups]
    choices = [alternatives(override, files.groups[override.key_or_group]) for override in chosen]
    for override, lines in zip(chosen, choices, strict=True):
        for line in lines if not override.is_delete() else ():
            files.check_options(override.key_or_group, parsed([line])[0].value())
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        base = _compose([*hydras, *(lines[0] for lines in choices)], name, files)
        arguments = in_full(arguments, base)
        own = [override for override in parsed(arguments) if not override.is_hydra_override()]
        values = [override for override in own if override.key_or_group not in files.groups]
        try:
            added = additions(values, base, files.groups)
        except WrongKey as error:
            raise UserError(files.elsewhere(error.key) or str(error)) from None
        assigned = [["+" + line if o.input_line in added else line for line in alternatives(o)] for o in values]
        plain, keys = [*choices, *assigned], [override.key_or_group for override in values]
        first, groups = [lines[0] for lines in plain], len(hydras) + len(chosen)
        left = check_run([*hydras, *first], groups, keys, files, name)
        for place, lines in enumerate(plain):
            for line in lines[1:]:  # of a sweep, each further value
                check_run([*hydras, *first[:place], line, *first[place + 1 :]], groups, keys, files, name)
    shows = value_of(arranged(arguments)[0], "-c", "--cfg") is not None
    firsts = {parsed([lines[0]])[0].key_or_group: parsed([lines[0]])[0].value() for lines in choices}
    if notes and not shows and (note := files.replaced(firsts)):
        print(note, flush=True)
    removals = [line for key in left for line in (f"{key}=0", f"~{key}")] if shows else []  # Hydra deletes no null
    arguments = ["+" + argument if argument in added else argument for argument in arguments] + removals
    return repeated(arguments, seeds, base.get("seed", 0)) if seeds else arguments


def settle(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Take out of a configuration, in place, the leftovers of each ``_target_`` that an override has replaced.

    Leftovers are the keys of its section that the new one does not take and that no override sets. A sweep may try
    several: which these are is known for each of its jobs alone.

    Returns:
        The keys that were taken out.

    Raises:
        WrongKey: there is nothing of the name that an override gives.
    """
    values = [override for override in parsed(list(overrides)) if not override.is_delete()]
    typed = [key for override in values for key, _ in settings(override.value(), override.key_or_group)]
    leftovers = []
    for path in (key.removesuffix("._target_") for key in typed if key.endswith("._target_")):
        section = OmegaConf.select(cfg, path)
        if not isinstance(section, DictConfig):  # Hydra's own
            continue
        known = {*accepted(path, section["_target_"]), *OPTIONS}
        for key in [key for key in map(str, section) if key not in known]:
            if not any(f"{each}.".startswith(f"{path}.{key}.") for each in typed):
                with open_dict(section):
                    del section[key]
                leftovers.append(f"{path}.{key}")
    return leftovers


def composed(overrides: Sequence[str], configs: Path = CONFIGS, name: str = "train") -> DictConfig:
    """The settled configuration of one run.

    Raises:
        UserError: one line for what Hydra refuses.
    """
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        cfg = _compose(list(overrides), name)
    settle(cfg, overrides)
    return cfg


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


def check_run(lines: list[str], groups: int, keys: list[str], files: Files, name: str = "train") -> list[str]:
    """Check the configuration of one run, that of the given overrides; returns the leftovers in it, see `settle`.

    Args:
        lines: overrides without a sweep; the first ``groups`` of them are Hydra's own and choose options.
        keys: what the others set: a mistake elsewhere is that of a file, which the message then names.
    """
    try:
        cfg = _compose(lines, name, files)
        leftovers = settle(cfg, lines)
        check(cfg)
        return leftovers
    except WrongKey as error:
        wrong = error.key + "."
        path = files.setting(error.key, lines[:groups], name)
        keys = [key.removesuffix("._target_") for key in keys]  # which is to blame for all that it is given
        if path is None or any(wrong.startswith(f"{key}.") or f"{key}.".startswith(wrong) for key in keys):
            raise
        if error.key in files.groups and error.key not in {section.name for section in fields(Config)}:
            raise UserError(f"{files.name(path)} lacks its first line '# @package _global_'") from None
        raise UserError(f"{files.name(path)}: {error}") from None


def _compose(overrides: list[str], name: str = "train", files: Files | None = None) -> DictConfig:
    try:
        return compose(name, overrides=overrides)
    except MarkedYAMLError as error:
        raise UserError(yaml_line(error.problem_mark.name if error.problem_mark else name, error)) from None
    except (HydraException, OmegaConfBaseException) as error:
        text = str(error) or str(error.__cause__)
        if files and (unasked := re.match(r"Could not override '([\w/]+)'", text)):
            text = files.without(unasked[1])
        raise UserError(" ".join(text.split("\n")[:2]).strip()) from None


def run_dir(overrides: list[str], configs: Path = CONFIGS, name: str = "train") -> str:
    """``hydra.run.dir`` as it is configured, its interpolations as they stand."""
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        hydra = compose(name, overrides=overrides, return_hydra_config=True).hydra
    return OmegaConf.to_container(hydra.run, resolve=False)["dir"]  # type: ignore[call-overload, index]


def resumed(arguments: list[str]) -> list[str]:
    """``resume=FOLDER`` turned into Hydra's words: the configuration that the folder keeps, in that same folder.

    What the other arguments change in it is said, a line each, and holds the next time that the run goes on, too.

    Raises:
        UserError: no such run, it has nothing to go on from, or an argument changes what must stay, see
            `gt.train.resume`.
    """
    last = ["resume=", *(argument for argument in arguments if argument.startswith("resume="))][-1]
    if last in ("resume=", "resume=null"):
        return arguments
    folder = Path(last.removeprefix("resume="))
    if not ((configs := configuration_of(folder)) / "config.yaml").is_file():
        raise UserError(f"no run in {folder}: resume takes the folder that a run named when it began or ended")
    if not any((folder / "checkpoints").glob("*.ckpt")):
        raise UserError(f"{folder} has no checkpoint: it stopped before its first; start anew")
    if in_use(folder):
        raise UserError(f"another process is at work in {folder}: wait until it ends, or stop it")
    kept = [argument for argument in arguments if not argument.startswith("resume=")]
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        before = _compose([], "config")
        kept = in_full(kept, before)
        overrides = parsed(kept)
        added = additions([o for o in overrides if not o.is_hydra_override()], before.copy(), {})
        # twice: a process that is started later reads the configuration that this one has written, with the key in it
        kept = ["++" + argument if argument in added else argument for argument in kept]
        after = _compose([str(override.input_line) for override in parsed(kept)], "config")
        settle(after, kept)
        differences = changes(before, after)
        try:
            check(after)
        except WrongKey:
            check_version(before, folder)
            raise
    for change in differences:
        print(f"goes on with {change}", flush=True)
    where = ["--config-path", str(configs.resolve()), "--config-name", "config"]
    return [*where, f"resume={folder}", f"hydra.run.dir={folder}", f"hydra.output_subdir=.hydra/{RESUMED}", *kept]


def check_version(cfg: DictConfig, folder: Path) -> None:
    """Refuse the configuration of a run that another version of this program has written.

    Raises:
        UserError: it is wrong as it stands in the run's folder, in a section of this program's own.
    """
    try:
        check(cfg)
    except WrongKey as error:
        section = OmegaConf.select(cfg, error.key.rpartition(".")[0])
        if isinstance(section, DictConfig) and str(section.get("_target_")).startswith("gt."):
            load = f"gt.load({str(folder)!r})"
            raise UserError(
                f"{folder} was written by an older version of this program and cannot go on ({error}); "
                f"{load} may still read its checkpoint"
            ) from None


def prepared(arguments: list[str]) -> list[str]:
    """The arguments that Hydra gets: checked, flags first, and those of a run to resume put in its words.

    Parts of one's own are found in the folder in which the command runs, as those beside ``train.py`` are.
    """
    import_from_here()
    if "LOCAL_RANK" in os.environ and not started_outside():  # a child of a run that was checked
        return arguments
    flags, overrides = arranged(arguments)
    if going := sweep_again(overrides):
        return going
    flags, overrides, seeds, against = as_trials(flags, *taken_out(overrides))
    many = bool({"-m", "--multirun"} & {*flags}) or any(line.startswith("hydra.mode") for line in overrides)
    seeds = 0 if {"-c", "--cfg"} & {*flags} else seeds  # what is shown is one run
    if seeds and not many:
        flags, many = [*flags, "-m"], True
    wanted = [flag for flag in flags if flag in ("-m", "--multirun", "-r", "--run", "-c", "--cfg")]
    if len(wanted) > 1:
        raise UserError(f"{' and '.join(wanted)} cannot be combined: choose one of them")
    if any(flag.partition("=")[0] in ASKING for flag in flags):
        return [*flags, *overrides]
    auto, overrides = "resume=auto" in overrides, [line for line in overrides if line != "resume=auto"]
    again = resumed(overrides)
    if seeds and (auto or again is not overrides):
        raise UserError(f"seeds={seeds} begins new runs, and resume goes on with one: leave one of them out")
    if auto and many:
        raise UserError("resume=auto goes on with one run, and a sweep has many: leave one of them out")
    if again is not overrides:
        return [*flags, *again]
    beside, primary = value_of(flags, "-cd", "--config-dir"), value_of(flags, "-cp", "--config-path")
    configs = CONFIGS if primary is None else searched(str(CONFIGS.parent / primary))
    name = value_of(flags, "-cn", "--config-name") or "train"
    checked = check_command([*flags, *overrides], configs, name, () if beside is None else (beside,), seeds, notes=True)
    if auto:
        known = parsed(arranged(checked)[1])
        own, hydras = ([str(o.input_line) for o in known if o.is_hydra_override() == kind] for kind in (False, True))
        folder = unfinished(run_dir(hydras, configs, name), own)
        if folder is not None:
            print(f"goes on with the run in {folder}", flush=True)
            return [*flags, *resumed([f"resume={folder}"])]
        print("no run of this command that could go on: a new one begins", flush=True)
    draws = any(line.startswith(("sweep=", "experiment=", "hydra/sweeper", "hydra.sweeper")) for line in overrides)
    for override in parsed(overrides):
        if isinstance(override.value(), IntervalSweep) and not draws:
            raise UserError(f"{override.input_line} is an interval: add sweep=optuna for trials that draw from it")
        if override.key_or_group == "hydra.run.dir" and seeds:
            raise UserError(f"seeds={seeds} makes a sweep, whose folder is hydra.sweep.dir, not hydra.run.dir")
        if override.key_or_group == "hydra.run.dir" and not many and not wanted:
            check_new(Path(str(override.value())))
        if override.is_sweep_override() and not many:
            key, _, value = str(override.input_line).partition("=")
            together = "several columns" if COLUMNS.fullmatch(key) else "all in one run" if key in MANY else ""
            hint = f"; {together} are {shell_override(key, value.split(','))}" if together else ""
            raise UserError(f"{override.input_line} gives several values: add -m to run them all{hint}")
    if against and not many:
        raise UserError(f"against={against} compares runs of several seeds: add seeds=5")
    return [*checked, check_against(against, checked)] if against else checked
