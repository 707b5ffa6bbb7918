"""The command line around a run: mistakes become one line, a stopped run says how it goes on."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gt.config import check, check_path, nearest
from gt.errors import UserError

CONFIGS = Path(__file__).parent.parent / "configs"


@contextmanager
def one_line() -> Iterator[None]:
    """Whatever a user can mend ends the program with one line on standard error and an exit code other than 0."""
    try:
        yield
    except (UserError, OSError) as error:
        raise SystemExit(_say(_unwrapped(error))) from None
    except HydraException as error:
        cause = _unwrapped(error)
        if not isinstance(cause, UserError | OSError | ValueError):
            raise
        raise SystemExit(_say(cause)) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _unwrapped(error: BaseException) -> BaseException:
    """What Hydra's instantiate met."""
    while isinstance(error, HydraException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _say(error: BaseException) -> int:
    where = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
    what = f"{error.strerror or error}{where}" if isinstance(error, OSError) else str(error)
    print(f"error: {what}", file=sys.stderr)
    return 1


def groups(configs: Path) -> dict[str, list[str]]:
    """Every configuration group below a folder with its options."""
    found = {}
    for folder in sorted(path for path in configs.rglob("*") if path.is_dir()):
        options = sorted(path.stem for path in folder.glob("*.yaml"))
        if options:
            found[folder.relative_to(configs).as_posix()] = options
    return found


def alternatives(override: Override) -> list[str]:
    """An override as plain ones: itself, or one for each value that it sweeps over."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    sign = "++" if override.is_force_add() else "+" if override.is_add() else ""
    return [f"{sign}{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def check_option(override: Override, available: dict[str, list[str]]) -> None:
    """Whether a group has the options asked for."""
    group = override.key_or_group
    for line in alternatives(override):
        value = line.split("=", 1)[1].strip("[]")
        for option in filter(None, value.split(",")):
            if option != "null" and option not in available[group]:
                raise UserError(f"no option '{option}' in group '{group}': {nearest(option, available[group])}")


SHOWING = ("-c", "--cfg", "-p", "--package")  # flags of Hydra that take the next argument as theirs


def parsed(arguments: list[str]) -> list[Override]:
    """The overrides among the arguments."""
    before = ["", *arguments]
    lines = [a for a, flag in zip(arguments, before, strict=False) if not a.startswith("-") and flag not in SHOWING]
    try:
        return list(OverridesParser.create().parse_overrides(lines))
    except HydraException as error:
        lines = " ".join(str(error).splitlines()[:1])
        raise UserError(f"{lines}: an override is key=value or group=option") from None


def check_command(arguments: list[str], configs: Path = CONFIGS) -> list[str]:
    """Hold overrides, the files that they choose and the resulting configuration against what exists.

    Returns:
        The same arguments; a key that a section takes and its file leaves out is marked as an addition for Hydra.

    Raises:
        UserError: one line for the first thing that is wrong.
    """
    overrides, available = parsed(arguments), groups(configs)
    chosen = [override for override in overrides if override.key_or_group in available]
    values = [o for o in overrides if o.key_or_group not in available and o.key_or_group.split(".")[0] != "hydra"]
    for override in chosen:
        check_option(override, available)
    added = {}
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        base = _compose([alternatives(override)[0] for override in chosen])
        for override in values:
            key, line = override.key_or_group, str(override.input_line)
            if "/" in key or "@" in key:
                raise UserError(f"no group '{key}': {nearest(key, available)}")
            if override.is_add() or override.is_force_add():
                continue
            if "." not in key and key not in base:
                raise UserError(f"unknown key '{key}': {nearest(key, {*available, *map(str, base)})}")
            if not check_path(base, key) and not override.is_delete():
                added[line] = "+" + line
        plain = [[added.get(a, "+" + a if str(o.input_line) in added else a) for a in alternatives(o)]
                 for o in [*chosen, *values]]  # fmt: skip
        first = [lines[0] for lines in plain]
        check(_compose(first))
        for place, lines in enumerate(plain):
            for line in lines[1:]:  # of a sweep, each further value
                check(_compose([*first[:place], line, *first[place + 1 :]]))
    return [added.get(argument, argument) for argument in arguments]


def _compose(overrides: list[str]) -> DictConfig:
    try:
        return compose("train", overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(" ".join(str(error).split("\n")[:2]).strip()) from None


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
    if not (folder / "checkpoints" / "last.ckpt").is_file():
        raise UserError(f"{folder} has no checkpoints/last.ckpt: it stopped before its first checkpoint; start anew")
    kept = [argument for argument in arguments if argument not in asked]
    saved = OmegaConf.load(folder / ".hydra" / "config.yaml")
    for override in parsed(kept):
        if override.key_or_group.split(".")[0] != "hydra":
            check_path(saved, override.key_or_group)
    where = ["--config-path", str((folder / ".hydra").resolve()), "--config-name", "config"]
    return [*where, f"resume={folder}", f"hydra.run.dir={folder}", "hydra.output_subdir=.hydra/resumed", *kept]


def prepared(arguments: list[str]) -> list[str]:
    """The arguments that Hydra gets: checked, and those of a run to resume put in its words."""
    plain = ("-m", "--multirun", "--resolve", *SHOWING)
    asks_hydra = any(argument.startswith("-") and argument not in plain for argument in arguments)
    if asks_hydra or "LOCAL_RANK" in os.environ:  # --help and the like; or a child of a run that was checked
        return arguments
    found = resumed(arguments)
    return found if found is not arguments else check_command(arguments)
