"""Work spread over processes: results come in order, a few at a time, and no process outlives the one that asked."""

import functools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, TypeVar, cast

import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from rich.progress import Progress
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from gt.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


def cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mapped(
    function: Callable[[T], R], parts: Sequence[T], processes: int | None = None, what: str = ""
) -> Generator[R]:
    """``function`` of every part, in the order of the parts, computed by several processes.

    At most ``2 * processes`` results exist that were not taken yet: however many parts there are, memory is bounded.
    Each process uses one thread. All of them end with the iterator, with an interrupt, and with this process, even a
    killed one. In this process itself it is computed where there is one process or one part, and within a worker.

    Args:
        function: can be pickled (a function of a module, or a ``functools.partial`` of one), as its results and
            the parts can.
        processes: how many work; None takes the CPUs that this process may use.
        what: shown beside a progress bar, such as "reading molecules"; no bar where empty.

    Raises:
        UserError: a worker was killed. Whatever ``function`` raises is raised here as it is, on its part's turn.
    """
    count = min(processes or cpus(), len(parts))
    alone = count <= 1 or multiprocessing.current_process().daemon  # such a process may not have children
    results = (function(part) for part in parts) if alone else _pooled(function, parts, count, what)
    with Progress(disable=not what or getattr(rank_zero_only, "rank", 0) != 0) as bar, closing(results):
        shown = bar.add_task(what, total=len(parts))
        for result in results:
            bar.advance(shown)
            yield result


def _pooled(function: Callable[[T], R], parts: Sequence[T], count: int, what: str) -> Generator[R]:
    workers = dict[Connection, BaseProcess]()
    busy, done = dict[Connection, int](), dict[int, tuple[bool, Any]]()
    given = 0
    try:
        _start(workers, function, parts[0], count)
        for turn in range(len(parts)):
            while True:
                # a worker is given a part only when it waits for one: were both sides to send, both could wait for ever
                for pipe in [pipe for pipe in workers if pipe not in busy][: min(len(parts), turn + 2 * count) - given]:
                    busy[pipe] = given
                    with suppress(BrokenPipeError):  # it died: found below
                        pipe.send_bytes(pickle.dumps(parts[given]))
                    given += 1
                if turn in done:
                    break
                for pipe in cast(list[Connection], wait(list(busy))):
                    try:
                        done[busy.pop(pipe)] = pickle.loads(pipe.recv_bytes())
                    except (EOFError, ConnectionResetError):
                        raise UserError(_died(workers[pipe], what)) from None
            fine, value = done.pop(turn)
            if not fine:
                raise value
            yield value
    finally:
        for worker in workers.values():
            worker.terminate()
        for worker in workers.values():
            worker.join()


def _start(workers: dict[Connection, BaseProcess], function: Callable[..., Any], part: Any, count: int) -> None:
    """Add ``count`` workers, by this process's end of the pipe to each."""
    # forked from a server that never had threads: a fork of this process could inherit a lock that nobody will free
    context = multiprocessing.get_context("forkserver")
    inner = function.func if isinstance(function, functools.partial) else function
    context.set_forkserver_preload([__name__, inner.__module__])  # imported once, and its memory shared
    asked = pickle.dumps(function)
    own = b"__main__" in asked + pickle.dumps(part)
    with _interrupts_later(), nullcontext() if own else _without_main():
        for _ in range(count):
            here, there = context.Pipe()
            worker = context.Process(target=_work, args=(there, asked), daemon=True)
            worker.start()
            workers[here] = worker
            there.close()


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Processes started within never see Ctrl-C, which a terminal sends to all; this one sees it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes started within do not run the main script again: it may lack ``if __name__ == "__main__"``."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(pipe: Connection, asked: bytes) -> None:
    """A worker: answer each part with whether it went well, and the result or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    function = None
    with threadpool_limits(1), suppress(EOFError, OSError):  # no more parts: the parent is done, or dead
        while True:
            part = pipe.recv_bytes()
            try:
                function = function or pickle.loads(asked)
                answer = pickle.dumps((True, function(pickle.loads(part))))
            except Exception as error:
                error.add_note(f"in a worker process: {traceback.format_exc()}")
                answer = pickle.dumps((False, _portable(error)))
            pipe.send_bytes(answer)


def _end_with_parent() -> None:
    """A part may take long: do not finish it for nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error, or where it cannot be pickled one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return (
            UserError(str(error)) if isinstance(error, UserError) else RuntimeError(f"{type(error).__name__}: {error}")
        )
    return error


def _died(worker: BaseProcess, what: str) -> str:
    worker.join()
    code = worker.exitcode or 0
    how = f"was killed (signal {-code})" if code < 0 else f"ended (exit code {code})"
    return f"a worker process {how} while {what or 'computing'}: often for want of memory, which fewer processes need"
