"""Work spread over processes: results come in order, a few at a time, and no process outlives its parent."""

import functools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from types import ModuleType
from typing import Any, TypeVar

import torch
from rich.progress import Progress
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from gt.data.machine import cpus
from gt.errors import UserError
from gt.ranks import rank_zero_only

T = TypeVar("T")
R = TypeVar("R")


def mapped(
    function: Callable[[T], R], parts: Sequence[T], processes: int | None = None, what: str = ""
) -> Generator[R]:
    """``function`` of every part, in the order of the parts, computed by several processes.

    At most ``2 * processes`` results wait to be consumed: however many parts there are, memory is bounded. Each
    process uses one thread. All of them end with the iterator, with an interrupt, and with this process, even a killed
    one. Computed in this process where there is one process or one part, and within a worker.

    Args:
        function: can be pickled, as its results and the parts can.
        processes: how many work; None takes the CPUs that this process may use.
        what: shown beside a progress bar, such as "reading molecules"; no bar where empty.

    Raises:
        UserError: a worker was killed. Whatever ``function`` raises is raised here as it is, on its part's turn.
    """
    count = min(processes or cpus(), len(parts))
    alone = count <= 1 or multiprocessing.current_process().daemon  # such a process may not have children
    results = (function(part) for part in parts) if alone else _pooled(function, parts, count, what)
    hidden = not what or len(parts) < 2 or getattr(rank_zero_only, "rank", 0) != 0
    with Progress(disable=hidden) as bar, closing(results):
        shown = bar.add_task(what, total=len(parts))
        for result in results:
            bar.advance(shown)
            yield result


def _pooled(function: Callable[[T], R], parts: Sequence[T], count: int, what: str) -> Generator[R]:
    # forked from a server that never had threads: a fork of this process could inherit a lock that nobody will free
    context = multiprocessing.get_context("forkserver")
    inner = function.func if isinstance(function, functools.partial) else function
    context.set_forkserver_preload([__name__, inner.__module__])  # imported once, and its memory shared
    with _starting(b"__main__" in pickle.dumps((function, parts[0]))):
        pool = context.Pool(count, _begin)
    try:
        workers = list(pool._pool)  # type: ignore[attr-defined]
        pending = deque(pool.apply_async(_call, (function, parts[n])) for n in range(min(2 * count, len(parts))))
        for place in range(len(parts)):
            result = pending.popleft()
            while not result.ready():
                result.wait(0.5)
                if any(worker.exitcode is not None for worker in workers):  # the pool itself would wait for ever
                    raise UserError(
                        f"a worker process was killed while {what or 'computing'}: often for want of memory, which "
                        "fewer processes need"
                    )
            yield result.get()
            if place + 2 * count < len(parts):
                pending.append(pool.apply_async(_call, (function, parts[place + 2 * count])))
    finally:
        pool.terminate()
        pool.join()


@contextmanager
def _starting(needs_main: bool) -> Iterator[None]:
    """Processes started within never see Ctrl-C, which a terminal sends to all; this one sees it afterwards.

    Nor do they run the main script again unless they need it: it may lack ``if __name__ == "__main__"``.
    """
    before, main = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}), sys.modules["__main__"]
    sys.modules["__main__"] = main if needs_main else ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """In a worker, before its first task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    threadpool_limits(1)


def leave_group(worker: int) -> None:
    """For a loader's process: signals to the whole group of a run, as by Ctrl-C, do not reach it.

    The process that uses the batches may still need some, and ends this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def _end_with_parent() -> None:
    """A part may take long: do not finish it for nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[[Any], Any], part: Any) -> Any:
    try:
        return function(part)
    except Exception as error:
        error.add_note(f"in a worker process: {traceback.format_exc()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error that cannot be pickled would end the pool: say the same by one that can
            same = UserError(str(error)) if isinstance(error, UserError) else None
            raise same or RuntimeError(f"{type(error).__name__}: {error}") from None
        raise
