"""Errors that a user may see as a single line, and how they are shown."""

import argparse
import difflib
import re
import select
import shlex
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

PLAIN = re.compile(r"[A-Za-z_][\w./-]*|0|[1-9]\d*")  # text that Hydra's grammar and a shell take as it stands
UNREAD = 141  # exit code of a program whose output nobody reads any more, 128 and SIGPIPE, as shells have it
FEW = 3  # names of which one is as likely as another, of which a message lists no more
WORDS = ("null", "true", "false", "nan", "inf")  # but for what Hydra takes for a value that is no text


class UserError(Exception):
    """Something the user can mend: says what is wrong, where, and what to do. Shown without a traceback.

    ``str`` is one line, also where it quotes a cell or a name that has several.
    """

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())


class Parser(argparse.ArgumentParser):
    """A parser of flags that are written in full, whose complaints are one line, without the usage in front."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        if unknown := re.match(r"unrecognized arguments:.*? (--?[a-zA-Z][\w-]*)", message):
            message = f"there is no option '{unknown[1]}': {nearest(unknown[1], self.options())}"
        raise UserError(f"{message}; see {self.prog} --help")

    def options(self) -> set[str]:
        """The flags by their long names, those of its commands too."""
        names = {name for action in self._actions for name in action.option_strings}
        commands = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        for parser in (parser for each in commands for parser in each.values()):
            names |= parser.options()
        return {name for name in names if name.startswith("--")}


@contextmanager
def one_line() -> Iterator[None]:
    """Whatever goes wrong ends the program with one line on standard error and an exit code other than 0.

    Where whoever read what it prints is gone, as with ``| head``, it ends without a word.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and unread():
            raise SystemExit(UNREAD) from None
        print(f"error: {reason(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def unread() -> bool:
    """Whether whoever read what this program prints is gone."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # of a pipe without a reader the system says so, asked or not
    return bool(poll.poll(0))


def reason(error: Exception, log: Path | None = None) -> str:
    """What is wrong, in one line. Of what no user can mend, a bug, the traceback is in a file that the line names.

    Args:
        log: takes the traceback of any error; without it a bug's goes to a new file in the folder for temporary files.
    """
    bug = not isinstance(error, UserError | OSError)
    if bug and log is None:
        log = Path(tempfile.mkstemp(prefix="gt-", suffix=".log")[1])
    if log is not None:
        with suppress(OSError), open(log, "a") as handle:  # what is wrong may be that nothing can be written there
            traceback.print_exception(error, file=handle)
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first} ({own_line(error)}the traceback is in {log})" if bug else first


def own_line(error: Exception) -> str:
    """Where an error came out of a user's own code, the innermost line of it; '' where it did not."""
    installed = [*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), str(Path(__file__).parent)]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and path.name != "train.py" and not any(map(path.is_relative_to, installed)):
            return f"{path.name}, line {frame.lineno}, in {frame.name}; "
    return ""


def first_line(error: Exception) -> str:
    """The first line of what an error says; that it is of its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that ends an error message: the known names that begin so, or look most alike, or all; in any letters."""
    names, small = sorted(known), name.lower()
    begun = [each for each in names if each.lower().startswith(small)] if len(name.strip("-")) > 1 else []
    alike = {each: difflib.SequenceMatcher(None, each.lower(), small).ratio() for each in begun or names}
    most = max(alike.values(), default=0.0)
    if begun or most >= 0.5:
        best = [f"'{each}'" for each in alike if alike[each] == most]
        return f"did you mean {' or '.join(best[:FEW])}?"
    return f"there are {', '.join(names)}" if names else "nothing may be set here"


def shell_override(key: str, value: str | Sequence[str]) -> str:
    """A setting as it is pasted into a shell: quoted as Hydra's grammar needs it, and that quoted as the shell does."""
    text = _quoted(value) if isinstance(value, str) else f"[{','.join(map(_quoted, value))}]"
    return shlex.quote(f"{key}={text}")


def _quoted(text: str) -> str:
    if PLAIN.fullmatch(text) and text.lower() not in WORDS:
        return text
    # a backslash stands for itself but before a quote, or at the end, and before an interpolation
    inner = re.sub(r'(\\*)("|$)', lambda m: 2 * m[1] + ("\\" if m[2] else "") + m[2], text).replace("${", "\\${")
    return f'"{inner}"'
