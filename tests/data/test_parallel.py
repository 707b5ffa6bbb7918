"""`parallel_map`: order of results, bounded look-ahead, errors, and no processes left behind."""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gt.data.parallel import cpus, parallel_map
from gt.errors import UserError
from tests.data import parallel_work as work

ROOT = Path(__file__).parents[2]


def has_ended(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def wait_until(condition: object, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.05)
    return bool(condition())  # type: ignore[operator]


@pytest.mark.parametrize("processes", [1, 2, 3, None])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_results_keep_the_order_of_inputs(processes: int | None, count: int) -> None:
    assert list(parallel_map(work.square, range(count), processes)) == [n * n for n in range(count)]
    assert not multiprocessing.active_children()


def test_single_process_runs_in_the_caller() -> None:
    assert set(parallel_map(work.pid, range(4), 1)) == {os.getpid()}
    assert set(parallel_map(work.pid, [0], 4)) == {os.getpid()}
    assert list(parallel_map(lambda n: n + 1, range(3), 1)) == [1, 2, 3]
    assert os.getpid() not in set(parallel_map(work.pid, range(4), 2))
    assert list(parallel_map(work.nested, [1, 3], 2)) == [[1, 4], [9, 16]]
    assert cpus() >= 1


@pytest.mark.parametrize("processes", [1, 2])
def test_look_ahead_is_bounded(processes: int, tmp_path: Path) -> None:
    results = parallel_map(functools.partial(work.record, tmp_path), range(30), processes)
    assert not any(tmp_path.iterdir())  # lazy: nothing runs before the first result is requested
    for taken in range(1, 10):
        assert next(results) == taken - 1
        time.sleep(0.1)
        assert taken <= len(list(tmp_path.iterdir())) <= taken + 2 * processes
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("error", [UserError("row 3 is wrong"), KeyError("colour"), FileNotFoundError(2, "No", "x")])
def test_errors_are_raised_in_order_with_their_location(error: Exception) -> None:
    results = parallel_map(work.raise_error, [None, None, error, None], 2)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(type(error)) as raised:
        next(results)
    assert str(raised.value) == str(error)
    assert raised.value.args == error.args
    assert any("parallel_work.py" in note for note in raised.value.__notes__)  # the location in the worker
    assert not multiprocessing.active_children()


def test_unpicklable_errors_and_results() -> None:
    with pytest.raises(RuntimeError, match=r"^Odd: row 7 is odd$"):
        list(parallel_map(work.raise_with_arguments, [work.Odd, work.Odd], 2))
    with pytest.raises(UserError, match=r"^row 7 is odd$"):
        list(parallel_map(work.raise_with_arguments, [work.OddUserError, work.OddUserError], 2))
    with pytest.raises(Exception, match="pickle"):
        list(parallel_map(work.return_unpicklable, [0, 1], 2))
    assert not multiprocessing.active_children()


def test_killed_worker_is_reported() -> None:
    with pytest.raises(UserError, match="killed while reading molecules"):
        list(parallel_map(work.kill_itself, range(9), 2, "reading molecules"))
    assert not multiprocessing.active_children()


def test_each_worker_has_one_thread() -> None:
    for torch_threads, pool_threads in parallel_map(work.thread_counts, range(2), 2):
        assert torch_threads == 1
        assert pool_threads <= {1}


def test_progress_bar_needs_a_label(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(parallel_map(work.square, range(3), 1)) == [0, 1, 4]
    assert capsys.readouterr().out == ""
    assert list(parallel_map(work.square, range(3), 1, "counting")) == [0, 1, 4]
    output = capsys.readouterr().out
    assert "counting" in output
    assert "100%" in output


SCRIPT = """
import sys
from gt.errors import one_line
from gt.data.parallel import parallel_map
from tests.data.parallel_work import endless

with one_line():  # the script needs no guard against being imported by its workers
    list(parallel_map(endless, range(1, 5), 2))
"""


@pytest.fixture(scope="module")
def programs(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[tuple[subprocess.Popen[str], list[int]]]]:
    """Two programs, each with the process ids of its workers, which never end by themselves."""
    script = tmp_path_factory.mktemp("script") / "script.py"
    script.write_text(SCRIPT)
    started = [
        subprocess.Popen(
            [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        yield [(each, [int(each.stdout.readline()) for _ in range(2)]) for each in started if each.stdout]
    finally:
        for each in started:
            os.killpg(each.pid, signal.SIGKILL) if each.poll() is None else None
            each.communicate()


def test_interrupt_ends_workers_quietly(programs: list[tuple[subprocess.Popen[str], list[int]]]) -> None:
    program, workers = programs[0]
    os.killpg(program.pid, signal.SIGINT)  # to the whole group, as a terminal does
    _, stderr = program.communicate(timeout=30)
    assert stderr == "interrupted\n"
    assert program.returncode == 130
    assert all(map(has_ended, workers))


def test_killed_program_leaves_no_workers(programs: list[tuple[subprocess.Popen[str], list[int]]]) -> None:
    program, workers = programs[1]
    assert not any(map(has_ended, workers))
    program.kill()
    assert wait_until(lambda: all(map(has_ended, workers)))
