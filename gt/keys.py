"""Cache keys: a part's own key and, for user-defined classes, their source code."""

import inspect
import sys
from contextlib import suppress
from typing import Any, Protocol


class Keyed(Protocol):
    """Something whose results are cached, such as an `Encoding` or a `Source`."""

    def key(self) -> dict[str, Any] | None: ...


def full_key(part: Keyed) -> dict[str, Any]:
    """A part's JSON-serialisable key and, for a class outside this package, its name and source code.

    The source is that of the modules of the class and of its bases down to this package's, by module name; if it is
    unavailable, as for a class defined interactively, it is left out.
    """
    sources: dict[str, str] = {}
    for base in type(part).__mro__:
        if not _in_package(base) and any(map(_in_package, base.__mro__)):
            with suppress(OSError, TypeError, KeyError):
                sources[base.__module__] = inspect.getsource(sys.modules[base.__module__])
    custom = {"class": type(part).__qualname__, "code": sources} if sources else {}  # modules may have several
    return {**(part.key() or {}), **custom}


def _in_package(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "gt"
