"""Parallel map over processes: ordered results, bounded memory, and no process outlives its parent."""

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


def parallel_map(
    function: Callable[[T], R], parts: Sequence[T], processes: int | None = None, what: str = ""
) -> Generator[R]:
    """Apply ``function`` to every part by several processes, and yield the results in the order of the parts.

    At most ``2 * processes`` results wait to be consumed, so memory is bounded whatever the number of parts. Each
    process uses one thread. All of them end with the iterator, on an interrupt, and with this process, even if it is
    killed. With a single process or part, or within a worker, everything is computed in this process.

    Args:
        function: must be picklable, as must its results and the parts.
        processes: number of processes; None uses the CPUs available to this process.
        what: label of the progress bar, such as "reading molecules"; no bar if empty.

    Raises:
        UserError: a worker was killed. Exceptions of ``function`` are raised here when their part's turn comes.
    """
    count = min(processes or cpus(), len(parts))
    serial = count <= 1 or multiprocessing.current_process().daemon  # daemons may not have children
    results = (function(part) for part in parts) if serial else _pooled(function, parts, count, what)
    hidden = not what or len(parts) < 2 or getattr(rank_zero_only, "rank", 0) != 0
    with Progress(disable=hidden) as bar, closing(results):
        task = bar.add_task(what, total=len(parts))
        for result in results:
            bar.advance(task)
            yield result


def _pooled(function: Callable[[T], R], parts: Sequence[T], count: int, what: str) -> Generator[R]:
    # forked from a single-threaded server: a fork of this process could inherit a lock that is never released
    context = multiprocessing.get_context("forkserver")
    unwrapped = function.func if isinstance(function, functools.partial) else function
    context.set_forkserver_preload([__name__, unwrapped.__module__])  # imported once, with shared memory
    with _shielded(b"__main__" in pickle.dumps((function, parts[0]))):
        pool = context.Pool(count, _init_worker)
    try:
        workers = list(pool._pool)  # type: ignore[attr-defined]
        pending = deque(pool.apply_async(_run, (function, parts[n])) for n in range(min(2 * count, len(parts))))
        for index in range(len(parts)):
            result = pending.popleft()
            while not result.ready():
                result.wait(0.5)
                if any(worker.exitcode is not None for worker in workers):  # the pool itself would wait forever
                    raise UserError(
                        f"a worker process was killed while {what or 'computing'}, often for lack of memory: use fewer "
                        "processes"
                    )
            yield result.get()
            if index + 2 * count < len(parts):
                pending.append(pool.apply_async(_run, (function, parts[index + 2 * count])))
    finally:
        pool.terminate()
        pool.join()


@contextmanager
def _shielded(needs_main: bool) -> Iterator[None]:
    """Shield processes started within from Ctrl-C, which a terminal sends to all; this one receives it afterwards.

    They also do not rerun the main script unless they need it: it may lack ``if __name__ == "__main__"``.
    """
    old_mask, main = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}), sys.modules["__main__"]
    sys.modules["__main__"] = main if needs_main else ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def _init_worker() -> None:
    """Initialise a worker, before its first task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    threadpool_limits(1)


def leave_group(worker: int) -> None:
    """Initialise a loader's process: detach it from the process group, so that Ctrl-C does not reach it.

    The process that consumes the batches may still need some, and ends this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def _exit_with_parent() -> None:
    """Exit as soon as the parent dies, even in the middle of a long part."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(function: Callable[[Any], Any], part: Any) -> Any:
    try:
        return function(part)
    except Exception as error:
        error.add_note(f"in a worker process: {traceback.format_exc()}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an unpicklable error would break the pool: raise an equivalent one
            replacement = UserError(str(error)) if isinstance(error, UserError) else None
            raise replacement or RuntimeError(f"{type(error).__name__}: {error}") from None
        raise
