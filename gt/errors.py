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
    except (UserError, OSError) as error:
        raise SystemExit(_say(_unwrapped(error))) from None
    except HydraException as error:
        cause = _unwrapped(error)
        if not isinstance(cause, UserError | OSError | ValueError):
            raise
        raise SystemExit(_say(cause)) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _unwrapped(error: BaseException) -> BaseException:
    """What Hydra's instantiate met."""
    while isinstance(error, HydraException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _say(error: BaseException) -> int:
    where = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
    what = f"{error.strerror or error}{where}" if isinstance(error, OSError) else str(error)
    print(f"error: {what}", file=sys.stderr)
    return 1
