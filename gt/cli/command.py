"""The command line of a run: its arguments are checked in full and translated for Hydra."""

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.override_parser.types import IntervalSweep
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from gt.cli.arguments import ANSWERED, COLUMNS, alternatives, expand_keys, flag_value, parse_overrides, split_flags
from gt.cli.composing import additions, configuration, refuse_overruled, remove_leftovers, run_dir
from gt.cli.config import NAMED_PARTS, NEEDS_LIGHTNING, Config, WrongKey, check
from gt.cli.config_files import CONFIGS, Files, search_folder
from gt.cli.program import import_from_here
from gt.cli.resuming import resume_arguments
from gt.cli.run_folders import check_new, resume_sweep, start_or_resume_sweep, unfinished_run, unquoted
from gt.cli.seeds import check_against, split_off_seeds, with_seeds
from gt.cli.trials.search import as_trials
from gt.errors import UserError, shell_override
from gt.train.launch import started_outside
from gt.train.processes import check_devices


def check_command(
    arguments: list[str],
    configs: Path = CONFIGS,
    name: str = "train",
    extra_folders: Sequence[str] = (),
    seeds: int = 0,
    notes: bool = False,
    rehearse: bool = False,
    trains: bool = True,
) -> list[str]:
    """Check the overrides, the files they choose and the resulting configuration.

    Args:
        arguments: overrides and flags; the flags are not checked.
        configs: the folder of the primary configuration.
        name: the name of the primary configuration file.
        extra_folders: further configuration folders, besides those in ``hydra.searchpath`` among the overrides.
        notes: print which encodings or callbacks of the defaults are replaced.
        seeds: number of seeds to run each setting with, see `gt.cli.seeds.with_seeds`; 0: as the arguments say.
        rehearse: this is a single run: build its parts now, so that what they refuse ends the command. (In a sweep
            the other jobs still run.)
        trains: the command trains, so check the sections that need Lightning too.

    Returns:
        The same arguments, with a ``+`` before each key that its section accepts but no file sets. A command that only
        shows a configuration also gets the overrides that delete leftovers, see `remove_leftovers`.

    Raises:
        UserError: one line for the first mistake, naming the file unless it is on the command line.
    """
    overrides = parse_overrides(arguments)
    hydra_lines = [alternatives(override)[0] for override in overrides if override.is_hydra_override()]
    searches = [override.value() for override in overrides if override.key_or_group == "hydra.searchpath"]
    search_folders = [*extra_folders, *(searches[-1] if searches and isinstance(searches[-1], list) else ())]
    files = Files(configs, *map(search_folder, map(str, search_folders)))
    if search_folders:
        hydra_lines.append(f"hydra.searchpath=[{','.join(map(repr, map(str, files.folders[1:])))}]")
    chosen = [override for override in overrides if override.key_or_group in files.groups]
    choices = [alternatives(override, files.groups[override.key_or_group]) for override in chosen]
    for override, lines in zip(chosen, choices, strict=True):
        for line in lines if not override.is_delete() else ():
            files.check_options(override.key_or_group, parse_overrides([line])[0].value())
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        options = [*hydra_lines, *(lines[0] for lines in choices)]
        base = configuration(options, name, files, hydra=True)
        is_sweep = bool({"-m", "--multirun"} & {*arguments}) or base.hydra.mode == RunMode.MULTIRUN
        with open_dict(base):
            del base["hydra"]
        for override in overrides:
            if override.key_or_group == "hydra.run.dir" and is_sweep:
                raise UserError(f"{override.input_line}: this command starts a sweep: set hydra.sweep.dir instead")
        arguments = expand_keys(arguments, base)
        task_overrides = [override for override in parse_overrides(arguments) if not override.is_hydra_override()]
        values = [override for override in task_overrides if override.key_or_group not in files.groups]
        try:
            added = additions(values, base, files.groups)
        except WrongKey as error:
            raise UserError(files.wrong_option(error.key) or str(error)) from None
        assigned = [["+" + line if o.input_line in added else line for line in alternatives(o)] for o in values]
        variants, keys = [*choices, *assigned], [override.key_or_group for override in values]
        first, groups = [lines[0] for lines in variants], len(hydra_lines) + len(chosen)
        rehearse = rehearse and all(len(lines) == 1 for lines in variants)  # otherwise `prepare_arguments` asks for -m
        show_only = flag_value(split_flags(arguments)[0], "-c", "--cfg") is not None
        leftovers = check_run([*hydra_lines, *first], groups, keys, files, name, rehearse, trains, show_only)
        for index, lines in enumerate(variants):
            for line in lines[1:]:  # of a sweep, each further value
                check_run(
                    [*hydra_lines, *first[:index], line, *first[index + 1 :]], groups, keys, files, name, False, trains
                )
    firsts = {parse_overrides([lines[0]])[0].key_or_group: parse_overrides([lines[0]])[0].value() for lines in choices}
    for note in files.replaced_defaults(firsts) if notes and not show_only else ():
        print(note, flush=True)
    # Hydra cannot delete a key that is null
    removals = [line for key in leftovers for line in (f"{key}=0", f"~{key}")] if show_only else []
    arguments = ["+" + argument if argument in added else argument for argument in arguments] + removals
    return with_seeds(arguments, seeds, base.get("seed", 0)) if seeds else arguments


