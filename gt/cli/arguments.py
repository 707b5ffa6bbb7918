"""Parsing command lines: flags, overrides and the values that an override sweeps over."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from gt.cli.config import accepted_parameters
from gt.errors import UserError, nearest, shell_override

ALONE = {"-m", "--multirun", "-r", "--run", "--resolve"}
VALUED = {"-c", "--cfg", "-p", "--package", "-cd", "--config-dir", "-cp", "--config-path", "-cn", "--config-name"}
ANSWERED = {"-h", "--help", "--hydra-help", "--version", "-i", "--info", "-sc", "--shell-completion"}  # by Hydra
PICKLED = "--experimental-rerun"  # unpickles a file
INFO = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
CFG_VALUES = ("job", "hydra", "all")  # of --cfg
# groups that may be left empty; Hydra wants an empty list for that
OPTIONAL = ("baseline", "callbacks", "debug", "encoding", "experiment", "logger", "loss", "metrics", "objective")
NULL = re.compile(r"(?<=[=,])null(?=,|$)")  # as a value, or as one of several
COLUMNS = re.compile(r"data\.(source\.)?(target|features)")  # a comma may mean several columns, not a sweep


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments, in any order, into the flags with their values and the overrides.

    ``--key=value``, as W&B sweep agents write it, becomes ``key=value``; ``group=null`` becomes ``group=[]`` for the
    groups in `OPTIONAL`, also within a sweep; ``init=RUN`` becomes ``init.run=RUN``.

    Raises:
        UserError: Hydra has no such flag, or the flag lacks its value.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            overrides.append(word)
        elif name in VALUED:
            if not equals and not rest:
                raise UserError(f"{word} needs a value")
            value = value if equals else rest.pop(0)
            if name in ("-c", "--cfg") and value not in CFG_VALUES:
                raise UserError(f"{name} {value}: {nearest(value, CFG_VALUES)}")
            flags += [name, value]
        elif word in ALONE or name in ANSWERED:
            flags.append(word)
            if word in ("-i", "--info") and rest and rest[0] in INFO:
                flags.append(rest.pop(0))
        elif equals and word.startswith("--") and name != PICKLED:
            overrides.append(word[2:])
        else:
            long_flags = [flag for flag in ALONE | VALUED | ANSWERED if flag.startswith("--")]
            raise UserError(f"there is no option '{name}': {nearest(name, long_flags)}")
    overrides = [re.sub(r"^init=", "init.run=", line) for line in overrides]
    return flags, [re.sub(NULL, "[]", line) if line.partition("=")[0] in OPTIONAL else line for line in overrides]


def expand_keys(arguments: Sequence[str], base: DictConfig) -> list[str]:
    """Expand abbreviated keys, such as ``data.path`` for ``data.source.path``.

    A key of ``data`` is expanded if the data module does not accept it but its source does.

    Args:
        base: the configuration that the arguments override.
    """
    if not any(argument.lstrip("+~").startswith("data.") for argument in arguments):
        return list(arguments)  # without importing the data module
    targets = {name: OmegaConf.select(base, f"{name}._target_") for name in ("data", "data.source")}
    for argument in arguments:
        key, _, value = argument.partition("=")
        name, _, leaf = key.rpartition(".")
        if leaf == "_target_" and name in targets:
            targets[name] = value
    if None in targets.values():
        return list(arguments)
    module, source = (set(accepted_parameters(name, target)) for name, target in targets.items())
    abbreviated = (source | set(OmegaConf.select(base, "data.source"))) - module - {"_target_"}

    def expand(argument: str) -> str:
        key = re.match(r"([+~]*data\.)(\w+)", argument)
        return f"{key[1]}source.{argument[key.end(1) :]}" if key and key[2] in abbreviated else argument

    return [expand(argument) for argument in arguments]


def flag_value(flags: Sequence[str], *names: str) -> str | None:
    """The value of a flag under any of its names; None if it is absent."""
    return next((value for flag, value in pairwise(flags) if flag in names), None)


def parse_overrides(arguments: list[str]) -> list[Override]:
    """Parse the overrides among the arguments.

    Raises:
        UserError: one of them is no override.
    """
    overrides = []
    for line in split_flags(arguments)[1]:
        try:
            overrides += OverridesParser.create().parse_overrides([line])
        except HydraException:
            raise UserError(f"cannot read '{line}': an override is key=value or group=option{_as_text(line)}") from None
    return overrides


def _as_text(line: str) -> str:
    """A hint on how to quote a value that Hydra's grammar rejects, such as a name with brackets."""
    key, _, value = line.partition("=")
    if not value or re.search(r"[^\w./+~@]", key):
        return ""
    is_list = value.startswith("[") and value.endswith("]")
    texts = [text.strip().strip("'\"") for text in value[1:-1].split(",")] if is_list else value
    return f"; as text: {shell_override(key, texts)}"


def alternatives(override: Override, options: Sequence[str] = ()) -> list[str]:
    """Expand an override into plain ones: one per value that it sweeps over, or the two ends of an interval.

    Args:
        options: the options that a ``glob`` matches against.

    Raises:
        UserError: it sweeps over nothing, or the ends of its interval are reversed.
    """
    if not override.is_sweep_override():
        return [str(override.input_line)]
    value: Any = override.value()
    values: Iterable[Any]
    if isinstance(value, Glob):
        values = value.filter(list(options))
    elif isinstance(value, IntervalSweep):
        values = low, high = (value.start, value.end)
        if low is not None and high is not None and low > high:
            ends = f"interval({high}, {low})"
            raise UserError(f"{override.input_line}: the lower end of an interval comes first: {ends}")
    else:
        values = override.sweep_string_iterator()
    lines = [f"{override.get_key_element()}={item}" for item in values]
    if not lines:
        raise UserError(f"{override.input_line} has no value to sweep over")
    return lines
