"""What a constructor refuses, in one line that names the key of the configuration that it was built from."""

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
Section = tuple[str, Mapping[str, Any]]  # the dotted path of a part of a configuration, and what it says
SAID = {"beta": "betas", "epsilon": "eps"}  # what PyTorch's messages call some of its arguments


class Refused(UserError):
    """A constructor refused what it was given; ``target`` is its name."""

    def __init__(self, target: str, message: str) -> None:
        super().__init__(message)
        self.target = target


def imported(name: Any) -> Any:
    """What a dotted name stands for; its modules are imported.

    Raises:
        UserError: there is no such thing; or one of its modules fails, by what this raised.
    """
    missing = UserError(f"there is nothing called '{name}' to import")
    parts = str(name).split(".")
    if not all(parts):
        raise missing
    try:
        thing: Any = import_module(parts[0])
        for end, part in enumerate(parts[1:], 2):
            thing = getattr(thing, part) if hasattr(thing, part) else import_module(".".join(parts[:end]))
        return thing
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise missing from None  # rather than a module that the module of this name imports
        lines = str(error).splitlines() or [""]
        raise UserError(f"'{name}' cannot be imported: {type(error).__name__}: {lines[0]}") from None


@contextmanager
def constructing(config: DictConfig, kind: type[Exception] = Exception) -> Iterator[None]:
    """Around everything that is built from a configuration: whatever a constructor raises names its key.

    Args:
        config: the whole of it; a section stands for what its ``_target_`` names.
        kind: of errors; others go through.

    Raises:
        Refused: a constructor refused its arguments. What other code raised, and what the system did, goes through.
    """
    try:
        yield
    except kind as error:
        cause: Exception = error
        while isinstance(cause, HydraException) and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        if isinstance(cause, UserError | OSError):
            raise cause from cause.__cause__
        known = dict(sections(OmegaConf.to_container(config, resolve=True)))
        path, key = blamed(cause, list(known.items())) or _hydras(error) or (None, "")
        if path is None:
            raise
        name = str(known[path]["_target_"]) if path in known else ""
        raise Refused(name, f"{key}: {first_line(cause)}") from cause


def sections(config: Any, path: str = "") -> Iterator[Section]:
    """Every section with a ``_target_``, at any depth."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield path, config
        items = [(str(key), value) for key, value in config.items()]
    else:
        items = [(str(place), value) for place, value in enumerate(config)] if isinstance(config, list) else []
    for key, value in items:
        yield from sections(value, f"{path}.{key}".lstrip("."))


def blamed(error: Exception, known: list[Section]) -> tuple[str, str] | None:
    """The section whose constructor, the innermost, refused its arguments, and the key of it that it is about.

    The second is ``path.key=value`` where the message names an argument, else the section's path again.

    Returns None where no constructor of these sections was running.
    """
    targets = [(section, _resolved(section[1]["_target_"])) for section in known]
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        fitting = [section for section, target in targets if _runs(frame, target)]
        if fitting:  # of several parts of one kind the one that was given what this one holds
            path, section = max(fitting, key=lambda each: _agreement(frame, each[1]))
            key = _named(str(error), section)
            return path, f"{path}.{key}={section[key]!r}" if key else path
    return None


def _named(message: str, section: Mapping[str, Any]) -> str | None:
    """The key of a section that a message is about: the first that it names, one whose value it quotes if it can."""
    words = re.findall(r"[\w.+-]+|\w+", message)
    plain = {key for key, value in section.items() if key not in OPTIONS and not isinstance(value, Mapping)}
    named = [key for word in re.findall(r"[a-z_]\w*", message) if (key := SAID.get(word, word)) in plain]
    quoted = [key for key in named if str(section[key]) in words]
    return next(iter([*quoted, *named]), None)


def _resolved(name: str) -> Any:
    """What a dotted name stands for; None where its module has not been imported, for then nothing of it has run."""
    parts = str(name).split(".")
    end = next((end for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in sys.modules), None)
    thing: Any = None if end is None else sys.modules[".".join(parts[:end])]
    for part in () if end is None else parts[end:]:
        thing = getattr(thing, part, None)
    return thing


def _runs(frame: FrameType, target: Any) -> bool:
    """Whether a frame runs a function, or a method of an object of exactly this class."""
    code: CodeType = frame.f_code
    if inspect.isclass(target):
        return code.co_argcount > 0 and type(frame.f_locals.get(code.co_varnames[0])) is target
    return getattr(inspect.unwrap(target), "__code__", None) is code if callable(target) else False


def _agreement(frame: FrameType, section: Mapping[str, Any]) -> int:
    """How many of a section's values a frame, or the object whose method it runs, holds under their names."""
    held = frame.f_locals
    first = held.get(frame.f_code.co_varnames[0]) if frame.f_code.co_argcount else None
    values = {**getattr(first, "__dict__", {}), **held}
    return sum(repr(values[key]) == repr(value) for key, value in section.items() if key in values)


def _hydras(error: Exception) -> tuple[str, str] | None:
    """Where Hydra was when it met an error, as it says itself: a call that never began has no frame."""
    place = re.search(r"^full_key: (.*)$", str(error), re.MULTILINE) if isinstance(error, HydraException) else None
    return (place[1], place[1]) if place else None
