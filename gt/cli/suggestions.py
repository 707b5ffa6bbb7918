"""Suggestions for the message about an unknown key: which key was probably meant."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from gt.errors import nearest
from gt.train.construct import OPTIONS

MAX_SUGGESTIONS = 3  # keys of the same name, in an error message
SIMILARITY = 0.75  # higher than the default of difflib, as there are many nested keys


def suggestion(name: str, options: Collection[str], section: Any, path: str = "", root: Any = None) -> str:
    """A nested key of that name, a valid name similar to it, or a similar key nested in the section or elsewhere.

    Args:
        options: the names that the section accepts.
        section: the section without such a key.
        path: the dotted path of the section; empty for the root.
        root: the whole configuration, to search the other sections too; None to search this one only.
    """
    nested = keys_by_name(section, path)
    if name in nested or not difflib.get_close_matches(name, options, n=1, cutoff=SIMILARITY):
        is_part = any(name in option.split("_") for option in options)  # such as max_steps for steps
        for keys in (nested, {} if root is None or is_part else keys_by_name(root, "")):
            matches = [name] if name in keys else difflib.get_close_matches(name, keys, n=1, cutoff=SIMILARITY)
            if matches:
                return f"did you mean {' or '.join(repr(key) for key in keys[matches[0]][:MAX_SUGGESTIONS])}?"
    return nearest(name, options)


def keys_by_name(section: Any, path: str) -> dict[str, list[str]]:
    """The dotted keys of a section by their last part, those with the fewest parts first."""
    keys: dict[str, list[str]] = {}
    plain = OmegaConf.to_container(section, resolve=False)
    for key in sorted(leaves(plain, f"{path}." if path else ""), key=lambda key: key.count(".")):
        keys.setdefault(key.rpartition(".")[2], []).append(key)
    return keys


def leaves(section: Any, path: str) -> Iterator[str]:
    """The dotted keys of all values in a section, at any depth."""
    for key, value in section.items() if isinstance(section, Mapping) else ():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")
        elif key not in OPTIONS:
            yield f"{path}{key}"
