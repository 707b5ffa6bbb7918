"""What ends the message about a key that is not there: where the one that was meant stands."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from gt.errors import nearest
from gt.train.construct import OPTIONS

FEW = 3  # keys of one name, of which a message lists no more
ALIKE = 0.75  # of the names of keys further down, which are many


def suggested(name: str, known: Collection[str], section: Any, path: str = "", whole: Any = None) -> str:
    """A key further down that has the name, a known name that looks like it, or a key there or anywhere that does.

    Args:
        known: names that the section may have.
        section: the one that has no such key.
        path: its own; empty for the whole configuration.
        whole: the configuration, in another section of which the key may stand; None: that is not asked.
    """
    deeper = named(section, path)
    if name in deeper or not difflib.get_close_matches(name, known, n=1, cutoff=ALIKE):
        longer = any(name in each.split("_") for each in known)  # such as max_steps, where steps is meant
        for keys in (deeper, {} if whole is None or longer else named(whole, "")):
            meant = [name] if name in keys else difflib.get_close_matches(name, keys, n=1, cutoff=ALIKE)
            if meant:
                return f"did you mean {' or '.join(repr(key) for key in keys[meant[0]][:FEW])}?"
    return nearest(name, known)


def named(section: Any, path: str) -> dict[str, list[str]]:
    """The dotted keys of a section by their last part, those of few parts first."""
    keys: dict[str, list[str]] = {}
    plain = OmegaConf.to_container(section, resolve=False)
    for key in sorted(leaves(plain, f"{path}." if path else ""), key=lambda key: key.count(".")):
        keys.setdefault(key.rpartition(".")[2], []).append(key)
    return keys


def leaves(section: Any, path: str) -> Iterator[str]:
    """The dotted keys of all plain values in a section, at any depth."""
    for key, value in section.items() if isinstance(section, Mapping) else ():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")
        elif key not in OPTIONS:
            yield f"{path}{key}"
