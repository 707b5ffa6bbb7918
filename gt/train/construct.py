"""Turns exceptions of constructors into one-line messages that name the configuration key at fault."""

import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import CodeType, FrameType
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from gt.errors import UserError, first_line

OPTIONS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}  # Hydra's own keys of such a section
Section = tuple[str, Mapping[str, Any]]  # the dotted path of a section of the configuration, and its contents
ALIASES = {"beta": "betas", "epsilon": "eps"}  # names of arguments in PyTorch's messages


class Refused(UserError):
    """A constructor, of the name ``target``, rejected its arguments."""

    def __init__(self, target: str, message: str) -> None:
        super().__init__(message)
        self.target = target


def import_object(name: Any) -> Any:
    """Import the object of a dotted name.

    Raises:
        UserError: it does not exist, or one of its modules fails to import.
    """
    missing = UserError(f"there is nothing called '{name}' to import")
    parts = str(name).split(".")
    if not all(parts):
        raise missing
    try:
        obj: Any = import_module(parts[0])
        for end, part in enumerate(parts[1:], 2):
            obj = getattr(obj, part) if hasattr(obj, part) else import_module(".".join(parts[:end]))
        return obj
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise missing from None  # the module itself is missing, not one that it imports
        lines = str(error).splitlines() or [""]
        raise UserError(f"'{name}' cannot be imported: {type(error).__name__}: {lines[0]}") from None


@contextmanager
def constructing(config: DictConfig, kind: type[Exception] = Exception) -> Iterator[None]:
    """Context manager for instantiating a configuration: errors of constructors are reported with their key.

    Args:
        config: the whole configuration, with sections that have a ``_target_``.
        kind: type of the exceptions to explain; others are passed on.

    Raises:
        Refused: a constructor rejected its arguments. Exceptions of other code and of the system are passed on.
    """
    try:
        yield
    except kind as error:
        cause: Exception = error
        while isinstance(cause, HydraException) and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        if isinstance(cause, UserError | OSError):
            raise cause from cause.__cause__
        targets = dict(sections(OmegaConf.to_container(config, resolve=True)))
        path, key = find_culprit(cause, list(targets.items())) or _hydra_key(error) or (None, "")
        if path is None:
            raise
        name = str(targets[path]["_target_"]) if path in targets else ""
        raise Refused(name, f"{key}: {first_line(cause)}") from cause


def sections(config: Any, path: str = "") -> Iterator[Section]:
    """Every section with a ``_target_``, at any depth."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield path, config
        items = [(str(key), value) for key, value in config.items()]
    else:
        items = [(str(index), value) for index, value in enumerate(config)] if isinstance(config, list) else []
    for key, value in items:
        yield from sections(value, f"{path}.{key}".lstrip("."))


def find_culprit(error: Exception, candidates: list[Section]) -> tuple[str, str] | None:
    """The path of the section whose (innermost) constructor raised, and the key at fault.

    The key is ``path.key=value`` if the message names an argument, else the section's path again.

    Returns None if no constructor of these sections was running.
    """
    targets = [(section, _loaded_object(section[1]["_target_"])) for section in candidates]
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        matches = [section for section, target in targets if _executes(frame, target)]
        if matches:  # among sections of the same class, the one whose values match
            path, section = max(matches, key=lambda match: _agreement(frame, match[1]))
            key = _mentioned_key(str(error), section)
            return path, f"{path}.{key}={section[key]!r}" if key else path
    return None


def _mentioned_key(message: str, section: Mapping[str, Any]) -> str | None:
    """The key of a section that a message refers to: the first mentioned, preferring one whose value is quoted."""
    words = re.findall(r"[\w.+-]+|\w+", message)
    plain = {key for key, value in section.items() if key not in OPTIONS and not isinstance(value, Mapping)}
    mentioned = [key for word in re.findall(r"[a-z_]\w*", message) if (key := ALIASES.get(word, word)) in plain]
    quoted = [key for key in mentioned if str(section[key]) in words]
    return next(iter([*quoted, *mentioned]), None)


def _loaded_object(name: str) -> Any:
    """The object of a dotted name; None if its module has not been imported, and thus cannot have run."""
    parts = str(name).split(".")
    end = next((end for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in sys.modules), None)
    obj: Any = None if end is None else sys.modules[".".join(parts[:end])]
    for part in () if end is None else parts[end:]:
        obj = getattr(obj, part, None)
    return obj


def _executes(frame: FrameType, target: Any) -> bool:
    """Whether a frame executes the target function, or a method of an instance of exactly the target class."""
    code: CodeType = frame.f_code
    if inspect.isclass(target):
        return code.co_argcount > 0 and type(frame.f_locals.get(code.co_varnames[0])) is target
    return getattr(inspect.unwrap(target), "__code__", None) is code if callable(target) else False


def _agreement(frame: FrameType, section: Mapping[str, Any]) -> int:
    """How many of a section's values match the local variables of a frame or the attributes of its ``self``."""
    variables = frame.f_locals
    first = variables.get(frame.f_code.co_varnames[0]) if frame.f_code.co_argcount else None
    values = {**getattr(first, "__dict__", {}), **variables}
    return sum(repr(values[key]) == repr(value) for key, value in section.items() if key in values)


def _hydra_key(error: Exception) -> tuple[str, str] | None:
    """The key that Hydra itself names in its error: a call with invalid arguments never gets a frame."""
    match = re.search(r"^full_key: (.*)$", str(error), re.MULTILINE) if isinstance(error, HydraException) else None
    return (match[1], match[1]) if match else None
