"""User-facing errors, shown as a single line."""

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

UNQUOTED = re.compile(r"[A-Za-z_][\w./-]*|0|[1-9]\d*")  # needs no quotes in Hydra's grammar or a shell
BROKEN_PIPE_EXIT = 141  # 128 + SIGPIPE, as in shells
MAX_SUGGESTIONS = 3  # equally similar names in an error message
NON_STRINGS = ("null", "true", "false", "nan", "inf")  # words that Hydra does not parse as strings


class UserError(Exception):
    """An error that the user can fix: says what is wrong, where, and what to do. Shown without a traceback.

    ``str`` is always one line, even if the message quotes multi-line text.
    """

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations that reports errors in one line, without the usage."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        if match := re.match(r"unrecognized arguments:.*? (--?[a-zA-Z][\w-]*)", message):
            message = f"there is no option '{match[1]}': {nearest(match[1], self.options())}"
        raise UserError(f"{message}; see {self.prog} --help")

    def options(self) -> set[str]:
        """The long flags of this parser and its subcommands."""
        flags = {name for action in self._actions for name in action.option_strings}
        commands = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        for parser in (parser for subparsers in commands for parser in subparsers.values()):
            flags |= parser.options()
        return {name for name in flags if name.startswith("--")}


@contextmanager
def one_line() -> Iterator[None]:
    """Context manager that turns any exception into one line on standard error and a non-zero exit code.

    If standard output has been closed, as by ``| head``, the program exits silently.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and output_closed():
            raise SystemExit(BROKEN_PIPE_EXIT) from None
        print(f"error: {reason(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def output_closed() -> bool:
    """Whether the reader of this program's standard output is gone."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # POLLERR is reported without being requested
    return bool(poll.poll(0))


def reason(error: Exception, log: Path | None = None) -> str:
    """Describe an error in one line; for a bug, the line names the file that has the traceback.

    Args:
        log: file to which the traceback of any error is appended; None: only bugs are logged, to a new temporary file.
    """
    bug = not isinstance(error, UserError | OSError)
    if bug and log is None:
        log = Path(tempfile.mkstemp(prefix="gt-", suffix=".log")[1])
    if log is not None:
        with suppress(OSError), open(log, "a") as handle:  # the error may be that this file is not writable
            traceback.print_exception(error, file=handle)
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first} ({user_code_line(error)}the traceback is in {log})" if bug else first


def user_code_line(error: Exception) -> str:
    """The innermost line of the user's own code in a traceback; '' if there is none."""
    installed = [*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), str(Path(__file__).parent)]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and path.name != "train.py" and not any(map(path.is_relative_to, installed)):
            return f"{path.name}, line {frame.lineno}, in {frame.name}; "
    return ""


def first_line(error: Exception) -> str:
    """The first line of an error message; the name of its class if it is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def nearest(name: str, options: Iterable[str]) -> str:
    """A hint for an error message: options with this prefix, the most similar ones, or all; ignores case."""
    candidates, lowered = sorted(options), name.lower()
    with_prefix = (
        [candidate for candidate in candidates if candidate.lower().startswith(lowered)]
        if len(name.strip("-")) > 1
        else []
    )
    similarity = {
        candidate: difflib.SequenceMatcher(None, candidate.lower(), lowered).ratio()
        for candidate in with_prefix or candidates
    }
    highest = max(similarity.values(), default=0.0)
    if with_prefix or highest >= 0.5:
        best = [f"'{candidate}'" for candidate in similarity if similarity[candidate] == highest]
        return f"did you mean {' or '.join(best[:MAX_SUGGESTIONS])}?"
    return f"there are {', '.join(candidates)}" if candidates else "nothing may be set here"


def shell_override(key: str, value: str | Sequence[str]) -> str:
    """An override to paste into a shell: quoted for Hydra's grammar, then for the shell."""
    text = _quoted(value) if isinstance(value, str) else f"[{','.join(map(_quoted, value))}]"
    return shlex.quote(f"{key}={text}")


def _quoted(text: str) -> str:
    if UNQUOTED.fullmatch(text) and text.lower() not in NON_STRINGS:
        return text
    # a backslash is literal, except before a quote, at the end, and before an interpolation
    inner = re.sub(r'(\\*)("|$)', lambda m: 2 * m[1] + ("\\" if m[2] else "") + m[2], text).replace("${", "\\${")
    return f'"{inner}"'
