"""What W&B keeps of an offline run, read back: its log is LevelDB's, 32 KiB blocks of pieces of protocol buffers."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER, START = 1 << 15, 7, 7  # bytes
WHOLE, LAST = 1, 4  # kinds of pieces that end a record


def records(folder: Path) -> list[Any]:
    """The records of the offline run below a folder, of its last part where it went on.

    It has ended; the last records are written a moment later.
    """
    *_, path = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    for _ in range(100):
        read = list(read_log(path.read_bytes()))
        if read and read[-1].WhichOneof("record_type") == "exit":
            return read
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def read_log(log: bytes) -> Iterator[Any]:
    """The records that stand whole in a log, of which the end may not be written yet."""
    at, record = START, b""
    while at + HEADER <= len(log):
        if BLOCK - at % BLOCK < HEADER:  # too little is left of a block
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        if at + HEADER + size > len(log):  # a piece that is being written
            return
        record += log[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (WHOLE, LAST):
            message = wandb_internal_pb2.Record()
            message.ParseFromString(record)
            record = b""
            yield message


def values(items: Any) -> dict[str, Any]:
    """The named values of a part of a record."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
