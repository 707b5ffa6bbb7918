"""Every key and value of a configuration held against what will receive it, before any data is touched.

There is no second list of options to keep: what a section with a ``_target_`` may hold is read off the signature and
the type hints of the function or class that it names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from inspect import isclass
from typing import Any, Literal

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gt.cli.signatures import choices, fits, parameters, required, shown
from gt.cli.suggestions import suggested
from gt.errors import UserError, first_line, nearest, shell_override
from gt.ranges import beyond_limits
from gt.train.construct import OPTIONS, imported


class WrongKey(UserError):
    """One key of a configuration is wrong; ``key`` is its dotted path."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass
class Config:
    """The top level: sections are built from their ``_target_``; those of many parts hold one a name."""

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
    spectrum: dict[str, Any] | None = None  # of a map, each cell of which is a run
    sweep: dict[str, Any] | None = None  # of trials, each of which is a run or more


FILLED = ("monitor", "mode", "dirpath", "save_dir", "name", "num_classes", "tasks")  # where null, the run fills them in
LATE = ("init", "baseline", "metrics", "trainer", "callbacks", "logger")  # need Lightning, whose import takes seconds
MANY = ("encoding", "callbacks", "logger", "metrics", "objective")  # sections whose entries have names of their own


def accepted(path: str, name: Any) -> dict[str, Any]:
    """What the function or class that a section names as its ``_target_`` takes.

    Raises:
        UserError: there is no such thing.
    """
    key = f"{path}._target_"
    try:
        return parameters(imported(name))
    except UserError as error:
        raise WrongKey(key, f"{key}: {error}") from None
    except (ValueError, TypeError):  # it has no signature
        raise WrongKey(key, f"{key}: '{name}' is nothing that can be called") from None


def check_section(path: str, section: Mapping[str, Any]) -> None:
    """Hold a section with a ``_target_``, and all below it, against the signatures of what they name.

    Raises:
        UserError: naming the key, what is wrong with it and the nearest right name.
    """
    known = accepted(path, section["_target_"])
    for key, value in section.items():
        if key in OPTIONS or (key in FILLED and value is None and key in known):
            continue
        if key not in known:
            raise WrongKey(f"{path}.{key}", f"unknown key '{path}.{key}': {nearest(key, known)}")
        check_value(f"{path}.{key}", value, known[key])
    if not section.get("_partial_") and "_args_" not in section:
        for key in required(section["_target_"]):
            if key not in section:
                itself = f", or {path}._partial_=true for the function itself"
                instead = "" if isclass(imported(section["_target_"])) else itself
                raise WrongKey(f"{path}.{key}", f"{path}.{key} is not set: give {path}.{key}=VALUE{instead}")


def check_value(path: str, value: Any, hint: Any) -> None:
    """Hold a value against a type hint, sections and lists all the way down."""
    if not fits(value, hint):
        if isinstance(value, str) and (options := choices(hint)):
            raise WrongKey(path, f"{path}={value!r}: {nearest(value, options)}")
        if isinstance(value, Mapping) and value and "_target_" in shown(hint):
            key = f"{path}.{next(iter(value))}"
            raise WrongKey(path, f"{key} sets nothing: what is chosen has no {path} (or give it a _target_)")
        instead = _as_text(path, value, hint) or _a_run_for_each(path, value, hint)
        raise WrongKey(path, f"{path}={value!r} has the wrong type: it should be {shown(hint)}{instead}")
    if isinstance(value, Mapping) and "_target_" in value:
        check_section(path, value)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            check_value(f"{path}.{name}", item, Any)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, item in enumerate(value):
            check_value(f"{path}.{place}", item, Any)


def _as_text(path: str, value: Any, hint: Any) -> str:
    """How to write a value that Hydra takes for a number, where text is meant, such as the name of a column."""
    texts = [str(item) for item in value] if isinstance(value, list) else str(value)
    return f"; as text: {shell_override(path, texts)}" if value is not None and fits(texts, hint) else ""


def _a_run_for_each(path: str, value: Any, hint: Any) -> str:
    """How to try several values, where a list of them stands for one."""
    several = isinstance(value, list) and len(value) > 1 and all(fits(item, hint) for item in value)
    return f"; a run for each: python train.py -m {path}={','.join(map(str, value))}" if several else ""


