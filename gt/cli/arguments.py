"""The words of a command line: flags, and overrides, one of which may stand for several."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from gt.cli.config import accepted
from gt.errors import UserError, nearest, shell_override

ALONE = {"-m", "--multirun", "-r", "--run", "--resolve"}
VALUED = {"-c", "--cfg", "-p", "--package", "-cd", "--config-dir", "-cp", "--config-path", "-cn", "--config-name"}
ASKING = {"-h", "--help", "--hydra-help", "--version", "-i", "--info", "-sc", "--shell-completion"}  # Hydra answers
PICKLED = "--experimental-rerun"  # opens a pickle
INFO = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
SHOWN = ("job", "hydra", "all")  # of a configuration
# groups of which none may be chosen, which Hydra wants to be told by an empty list
OPTIONAL = ("baseline", "callbacks", "debug", "encoding", "experiment", "logger", "loss", "metrics", "objective")
NULL = re.compile(r"(?<=[=,])null(?=,|$)")  # as a value, or as one of several
COLUMNS = re.compile(r"data\.(source\.)?(target|features)")  # may be several, and a comma between them be meant so


def arranged(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags, with their values, and the overrides among arguments in any order.

    ``--key=value``, as the agents of W&B's sweeps write it, is the override ``key=value``; of `OPTIONAL` ``group=null``
    is ``group=[]``, among the values of a sweep too; ``init=RUN`` is short for ``init.run=RUN``.

    Raises:
        UserError: a flag that Hydra does not have, or lacks its value.
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
            if name in ("-c", "--cfg") and value not in SHOWN:
                raise UserError(f"{name} {value}: {nearest(value, SHOWN)}")
            flags += [name, value]
        elif word in ALONE or name in ASKING:
            flags.append(word)
            if word in ("-i", "--info") and rest and rest[0] in INFO:
                flags.append(rest.pop(0))
        elif equals and word.startswith("--") and name != PICKLED:
            overrides.append(word[2:])
        else:
            known = [flag for flag in ALONE | VALUED | ASKING if flag.startswith("--")]
            raise UserError(f"there is no option '{name}': {nearest(name, known)}")
    overrides = [re.sub(r"^init=", "init.run=", line) for line in overrides]
    return flags, [re.sub(NULL, "[]", line) if line.partition("=")[0] in OPTIONAL else line for line in overrides]


def in_full(arguments: Sequence[str], base: DictConfig) -> list[str]:
    """The same arguments, where ``data.path`` is short for ``data.source.path``, and so on.

    Short is what the data module does not take and its source does.

    Args:
        base: what the arguments change.
    """
    if not any(argument.lstrip("+~").startswith("data.") for argument in arguments):
        return list(arguments)  # without importing what takes them
    targets = {name: OmegaConf.select(base, f"{name}._target_") for name in ("data", "data.source")}
    for argument in arguments:
        key, _, value = argument.partition("=")
        name, _, last = key.rpartition(".")
        if last == "_target_" and name in targets:
            targets[name] = value
    if None in targets.values():
        return list(arguments)
    module, source = (set(accepted(name, target)) for name, target in targets.items())
    short = (source | set(OmegaConf.select(base, "data.source"))) - module - {"_target_"}

    def full(argument: str) -> str:
        key = re.match(r"([+~]*data\.)(\w+)", argument)
        return f"{key[1]}source.{argument[key.end(1) :]}" if key and key[2] in short else argument

    return [full(argument) for argument in arguments]


def value_of(flags: Sequence[str], *names: str) -> str | None:
    """The value of a flag under any of its names; None where it is not given."""
    return next((value for flag, value in pairwise(flags) if flag in names), None)


def parsed(arguments: list[str]) -> list[Override]:
    """The overrides among the arguments."""
    overrides = []
    for line in arranged(arguments)[1]:
        try:
            overrides += OverridesParser.create().parse_overrides([line])
        except HydraException:
            raise UserError(f"cannot read '{line}': an override is key=value or group=option{_quoted(line)}") from None
    return overrides


def _quoted(line: str) -> str:
    """How to write a value that Hydra's grammar does not take as it stands, such as a name with brackets."""
    key, _, value = line.partition("=")
    if not value or re.search(r"[^\w./+~@]", key):
        return ""
    listed = value.startswith("[") and value.endswith("]")
    texts = [text.strip().strip("'\"") for text in value[1:-1].split(",")] if listed else value
    return f"; as text: {shell_override(key, texts)}"


def alternatives(override: Override, options: Sequence[str] = ()) -> list[str]:
    """An override as plain ones: itself, or one for each value that it sweeps over, both ends of an interval.

    Args:
        options: what a ``glob`` chooses from.

    Raises:
        UserError: it sweeps over nothing, or the ends of its interval are the wrong way round.
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
            raise UserError(f"{override.input_line}: the lower end of an interval comes first, as in {ends}")
    else:
        values = override.sweep_string_iterator()
    lines = [f"{override.get_key_element()}={each}" for each in values]
    if not lines:
        raise UserError(f"{override.input_line} has no value to sweep over")
    return lines
