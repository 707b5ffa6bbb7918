"""The command line around a run: its arguments held against all that there is, and put in Hydra's words."""

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.override_parser.types import IntervalSweep
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from gt.cli.arguments import ASKING, COLUMNS, alternatives, arranged, in_full, parsed, value_of
from gt.cli.composing import additions, configuration, refuse_overruled, run_dir, settle
from gt.cli.config import LATE, MANY, Config, WrongKey, check
from gt.cli.config_files import CONFIGS, Files, searched
from gt.cli.program import import_from_here
from gt.cli.resuming import resumed
from gt.cli.run_folders import begun_or_resumed, check_new, sweep_again, unfinished, unquoted
from gt.cli.seeds import check_against, repeated, taken_out
from gt.cli.trials.search import as_trials
from gt.errors import UserError, shell_override
from gt.train.launch import started_outside
from gt.train.processes import check_devices


def check_command(
    arguments: list[str],
    configs: Path = CONFIGS,
    name: str = "train",
    beside: Sequence[str] = (),
    seeds: int = 0,
    notes: bool = False,
    rehearse: bool = False,
    trains: bool = True,
) -> list[str]:
    """Hold overrides, the files that they choose and the resulting configuration against what exists.

    Args:
        arguments: overrides, and flags, which are left alone.
        configs: the folder of the primary configuration.
        name: that of its file.
        beside: further folders of configurations; those that ``hydra.searchpath`` names are found among the overrides.
        notes: whether to say which encodings of a model's own are left out.
        seeds: how often each setting is to run, see `gt.cli.seeds.repeated`; 0: as the arguments say.
        rehearse: this is one run, not a sweep, of which others go on: what its parts refuse ends the command now.
        trains: it is a command that trains: what needs Lightning is checked too.

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
        options = [*hydras, *(lines[0] for lines in choices)]
        base = configuration(options, name, files, hydra=True)
        many = bool({"-m", "--multirun"} & {*arguments}) or base.hydra.mode == RunMode.MULTIRUN
        with open_dict(base):
            del base["hydra"]
        for override in overrides:
            if override.key_or_group == "hydra.run.dir" and many:
                raise UserError(f"{override.input_line}: this command makes a sweep, whose folder is hydra.sweep.dir")
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
        rehearse = rehearse and all(len(lines) == 1 for lines in plain)  # else `prepared` asks for -m
        shows = value_of(arranged(arguments)[0], "-c", "--cfg") is not None
        left = check_run([*hydras, *first], groups, keys, files, name, rehearse, trains, shows)
        for place, lines in enumerate(plain):
            for line in lines[1:]:  # of a sweep, each further value
                check_run(
                    [*hydras, *first[:place], line, *first[place + 1 :]], groups, keys, files, name, False, trains
                )
    firsts = {parsed([lines[0]])[0].key_or_group: parsed([lines[0]])[0].value() for lines in choices}
    for note in files.left_out(firsts) if notes and not shows else ():
        print(note, flush=True)
    removals = [line for key in left for line in (f"{key}=0", f"~{key}")] if shows else []  # Hydra deletes no null
    arguments = ["+" + argument if argument in added else argument for argument in arguments] + removals
    return repeated(arguments, seeds, base.get("seed", 0)) if seeds else arguments


def check_run(
    lines: list[str],
    groups: int,
    keys: list[str],
    files: Files,
    name: str = "train",
    rehearse: bool = False,
    trains: bool = True,
    shows: bool = False,
) -> list[str]:
    """Check the configuration of one run, that of the given overrides; returns the leftovers in it, see `settle`.

    Args:
        lines: overrides without a sweep; the first ``groups`` of them are Hydra's own and choose options.
        keys: what the others set: a mistake elsewhere is that of a file, which the message then names.
        rehearse: it runs on this machine now, which is held against it; and build its parts, see
            `gt.train.network.rehearse_run`, before Lightning is imported, unless a key of what needs that is set.
        trains: check what needs Lightning too.
        shows: it is only to be shown, for which values may be missing.
    """
    try:
        cfg = configuration(lines, name, files)
        refuse_overruled(cfg, lines, files, name)
        leftovers = settle(cfg, lines, files.outdated(lines, name))
        if shows and OmegaConf.missing_keys(cfg):
            return leftovers
        check(cfg, late=False)
        fits = rehearse and cfg.get("stage", "fit") == "fit"
        if fits:
            check_devices(cfg.trainer.get("accelerator"), cfg.trainer.get("devices"))
        if rehearse and not any(key.partition(".")[0] in LATE for key in keys):
            from gt.train.network import rehearse_run  # late: it brings PyTorch

            rehearse_run(cfg)
        if trains:
            check(cfg, late=True)
        if fits:
            from gt.train.trainer import rehearse_trainer

            rehearse_trainer(cfg)
        return leftovers
    except WrongKey as error:
        wrong = error.key + "."
        path = files.setting(error.key, lines[:groups], name)
        keys = [key.removesuffix("._target_") for key in keys]  # which is to blame for all that it is given
        if path is None or any(wrong.startswith(f"{key}.") or f"{key}.".startswith(wrong) for key in keys):
            raise
        if package := files.misplaced(path):
            raise UserError(f"{files.name(path)}: '{package}' counts for nothing unless it comes first") from None
        if error.key in files.groups and error.key not in {section.name for section in fields(Config)}:
            raise UserError(f"{files.name(path)} lacks its first line '# @package _global_'") from None
        raise UserError(f"{files.name(path)}: {error}") from None


def prepared(arguments: list[str]) -> list[str]:
    """The arguments that Hydra gets: checked, flags first, and those of a run to resume put in its words.

    Parts of one's own are found in the folder in which the command runs, as those beside ``train.py`` are.
    """
    import_from_here()
    if "LOCAL_RANK" in os.environ and not started_outside():  # a child of a run that was checked
        return arguments
    flags, overrides = arranged(arguments)
    overrides = list(map(unquoted, overrides))
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
    if seeds and again is not overrides:
        raise UserError(f"seeds={seeds} begins new runs, and resume goes on with one: leave one of them out")
    if again is not overrides and many:
        raise UserError("-m begins a sweep, and resume names a single run, which goes on alone: leave -m out")
    if again is not overrides:
        return [*flags, *again]
    beside, primary = value_of(flags, "-cd", "--config-dir"), value_of(flags, "-cp", "--config-path")
    configs = CONFIGS if primary is None else searched(str(CONFIGS.parent / primary))
    name = value_of(flags, "-cn", "--config-name") or "train"
    places, alone = () if beside is None else (beside,), not many and not wanted
    checked = check_command([*flags, *overrides], configs, name, places, seeds, notes=True, rehearse=alone)
    if auto and not many:
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
        if override.key_or_group == "hydra.run.dir" and not many and not wanted:
            check_new(Path(str(override.value())))
        if override.is_sweep_override() and not many:
            key, _, value = str(override.input_line).partition("=")
            together = "several columns" if COLUMNS.fullmatch(key) else "all in one run" if key in MANY else ""
            hint = f"; {together} are {shell_override(key, value.split(','))}" if together else ""
            raise UserError(f"{override.input_line} gives several values: add -m to run them all{hint}")
    if against and not many:
        raise UserError(f"against={against} compares runs of several seeds: add seeds=5")
    checked = [*checked, check_against(against, checked)] if against else checked
    return begun_or_resumed(checked) if auto and many else checked