def check(cfg: DictConfig, late: bool | None = None) -> None:
    """Check a whole configuration.

    Args:
        late: of its sections those of `LATE` alone, or the others alone; None: all.

    Raises:
        UserError: one line for the first thing that is wrong.
    """
    known = {entry.name: entry.type for entry in fields(Config)}
    for key in map(str, cfg):
        if key not in known:
            raise WrongKey(key, f"unknown key '{key}': {nearest(key, known)}")
    for entry in fields(Config):
        if entry.name not in cfg and entry.default is MISSING and entry.default_factory is MISSING:
            raise UserError(f"there is no '{entry.name}': choose an option, {entry.name}=NAME")
    try:
        for missing in sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{missing} is not set: give {missing}=VALUE")
        plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise WrongKey(error.full_key or "", f"{error.full_key}: {first_line(error)}") from None
    if not late:  # of numbers it is known without Lightning
        check_limits("", plain)
    for key, value in plain.items():
        if late is not None and (key in LATE) != late:
            continue
        if key in MANY:
            check_parts(key, {} if value is None else value)
        elif isinstance(value, Mapping) and "_target_" not in value:
            raise WrongKey(key, f"'{key}' does not say what it is (no _target_): choose an option, such as {key}=NAME")
        else:
            check_value(key, value, known[key])
    if not 0 <= plain.get("seed", 0) < 1 << 32:
        raise WrongKey("seed", f"seed={plain['seed']}: it must be 0 or more and below 2^32")


def check_limits(path: str, section: Mapping[str, Any]) -> None:
    """Whether all numbers of a section, and of all below it, are within `gt.ranges.LIMITS`.

    Raises:
        WrongKey: one is not.
    """
    if wrong := beyond_limits(section):
        key, words = wrong
        raise WrongKey(f"{path}{key}", f"{path}{key}={section[key]}: it must be {words}")
    for key, value in section.items():
        if isinstance(value, Mapping):
            check_limits(f"{path}{key}.", value)


def check_parts(key: str, parts: Any) -> None:
    """Hold every part of a section of `MANY` against what it names; null stands for a part that was taken out.

    Raises:
        UserError: one line for the first thing that is wrong.
    """
    if not isinstance(parts, Mapping):
        raise WrongKey(key, f"{key}={parts!r} has the wrong type: it should be a section with a section for each part")
    for name, part in parts.items():
        if part is None:
            continue
        if not isinstance(part, Mapping) or "_target_" not in part:
            others = [other for other in parts if other != name]
            path = f"{key}.{name}"
            raise WrongKey(path, f"'{path}' does not say what it is (no _target_): {nearest(name, others)}")
        check_section(f"{key}.{name}", part)


def addable(node: DictConfig | ListConfig, done: list[str], parts: list[str]) -> set[str]:
    """The names that a section below ``done`` of a dotted key may have beside those that it has."""
    if isinstance(node, ListConfig):
        return set()
    if not done:
        return {entry.name for entry in fields(Config)}
    known = set()
    if done[0] in MANY and parts[2:] == ["_target_"]:
        known.add(parts[len(done)])  # a new one
    if "_target_" in node:
        known |= {"_partial_", *accepted(".".join(done), node["_target_"])}
    if done == ["data"] and "source" in {*node, *known} and parts[1] not in known:  # what is short for data.source.KEY
        known |= set(accepted("data.source", node.source["_target_"]))
    return known


def check_path(cfg: Any, key: str) -> bool:
    """Whether a dotted key stands in a configuration; False where it does not but its section would take it.

    Raises:
        UserError: naming the first part that does not, and the nearest right one.
    """
    node: Any = cfg
    done: list[str] = []
    parts = key.split(".")
    for part in parts:
        at = ".".join([*done, part])
        if not isinstance(node, DictConfig | ListConfig):
            raise UserError(f"unknown key '{key}': '{'.'.join(done)}' is a single value")
        present = {str(name) for name in (node if isinstance(node, DictConfig) else range(len(node)))}
        if part not in present:
            known = present | addable(node, done, parts)
            if part not in known:
                meant = suggested(part, known - OPTIONS, node, ".".join(done), whole=cfg)
                raise WrongKey(at, f"unknown key '{at}': {meant}")
            return False
        done.append(part)
        if len(done) == len(parts):
            break  # what stands there is about to be replaced
        place: Any = int(part) if isinstance(node, ListConfig) else part
        node = None if OmegaConf.is_missing(node, place) else node[place]
    return True
