"""The command line around a run: mistakes become one line, a stopped run says how it goes on."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from gt.config import Config, WrongKey, check, check_path, nearest, shell_override
from gt.errors import UserError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def groups(configs: Path) -> dict[str, list[str]]:
    """Every configuration group below a folder with its options; Hydra's own groups are left to Hydra."""
    found = {}
    for folder in sorted(path for path in configs.rglob("*") if path.is_dir()):
        name = folder.relative_to(configs).as_posix()
        options = sorted(path.stem for path in folder.glob("*.yaml"))
        if options and name.split("/")[0] != "hydra":
            found[name] = options
    return found


def alternatives(override: Override, options: Sequence[str] = ()) -> list[str]:
    """An override as plain ones: itself, or one for each value that it sweeps over, both ends of an interval.

    Args:
        options: what a ``glob`` chooses from.

    Raises:
        UserError: it sweeps over nothing.
    """
    if not override.is_sweep_override():
        return [str(override.input_line)]
    value: Any = override.value()
    found: Iterable[Any]
    if isinstance(value, Glob):
        found = value.filter(list(options))
    elif isinstance(value, IntervalSweep):
        found = (value.start, value.end)
    else:
        found = override.sweep_string_iterator()
    lines = [f"{override.get_key_element()}={each}" for each in found]
    if not lines:
        raise UserError(f"{override.input_line} has no value to sweep over")
    return lines


class Files:
    """The files of a folder of configurations: which options there are, what they ask for, which of them sets a key."""

    def __init__(self, configs: Path) -> None:
        self.configs, self.groups = configs, groups(configs)

    def name(self, path: str) -> str:
        """A file as messages call it, such as ``configs/model/gps.yaml``."""
        return f"{self.configs.name}/{path}.yaml"

    def read(self, path: str) -> dict[str, Any]:
        """What a file says, interpolations as they stand."""
        try:
            found = OmegaConf.to_container(OmegaConf.load(self.configs / f"{path}.yaml"), resolve=False)
        except MarkedYAMLError as error:
            raise UserError(_yaml_line(self.name(path), error)) from None
        except OmegaConfBaseException as error:
            raise UserError(f"{self.name(path)}: {str(error).splitlines()[0]}") from None
        if not isinstance(found, dict):
            raise UserError(f"{self.name(path)} holds a list: a configuration file holds keys and their values")
        return {str(key): value for key, value in found.items()}

    def check_options(self, group: str, options: Any, where: str = "") -> None:
        """Whether a group has the options, and the groups those that the options' own files ask for, all the way down.

        Raises:
            UserError: naming the file that asks (where it is not the command line) and the nearest right name.
        """
        if group not in self.groups:
            raise UserError(f"{where}no group '{group}': {nearest(group, self.groups)}")
        for option in options if isinstance(options, list) else [options]:
            option, known = "null" if option is None else str(option), self.groups[group]
            if option not in known:
                raise UserError(f"{where}no option '{option}' in group '{group}': {nearest(option, known)}")
            for asked, others in self._defaults(group, f"{group}/{option}"):
                self.check_options(asked, others, f"{self.name(f'{group}/{option}')}: ")

    def _defaults(self, group: str, path: str) -> Iterator[tuple[str, Any]]:
        """The (group, options) that the defaults list of a file asks for."""
        for entry in self.read(path).get("defaults", ()):
            if isinstance(entry, str):  # 'name' is a file of the same group, 'inner/name' one of a group inside it
                key, _, options = entry.split("@")[0].rpartition("/")
            else:
                [(key, options)] = entry.items()
                key = key.split()[-1].split("@")[0]  # of 'override /group@package'
            asked = key[1:] if key.startswith("/") else f"{group}/{key}".rstrip("/")
            if options not in ("_self_", None) and "${" not in str(options) and asked.split("/")[0] != "hydra":
                yield asked, options

    def setting(self, key: str, chosen: list[str]) -> str | None:
        """The file that has the last word on a dotted key when these group options are chosen; None where none has."""
        files = GlobalHydra.instance().config_loader().compute_defaults_list("train", chosen, RunMode.RUN).defaults
        for file in reversed(files):
            path = str(file.config_path)
            if not (self.configs / f"{path}.yaml").is_file():
                continue  # Hydra's own
            node: Any = self.read(path)
            for part in reversed(file.package.split(".") if file.package else []):
                node = {part: node}
            for part in key.split("."):
                node = {str(place): item for place, item in enumerate(node)} if isinstance(node, list) else node
                if not isinstance(node, Mapping) or part not in node:
                    break
                node = node[part]
            else:
                return path
        return None


def _yaml_line(name: str, error: MarkedYAMLError) -> str:
    line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
    return f"{name}{line}: {error.problem}"


COLUMNS = ("data.target", "data.features")  # may be several, and a comma between them be meant so
SHOWING = ("-c", "--cfg", "-p", "--package")  # flags of Hydra that take the next argument as theirs


def parsed(arguments: list[str]) -> list[Override]:
    """The overrides among the arguments."""
    before = ["", *arguments]
    lines = [a for a, flag in zip(arguments, before, strict=False) if not a.startswith("-") and flag not in SHOWING]
    found = []
    for line in lines:
        try:
            found += OverridesParser.create().parse_overrides([line])
        except HydraException:
            raise UserError(f"cannot read '{line}': an override is key=value or group=option{_quoted(line)}") from None
    return found


def _quoted(line: str) -> str:
    """How to write a value that Hydra's grammar does not take as it stands, such as a name with brackets."""
    key, _, value = line.partition("=")
    if not value or re.search(r"[^\w./+~@]", key):
        return ""
    listed = value.startswith("[") and value.endswith("]")
    texts = [text.strip().strip("'\"") for text in value[1:-1].split(",")] if listed else value
    return f"; as text: {shell_override(key, texts)}"


