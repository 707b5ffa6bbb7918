"""Functions for worker processes, which must be importable from a module."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_info

from gt.errors import UserError


class Odd(ValueError):
    """An error that cannot be unpickled: its constructor takes other arguments than it stores."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(f"row {row} {why}")


class OddUserError(UserError):
    def __init__(self, row: int, why: str) -> None:
        super().__init__(f"row {row} {why}")


def square(number: int) -> int:
    time.sleep(0.02 if number % 3 == 0 else 0)  # so that later items finish first
    return number * number


def record(folder: Path, number: int) -> int:
    (folder / str(number)).touch()
    return number


def raise_error(error: Exception | None) -> int:
    if error is not None:
        raise error
    return 1


def raise_with_arguments(kind: type[Exception]) -> int:
    raise kind(7, "is odd")  # type: ignore[call-arg]


def return_unpicklable(_: int) -> Any:
    return threading.Lock()


def kill_itself(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def thread_counts(_: int) -> tuple[int, set[int]]:
    torch.ones(2, 2) @ torch.ones(2, 2)
    return torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info()}


def pid(_: int) -> int:
    return os.getpid()


def nested(number: int) -> list[int]:
    from gt.data.parallel import parallel_map

    return list(parallel_map(square, [number, number + 1], 2))


def endless(number: int) -> int:
    os.write(1, f"{os.getpid()}\n".encode())  # in a single call, as other workers write too
    while True:
        time.sleep(0.1 * number)
