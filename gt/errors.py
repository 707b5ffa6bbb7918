"""Errors that a user may see as a single line, and how they are shown."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException


class UserError(Exception):
    """Something the user can mend: says what is wrong, where, and what to do. Shown without a traceback.

    ``str`` is one line, also where it quotes a cell or a name that has several.
    """

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())


@contextmanager
def one_line() -> Iterator[None]:
    """Whatever a user can mend ends the program with one line on standard error and an exit code other than 0."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        line = reason(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(1) from None


def reason(error: BaseException) -> str | None:
    """What is wrong, in one line, where a user can mend it; else None."""
    hydras = isinstance(error, HydraException)
    while isinstance(error, HydraException) and error.__cause__ is not None:  # what Hydra's instantiate met
        error = error.__cause__
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    return str(error) if isinstance(error, UserError) or (hydras and isinstance(error, ValueError)) else None