def check_command(arguments: list[str], configs: Path = CONFIGS) -> list[str]:
    """Hold overrides, the files that they choose and the resulting configuration against what exists.

    Returns:
        The same arguments; a key that a section takes and its file leaves out is marked as an addition for Hydra.

    Raises:
        UserError: one line for the first thing that is wrong, naming the file where it is not the command line.
    """
    files = Files(configs)
    overrides = parsed(arguments)
    hydras = [alternatives(override)[0] for override in overrides if override.is_hydra_override()]
    own = [override for override in overrides if not override.is_hydra_override()]
    chosen = [override for override in own if override.key_or_group in files.groups]
    values = [override for override in own if override.key_or_group not in files.groups]
    choices = [alternatives(override, files.groups[override.key_or_group]) for override in chosen]
    for override, lines in zip(chosen, choices, strict=True):
        for line in lines if not override.is_delete() else ():
            files.check_options(override.key_or_group, parsed([line])[0].value())
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        base = _compose([*hydras, *(lines[0] for lines in choices)])
        added = additions(values, base, files.groups)
        settings = [["+" + line if o.input_line in added else line for line in alternatives(o)] for o in values]
        plain, keys = [*choices, *settings], [override.key_or_group for override in values]
        first = [lines[0] for lines in plain]
        check_run(first, len(chosen), keys, files)
        for place, lines in enumerate(plain):
            for line in lines[1:]:  # of a sweep, each further value
                check_run([*first[:place], line, *first[place + 1 :]], len(chosen), keys, files)
    return ["+" + argument if argument in added else argument for argument in arguments]


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
            raise UserError(f"unknown key '{key}': {nearest(key, {*available, *map(str, base)})}")
        if not check_path(base, key) and not override.is_delete():
            added.add(str(override.input_line))
        elif key.endswith("._target_") and not override.is_delete():
            OmegaConf.update(base, key, parsed(alternatives(override)[:1])[0].value())
    return added


def check_run(lines: list[str], groups: int, keys: list[str], files: Files) -> None:
    """Check the configuration of one run, that of the given overrides.

    Args:
        lines: overrides without a sweep; the first ``groups`` of them choose options.
        keys: what the others set: a mistake elsewhere is that of a file, which the message then names.
    """
    try:
        check(_compose(lines))
    except WrongKey as error:
        wrong = error.key + "."
        path = files.setting(error.key, lines[:groups])
        if path is None or any(wrong.startswith(f"{key}.") or f"{key}.".startswith(wrong) for key in keys):
            raise
        if error.key in files.groups and error.key not in {section.name for section in fields(Config)}:
            raise UserError(f"{files.name(path)} lacks its first line '# @package _global_'") from None
        raise UserError(f"{files.name(path)}: {error}") from None


def _compose(overrides: list[str], name: str = "train") -> DictConfig:
    try:
        return compose(name, overrides=overrides)
    except MarkedYAMLError as error:
        raise UserError(_yaml_line(error.problem_mark.name if error.problem_mark else name, error)) from None
    except (HydraException, OmegaConfBaseException) as error:
        text = str(error) or str(error.__cause__)
        raise UserError(" ".join(text.split("\n")[:2]).strip()) from None


def resumed(arguments: list[str]) -> list[str]:
    """``resume=FOLDER`` turned into Hydra's words: the configuration that the folder keeps, in that same folder.

    Raises:
        UserError: no such run, or it has nothing to go on from.
    """
    asked = [argument for argument in arguments if argument.startswith("resume=")]
    if not asked or asked[-1] in ("resume=", "resume=null"):
        return arguments
    folder = Path(asked[-1].removeprefix("resume="))
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise UserError(f"no run in {folder}: resume takes the folder that a run named when it began or ended")
    if not any((folder / "checkpoints").glob("*.ckpt")):
        raise UserError(f"{folder} has no checkpoint: it stopped before its first; start anew")
    kept = [argument for argument in arguments if argument not in asked]
    overrides = parsed(kept)
    with initialize_config_dir(str((folder / ".hydra").resolve()), version_base="1.3"):
        added = additions([o for o in overrides if not o.is_hydra_override()], _compose([], "config"), {})
        kept = ["+" + argument if argument in added else argument for argument in kept]
        check(_compose([str(override.input_line) for override in parsed(kept)], "config"))
    where = ["--config-path", str((folder / ".hydra").resolve()), "--config-name", "config"]
    return [*where, f"resume={folder}", f"hydra.run.dir={folder}", "hydra.output_subdir=.hydra/resumed", *kept]


def prepared(arguments: list[str]) -> list[str]:
    """The arguments that Hydra gets: checked, and those of a run to resume put in its words."""
    plain = ("-m", "--multirun", "--resolve", *SHOWING)
    asks_hydra = any(argument.startswith("-") and argument not in plain for argument in arguments)
    if asks_hydra or "LOCAL_RANK" in os.environ:  # --help and the like; or a child of a run that was checked
        return arguments
    found = resumed(arguments)
    if found is not arguments:
        return found
    found, many = check_command(arguments), {"-m", "--multirun"} & {*arguments}
    for override in parsed(arguments):
        if override.is_sweep_override() and not many and "hydra.mode" not in " ".join(arguments):
            key, _, value = str(override.input_line).partition("=")
            hint = f"; several columns are {shell_override(key, value.split(','))}" if key in COLUMNS else ""
            raise UserError(f"{override.input_line} gives several values: add -m to run them all{hint}")
    return found
