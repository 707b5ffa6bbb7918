"""Check every key and value of a configuration before any data is touched.

There is no second list of options to maintain: what a section with a ``_target_`` may hold follows from the signature
and type hints of the function or class that it names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from inspect import isclass
from typing import Any, Literal

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gt.cli.signatures import choices, describe, fits, parameters, required
from gt.cli.suggestions import suggestion
from gt.errors import UserError, first_line, nearest, shell_override
from gt.ranges import beyond_limits
from gt.train.construct import OPTIONS, import_object


class WrongKey(UserError):
    """One key of a configuration is wrong; ``key`` is its dotted path."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass
class Config:
    """The top level. Each section is built from its ``_target_``; those in `NAMED_PARTS` hold several, by name."""

    data: dict[str, Any]
    mask: dict[str, Any] | list[Any]
    model: dict[str, Any]
    optim: dict[str, Any]
    trainer: dict[str, Any]
    encoding: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    supervised: float = 1.0
    criterion: str | None = None
    baseline: dict[str, Any] | None = None
    name: str | None = None
    stage: Literal["fit", "prepare", "baseline", "plan"] = "fit"
    seed: int = 0
    figures: list[Literal["png", "pdf", "svg"]] = field(default_factory=list)
    init: dict[str, Any] | None = None
    resume: str | None = None
    spectrum: dict[str, Any] | None = None  # a map, each cell of which is a run
    sweep: dict[str, Any] | None = None  # trials, each of one or more runs


FILLED_BY_RUN = ("monitor", "mode", "dirpath", "save_dir", "name", "num_classes", "tasks")  # the run fills in null
NEEDS_LIGHTNING = ("init", "baseline", "metrics", "trainer", "callbacks", "logger")  # need Lightning, a slow import
NAMED_PARTS = ("encoding", "callbacks", "logger", "metrics", "objective")  # sections of named subsections


def accepted_parameters(path: str, name: Any) -> dict[str, Any]:
    """The parameters, with type hints, of the function or class that is a section's ``_target_``.

    Raises:
        WrongKey: it does not exist or cannot be called.
    """
    key = f"{path}._target_"
    try:
        return parameters(import_object(name))
    except UserError as error:
        raise WrongKey(key, f"{key}: {error}") from None
    except (ValueError, TypeError):  # it has no signature
        raise WrongKey(key, f"{key}: '{name}' cannot be called") from None


def check_section(path: str, section: Mapping[str, Any]) -> None:
    """Check a section with a ``_target_``, and all sections below it, against the signatures of their targets.

    Raises:
        WrongKey: names the key, what is wrong with it and the nearest valid name.
    """
    hints = accepted_parameters(path, section["_target_"])
    for key, value in section.items():
        if key in OPTIONS or (key in FILLED_BY_RUN and value is None and key in hints):
            continue
        if key not in hints:
            raise WrongKey(f"{path}.{key}", f"unknown key '{path}.{key}': {nearest(key, hints)}")
        check_value(f"{path}.{key}", value, hints[key])
    if not section.get("_partial_") and "_args_" not in section:
        for key in required(section["_target_"]):
            if key not in section:
                partial_hint = f", or {path}._partial_=true for the function itself"
                alternative = "" if isclass(import_object(section["_target_"])) else partial_hint
                raise WrongKey(f"{path}.{key}", f"{path}.{key} is not set: give {path}.{key}=VALUE{alternative}")


def check_value(path: str, value: Any, hint: Any) -> None:
    """Check a value against a type hint; sections and lists recursively."""
    if not fits(value, hint):
        if isinstance(value, str) and (options := choices(hint)):
            raise WrongKey(path, f"{path}={value!r}: {nearest(value, options)}")
        if isinstance(value, Mapping) and value and "_target_" in describe(hint):
            key = f"{path}.{next(iter(value))}"
            raise WrongKey(path, f"{key} has no effect: the chosen option has no {path} (or give it a _target_)")
        advice = _as_text(path, value, hint) or _sweep_hint(path, value, hint)
        raise WrongKey(path, f"{path}={value!r} has the wrong type: it should be {describe(hint)}{advice}")
    if isinstance(value, Mapping) and "_target_" in value:
        check_section(path, value)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            check_value(f"{path}.{name}", item, Any)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            check_value(f"{path}.{index}", item, Any)


def _as_text(path: str, value: Any, hint: Any) -> str:
    """A hint on how to write text that Hydra parses as a number, such as a column name."""
    texts = [str(item) for item in value] if isinstance(value, list) else str(value)
    return f"; as text: {shell_override(path, texts)}" if value is not None and fits(texts, hint) else ""


