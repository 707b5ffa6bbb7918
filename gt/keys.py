"""What a cached result depends on: a part's own key, and of a class of somebody's own the text that defines it."""

import inspect
import sys
from contextlib import suppress
from typing import Any, Protocol


class Keyed(Protocol):
    """Computes something that is kept, such as an `Encoding` or a `Source`."""

    def key(self) -> dict[str, Any] | None: ...


def full_key(part: Keyed) -> dict[str, Any]:
    """A part's JSON-able key with, of a class outside this package, its name and the text that defines it.

    That is of the module of the class and of each between it and this package's, by name; a text that is not to
    be had, such as that of a class typed at a prompt, does not count.
    """
    texts: dict[str, str] = {}
    for kind in type(part).__mro__:
        if not _is_ours(kind) and any(map(_is_ours, kind.__mro__)):
            with suppress(OSError, TypeError, KeyError):
                texts[kind.__module__] = inspect.getsource(sys.modules[kind.__module__])
    own = {"class": type(part).__qualname__, "code": texts} if texts else {}  # a module may hold several
    return {**(part.key() or {}), **own}


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "gt"
