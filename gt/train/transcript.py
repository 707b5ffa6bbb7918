"""What a run says, kept in a file as it reads on the screen: no colours, and no progress bar that is gone again."""

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

PIECE = re.compile(r"\x1b\[([0-9;?]*)([@-~])|\x1b.|[\r\n]|[^\x1b\r\n]+")
REDRAWN = 8  # last lines of a terminal that a progress bar may still go back to


class Copied:
    """A stream whose lines are also written to a log, and to that alone once nobody reads the stream any more.

    On a terminal the last lines are held back until they can no longer be drawn over. Several threads may write.
    """

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self.stream, self.log = stream, log
        self.lines, self.row, self.begun = [""], 0, False  # what may be drawn over, and where the cursor is
        self.held = REDRAWN if stream.isatty() else 0
        self.lock = threading.RLock()  # a signal's handler writes in the middle of what its own thread writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self.lock:
            with suppress(BrokenPipeError):  # ``| head`` has ended: the run goes on
                self.stream.write(text)
            for piece in PIECE.finditer(text):
                self._draw(piece[0], piece[1], piece[2])
            self._keep(self.row - self.held)
        return len(text)

    def flush(self) -> None:
        with suppress(BrokenPipeError):
            self.stream.flush()

    def _draw(self, piece: str, number: str | None, command: str | None) -> None:
        """What one control code, or text without any, does to the lines."""
        if piece == "\n":
            if self.row + 1 == len(self.lines):
                self.lines.append("")
            self.row, self.begun = self.row + 1, False
        elif piece == "\r":
            self.begun = False
        elif command == "A":  # up
            self.row = max(0, self.row - int(number or 1))
        elif command == "K":  # erase the line
            self.lines[self.row], self.begun = "", False
        elif not piece.startswith("\x1b"):
            self.lines[self.row] = self.lines[self.row] + piece if self.begun else piece
            self.begun = True

    def _keep(self, count: int) -> None:
        """Write the first lines to the log."""
        if count > 0:
            kept, self.row = self.lines[:count], self.row - count
            del self.lines[:count]
            with suppress(OSError):  # a full disk: the run says what it has to say, and ends by what it must save
                self.log.write("".join(f"{line.rstrip()}\n" for line in kept))
                self.log.flush()

    def close_copy(self) -> None:
        """Write what was held back."""
        while self.lines and not self.lines[-1]:
            self.lines.pop()
        self._keep(len(self.lines))
        self.lines, self.row, self.begun = [""], 0, False


@contextmanager
def transcript(path: Path) -> Iterator[None]:
    """Add the command and all that Python prints to a log, besides where it goes anyway."""
    command = f"{datetime.now():%Y-%m-%d %H:%M:%S} {os.getcwd()}$ {shlex.join(sys.orig_argv)}"
    log = open(path, "a", encoding="utf-8", errors="replace")  # noqa: SIM115  what is left to write may not go in
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