def _sweep_hint(path: str, value: Any, hint: Any) -> str:
    """A hint on how to sweep over values that were given as a list where one value is expected."""
    several = isinstance(value, list) and len(value) > 1 and all(fits(item, hint) for item in value)
    return f"; to run each: python train.py -m {path}={','.join(map(str, value))}" if several else ""


def check(cfg: DictConfig, late: bool | None = None) -> None:
    """Check a whole configuration.

    Args:
        late: check only the sections in `NEEDS_LIGHTNING` (True), only the others (False) or all (None).

    Raises:
        UserError: one line for the first mistake.
    """
    types = {entry.name: entry.type for entry in fields(Config)}
    for key in map(str, cfg):
        if key not in types:
            raise WrongKey(key, f"unknown key '{key}': {nearest(key, types)}")
    for entry in fields(Config):
        if entry.name not in cfg and entry.default is MISSING and entry.default_factory is MISSING:
            raise UserError(f"there is no '{entry.name}': choose an option, {entry.name}=NAME")
    try:
        for missing in sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{missing} is not set: give {missing}=VALUE")
        plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise WrongKey(error.full_key or "", f"{error.full_key}: {first_line(error)}") from None
    if not late:  # the ranges of numbers are known without Lightning
        check_limits("", plain)
    for key, value in plain.items():
        if late is not None and (key in NEEDS_LIGHTNING) != late:
            continue
        if key in NAMED_PARTS:
            check_parts(key, {} if value is None else value)
        elif isinstance(value, Mapping) and "_target_" not in value:
            raise WrongKey(key, f"'{key}' has no _target_: choose an option, such as {key}=NAME")
        else:
            check_value(key, value, types[key])
    if not 0 <= plain.get("seed", 0) < 1 << 32:
        raise WrongKey("seed", f"seed={plain['seed']}: it must be 0 or more and below 2^32")


def check_limits(path: str, section: Mapping[str, Any]) -> None:
    """Check that all numbers of a section and of those below it are within `gt.ranges.LIMITS`.

    Raises:
        WrongKey: one is not.
    """
    if violation := beyond_limits(section):
        key, limit = violation
        raise WrongKey(f"{path}{key}", f"{path}{key}={section[key]}: it must be {limit}")
    for key, value in section.items():
        if isinstance(value, Mapping):
            check_limits(f"{path}{key}.", value)


def check_parts(key: str, parts: Any) -> None:
    """Check every subsection of a section in `NAMED_PARTS`; null stands for one that was removed.

    Raises:
        WrongKey: one line for the first mistake.
    """
    if not isinstance(parts, Mapping):
        raise WrongKey(key, f"{key}={parts!r} has the wrong type: it should be a section with a section for each part")
    for name, part in parts.items():
        if part is None:
            continue
        if not isinstance(part, Mapping) or "_target_" not in part:
            siblings = [other for other in parts if other != name]
            path = f"{key}.{name}"
            raise WrongKey(path, f"'{path}' has no _target_: {nearest(name, siblings)}")
        check_section(f"{key}.{name}", part)


def addable(node: DictConfig | ListConfig, done: list[str], parts: list[str]) -> set[str]:
    """The keys that may be added to ``node``, which is the section at the path ``done`` of the dotted key ``parts``."""
    if isinstance(node, ListConfig):
        return set()
    if not done:
        return {entry.name for entry in fields(Config)}
    names = set()
    if done[0] in NAMED_PARTS and parts[2:] == ["_target_"]:
        names.add(parts[len(done)])  # a new subsection
    if "_target_" in node:
        names |= {"_partial_", *accepted_parameters(".".join(done), node["_target_"])}
    if done == ["data"] and "source" in {*node, *names} and parts[1] not in names:  # short for data.source.KEY
        names |= set(accepted_parameters("data.source", node.source["_target_"]))
    return names


def check_path(cfg: Any, key: str) -> bool:
    """Whether a configuration sets a dotted key; False if it does not, but the section accepts it.

    Raises:
        UserError: the section does not accept it; names the first unknown part and the nearest valid name.
    """
    node: Any = cfg
    done: list[str] = []
    parts = key.split(".")
    for part in parts:
        path = ".".join([*done, part])
        if not isinstance(node, DictConfig | ListConfig):
            raise UserError(f"unknown key '{key}': '{'.'.join(done)}' is a single value")
        present = {str(name) for name in (node if isinstance(node, DictConfig) else range(len(node)))}
        if part not in present:
            accepted_names = present | addable(node, done, parts)
            if part not in accepted_names:
                hint = suggestion(part, accepted_names - OPTIONS, node, ".".join(done), root=cfg)
                raise WrongKey(path, f"unknown key '{path}': {hint}")
            return False
        done.append(part)
        if len(done) == len(parts):
            break  # its value is about to be replaced
        index: Any = int(part) if isinstance(node, ListConfig) else part
        node = None if OmegaConf.is_missing(node, index) else node[index]
    return True
