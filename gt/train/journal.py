"""A study's journal, which takes no harm from processes that are killed while they write to it."""

import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


class Journal(JournalFileBackend):
    """Optuna's file of a line for each change, which machines that share a disk may all write to.

    A process that is killed amid a change leaves its lock, which the next one takes after half a minute; a file, for
    the link that Optuna would have locks forever where it leads nowhere. It may leave half a line too, as does a disk
    that is full: that never counted, and is cut off before it can spoil the line that comes next.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), JournalFileOpenLock(str(path)))
        self.path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._lock.acquire()
        try:
            content = self.path.read_bytes()
            if not content.endswith(b"\n"):
                os.truncate(self.path, content.rfind(b"\n") + 1)
        finally:
            self._lock.release()
        super().append_logs(logs)
