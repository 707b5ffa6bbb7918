"""The parameters of functions and classes, and whether a plain value fits a type hint."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from gt.train.construct import import_object


def parameters(target: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a function or class, each with its type hint (``Any`` if it has none).

    For a class that passes further arguments on to its base, as `gt.train.compile.Trainer` does, these are included.
    """
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        hints = {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.signature(target)
    hinted = {n: hints.get(n, Any) for n, p in signature.parameters.items() if p.kind in kinds}
    if inspect.isclass(target) and getattr(target, "passes_on", False):
        return parameters(target.__bases__[0]) | hinted
    return hinted


def required(name: str) -> list[str]:
    """The parameters without a default of the function or class of this name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    arguments = inspect.signature(import_object(name)).parameters.values()
    return [
        parameter.name
        for parameter in arguments
        if parameter.kind in kinds and parameter.default is inspect.Parameter.empty
    ]


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value fits a type hint; a section with a ``_target_`` fits any."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if origin is typing.Annotated:
        return fits(value, arguments[0])
    if value is None or hint in (None, type(None)):
        return value is None and hint in (None, type(None))
    if isinstance(value, Mapping):
        return "_target_" in value or hint in (dict, object) or (origin is not None and issubclass(origin, Mapping))
    if hint is bool or isinstance(value, bool):
        return isinstance(value, bool) and hint in (bool, object)
    if hint is float:
        return isinstance(value, int | float)
    if hint in (int, str):
        return isinstance(value, hint)
    if isinstance(value, list):
        if origin is tuple and arguments and arguments[-1] is not ...:
            return len(value) == len(arguments) and all(map(fits, value, arguments))
        is_sequence = (inspect.isclass(origin or hint) and issubclass(list, origin or hint)) or origin is tuple
        return bool(is_sequence) and all(fits(item, arguments[0]) for item in value if arguments)
    if hint is Path:
        return isinstance(value, str)
    return isinstance(value, hint) if inspect.isclass(hint) else False


def describe(hint: Any) -> str:
    """A type hint in plain English."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        parts = [word for argument in typing.get_args(hint) for word in describe(argument).split(" or ")]
        return " or ".join(dict.fromkeys(parts))
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if hint in (None, type(None)):
        return "null"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is dict:
        return "a section"
    if origin is Callable:
        return "a section with a _target_"
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        if origin is tuple and arguments[-1] is not ...:
            return f"a list of {len(arguments)}"
        is_literal = arguments and typing.get_origin(arguments[0]) is Literal
        return f"a list of {describe(arguments[0])}" if is_literal else "a list"
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(
        hint, str(getattr(hint, "__name__", hint)).replace("typing.", "")
    )


def choices(hint: Any) -> list[str]:
    """The values that a type hint lists; empty if it also allows values other than those and null."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    is_literal = all(part is type(None) or typing.get_origin(part) is Literal for part in parts)
    return [str(value) for part in parts for value in typing.get_args(part)] if is_literal else []
