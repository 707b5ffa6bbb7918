"""Read back what W&B stores of an offline run: a LevelDB log, 32 KiB blocks of fragments of protocol buffers."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER, START = 1 << 15, 7, 7  # bytes
FULL, LAST = 1, 4  # types of fragments that end a record


def records(folder: Path) -> list[Any]:
    """The records of the finished offline run below a folder; of its last part if it was resumed.

    W&B writes the last records a moment after the end of the run, so this waits for them.
    """
    *_, path = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    for _ in range(100):
        read = list(read_log(path.read_bytes()))
        if read and read[-1].WhichOneof("record_type") == "exit":
            return read
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def read_log(log: bytes) -> Iterator[Any]:
    """The complete records of a log whose end may not be written yet."""
    offset, record = START, b""
    while offset + HEADER <= len(log):
        if BLOCK - offset % BLOCK < HEADER:  # the rest of a block is too short for a header
            offset += BLOCK - offset % BLOCK
            continue
        size, fragment_type = int.from_bytes(log[offset + 4 : offset + 6], "little"), log[offset + 6]
        if offset + HEADER + size > len(log):  # a fragment that is still being written
            return
        record += log[offset + HEADER : offset + HEADER + size]
        offset += HEADER + size
        if fragment_type in (FULL, LAST):
            message = wandb_internal_pb2.Record()
            message.ParseFromString(record)
            record = b""
            yield message


def values(items: Any) -> dict[str, Any]:
    """The values of a list of items by name, of which nested keys are joined by dots."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
