"""Logs a run's output to a file as it appears on the screen, without colours and finished progress bars."""

import os
import re
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

TOKEN = re.compile(r"\x1b\[([0-9;?]*)([@-~])|\x1b.|[\r\n]|[^\x1b\r\n]+")
REDRAWN = 8  # last lines on a terminal that a progress bar may still overwrite


class Copied:
    """A stream that is also copied to a log, line by line, even after the reader of the stream is gone.

    On a terminal, the last lines are held back as long as they may be overwritten. Thread-safe.
    """

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self.stream, self.log = stream, log
        self.lines, self.row, self.appending = [""], 0, False  # pending lines, and the position of the cursor
        self.held = REDRAWN if stream.isatty() else 0
        self.lock = threading.RLock()  # reentrant: a signal handler may interrupt a write of its own thread

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self.lock:
            with suppress(BrokenPipeError):  # the run outlives ``| head``
                self.stream.write(text)
            for token in TOKEN.finditer(text):
                self._draw(token[0], token[1], token[2])
            self._flush_lines(self.row - self.held)
        return len(text)

    def flush(self) -> None:
        with suppress(BrokenPipeError):
            self.stream.flush()

    def _draw(self, token: str, number: str | None, command: str | None) -> None:
        """Apply a control code, or text without any, to the lines."""
        if token == "\n":
            if self.row + 1 == len(self.lines):
                self.lines.append("")
            self.row, self.appending = self.row + 1, False
        elif token == "\r":
            self.appending = False
        elif command == "A":  # up
            self.row = max(0, self.row - int(number or 1))
        elif command == "K":  # erase the line
            self.lines[self.row], self.appending = "", False
        elif not token.startswith("\x1b"):
            self.lines[self.row] = self.lines[self.row] + token if self.appending else token
            self.appending = True

    def _flush_lines(self, count: int) -> None:
        """Write the first lines to the log."""
        if count > 0:
            finished, self.row = self.lines[:count], self.row - count
            del self.lines[:count]
            with suppress(OSError):  # a full disk must not end the run here, but when it saves its results
                self.log.write("".join(f"{line.rstrip()}\n" for line in finished))
                self.log.flush()

    def close_copy(self) -> None:
        """Write the lines held back."""
        while self.lines and not self.lines[-1]:
            self.lines.pop()
        self._flush_lines(len(self.lines))
        self.lines, self.row, self.appending = [""], 0, False


@contextmanager
def transcript(path: Path) -> Iterator[None]:
    """Context manager that appends the command and a copy of all printed output to a log."""
    command = f"{datetime.now():%Y-%m-%d %H:%M:%S} {os.getcwd()}$ {shlex.join(sys.orig_argv)}"
    log = open(path, "a", encoding="utf-8", errors="replace")  # noqa: SIM115  closing may fail to write the rest
    try:
        print(command, file=log, flush=True)
        out, err = Copied(sys.stdout, log), Copied(sys.stderr, log)
        with redirect_stdout(out), redirect_stderr(err):
            try:
                yield
            finally:
                out.close_copy()
                err.close_copy()
    finally:
        with suppress(OSError):
            log.close()