def check_run(
    lines: list[str],
    groups: int,
    keys: list[str],
    files: Files,
    name: str = "train",
    rehearse: bool = False,
    trains: bool = True,
    show_only: bool = False,
) -> list[str]:
    """Check the configuration of one run and return the leftovers in it, see `remove_leftovers`.

    Args:
        lines: overrides without sweeps; the first ``groups`` of them are Hydra's own or choose options.
        keys: the keys that the other overrides set: any other wrong key comes from a file, which the message names.
        rehearse: the run starts on this machine now: check its devices and build its parts, see
            `gt.train.network.rehearse_run`, before importing Lightning unless an override needs it.
        trains: check the sections that need Lightning too.
        show_only: the configuration is only shown, so values may be missing.
    """
    try:
        cfg = configuration(lines, name, files)
        refuse_overruled(cfg, lines, files, name)
        leftovers = remove_leftovers(cfg, lines, files.outdated(lines, name))
        if show_only and OmegaConf.missing_keys(cfg):
            return leftovers
        check(cfg, late=False)
        fits = rehearse and cfg.get("stage", "fit") == "fit"
        if fits:
            check_devices(cfg.trainer.get("accelerator"), cfg.trainer.get("devices"))
        if rehearse and not any(key.partition(".")[0] in NEEDS_LIGHTNING for key in keys):
            from gt.train.network import rehearse_run  # late: it imports PyTorch

            rehearse_run(cfg)
        if trains:
            check(cfg, late=True)
        if fits:
            from gt.train.trainer import rehearse_trainer

            rehearse_trainer(cfg)
        return leftovers
    except WrongKey as error:
        prefix = error.key + "."
        path = files.last_file(error.key, lines[:groups], name)
        keys = [key.removesuffix("._target_") for key in keys]  # to blame for all its arguments
        if path is None or any(prefix.startswith(f"{key}.") or f"{key}.".startswith(prefix) for key in keys):
            raise
        if package := files.misplaced_package(path):
            raise UserError(f"{files.name(path)}: '{package}' has no effect unless it is the first line") from None
        if error.key in files.groups and error.key not in {section.name for section in fields(Config)}:
            raise UserError(f"{files.name(path)} lacks its first line '# @package _global_'") from None
        raise UserError(f"{files.name(path)}: {error}") from None


