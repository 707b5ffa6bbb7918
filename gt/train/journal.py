"""The journal of an Optuna study, robust to processes that are killed while they write to it."""

import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


class Journal(JournalFileBackend):
    """Optuna's journal: a line for each change, appended by any number of machines that share a disk.

    The lock is a file rather than Optuna's default, a symbolic link, because a dangling link would block every later
    process forever; a file left behind by a killed process is taken over after 30 seconds. An incomplete last line,
    from a kill or a full disk, is cut off before the next one is appended.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), JournalFileOpenLock(str(path)))
        self.path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._lock.acquire()
        try:
            size = self.path.stat().st_size
            with open(self.path, "rb") as file:
                file.seek(max(0, size - 1))
                torn = file.read() not in (b"", b"\n")
            if torn:
                os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
        finally:
            self._lock.release()
        super().append_logs(logs)