def prepare_arguments(arguments: list[str]) -> list[str]:
    """Check the arguments of a command and return those for Hydra, flags first; ``resume=`` is translated.

    Custom parts are importable from the working directory, as those beside ``train.py`` are.
    """
    import_from_here()
    if "LOCAL_RANK" in os.environ and not started_outside():  # child process: its parent has checked them
        return arguments
    flags, overrides = split_flags(arguments)
    overrides = list(map(unquoted, overrides))
    if sweep_arguments := resume_sweep(overrides):
        return sweep_arguments
    flags, overrides, seeds, against = as_trials(flags, *split_off_seeds(overrides))
    is_sweep = bool({"-m", "--multirun"} & {*flags}) or any(line.startswith("hydra.mode") for line in overrides)
    seeds = 0 if {"-c", "--cfg"} & {*flags} else seeds  # --cfg shows the configuration of one run
    if seeds and not is_sweep:
        flags, is_sweep = [*flags, "-m"], True
    modes = [flag for flag in flags if flag in ("-m", "--multirun", "-r", "--run", "-c", "--cfg")]
    if len(modes) > 1:
        raise UserError(f"{' and '.join(modes)} cannot be combined: choose one of them")
    if any(flag.partition("=")[0] in ANSWERED for flag in flags):
        return [*flags, *overrides]
    auto_resume, overrides = "resume=auto" in overrides, [line for line in overrides if line != "resume=auto"]
    resumed = resume_arguments(overrides)
    if seeds and resumed is not overrides:
        raise UserError(f"seeds={seeds} starts new runs, but resume continues one: leave one of them out")
    if resumed is not overrides and is_sweep:
        raise UserError("-m starts a sweep, but resume names a single run: leave -m out")
    if resumed is not overrides:
        return [*flags, *resumed]
    config_dir, config_path = flag_value(flags, "-cd", "--config-dir"), flag_value(flags, "-cp", "--config-path")
    configs = CONFIGS if config_path is None else search_folder(str(CONFIGS.parent / config_path))
    name = flag_value(flags, "-cn", "--config-name") or "train"
    extra_folders, single_run = () if config_dir is None else (config_dir,), not is_sweep and not modes
    checked = check_command([*flags, *overrides], configs, name, extra_folders, seeds, notes=True, rehearse=single_run)
    if auto_resume and not is_sweep:
        checked_overrides = parse_overrides(split_flags(checked)[1])
        task_lines, hydra_lines = (
            [str(o.input_line) for o in checked_overrides if o.is_hydra_override() == kind] for kind in (False, True)
        )
        folder = unfinished_run(run_dir(hydra_lines, configs, name), task_lines)
        if folder is not None:
            print(f"continuing the run in {folder}", flush=True)
            return [*flags, *resume_arguments([f"resume={folder}"])]
        print("this command has no unfinished run: starting a new one", flush=True)
    samples = any(line.startswith(("sweep=", "experiment=", "hydra/sweeper", "hydra.sweeper")) for line in overrides)
    for override in parse_overrides(overrides):
        if isinstance(override.value(), IntervalSweep) and not samples:
            raise UserError(f"{override.input_line} is an interval: add sweep=optuna to sample trials from it")
        if override.key_or_group == "hydra.run.dir" and not is_sweep and not modes:
            check_new(Path(str(override.value())))
        if override.is_sweep_override() and not is_sweep:
            key, _, value = str(override.input_line).partition("=")
            meaning = "several columns" if COLUMNS.fullmatch(key) else "all in one run" if key in NAMED_PARTS else ""
            hint = f"; for {meaning}: {shell_override(key, value.split(','))}" if meaning else ""
            raise UserError(f"{override.input_line} gives several values: add -m to run them all{hint}")
    if against and not is_sweep:
        raise UserError(f"against={against} compares runs of several seeds: add seeds=5")
    checked = [*checked, check_against(against, checked)] if against else checked
    return start_or_resume_sweep(checked) if auto_resume and is_sweep else checked
