"""Work over processes: in order, bounded, honest about errors, and nothing is left running."""

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


def gone(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def soon(true: object, seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:  # type: ignore[operator]
        time.sleep(0.05)
    return bool(true())  # type: ignore[operator]


@pytest.mark.parametrize("processes", [1, 2, 3, None])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_results_come_in_the_order_of_the_parts(processes: int | None, count: int) -> None:
    assert list(parallel_map(work.square, range(count), processes)) == [n * n for n in range(count)]
    assert not multiprocessing.active_children()


def test_one_process_is_this_one() -> None:
    assert set(parallel_map(work.pid, range(4), 1)) == {os.getpid()}
    assert set(parallel_map(work.pid, [0], 4)) == {os.getpid()}
    assert list(parallel_map(lambda n: n + 1, range(3), 1)) == [1, 2, 3]
    assert os.getpid() not in set(parallel_map(work.pid, range(4), 2))
    assert list(parallel_map(work.nested, [1, 3], 2)) == [[1, 4], [9, 16]]
    assert cpus() >= 1


@pytest.mark.parametrize("processes", [1, 2])
def test_only_a_few_results_wait(processes: int, tmp_path: Path) -> None:
    results = parallel_map(functools.partial(work.noted, tmp_path), range(30), processes)
    assert not any(tmp_path.iterdir())  # nothing is done until it is asked for
    for taken in range(1, 10):
        assert next(results) == taken - 1
        time.sleep(0.1)
        assert taken <= len(list(tmp_path.iterdir())) <= taken + 2 * processes
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("error", [UserError("row 3 is wrong"), KeyError("colour"), FileNotFoundError(2, "No", "x")])
def test_errors_are_those_of_the_work_on_their_turn(error: Exception) -> None:
    results = parallel_map(work.fail, [None, None, error, None], 2)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(type(error)) as raised:
        next(results)
    assert str(raised.value) == str(error)
    assert raised.value.args == error.args
    assert any("parallel_work.py" in note for note in raised.value.__notes__)  # where in the worker
    assert not multiprocessing.active_children()


def test_errors_and_results_that_cannot_be_pickled() -> None:
    with pytest.raises(RuntimeError, match=r"^Odd: row 7 is odd$"):
        list(parallel_map(work.fail_oddly, [work.Odd, work.Odd], 2))
    with pytest.raises(UserError, match=r"^row 7 is odd$"):
        list(parallel_map(work.fail_oddly, [work.OddUserError, work.OddUserError], 2))
    with pytest.raises(Exception, match="pickle"):
        list(parallel_map(work.give_what_cannot_be_pickled, [0, 1], 2))
    assert not multiprocessing.active_children()


def test_a_worker_that_was_killed_is_said() -> None:
    with pytest.raises(UserError, match="killed while reading molecules"):
        list(parallel_map(work.die, range(9), 2, "reading molecules"))
    assert not multiprocessing.active_children()


def test_each_worker_has_one_thread() -> None:
    for torchs, pools in parallel_map(work.threads, range(2), 2):
        assert torchs == 1
        assert pools <= {1}


def test_a_bar_where_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(parallel_map(work.square, range(3), 1)) == [0, 1, 4]
    assert capsys.readouterr().out == ""
    assert list(parallel_map(work.square, range(3), 1, "counting")) == [0, 1, 4]
    said = capsys.readouterr().out
    assert "counting" in said
    assert "100%" in said


SCRIPT = """
import sys
from gt.errors import one_line
from gt.data.parallel import parallel_map
from tests.data.parallel_work import endless

with one_line():  # this script has no guard against being imported by its workers, and needs none
    list(parallel_map(endless, range(1, 5), 2))
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[subprocess.Popen[str], list[int]]]]:
    """Two programs, and the workers of each, which never end by themselves."""
    script = tmp_path_factory.mktemp("script") / "script.py"
    script.write_text(SCRIPT)
    programs = [
        subprocess.Popen(
            [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        yield [(each, [int(each.stdout.readline()) for _ in range(2)]) for each in programs if each.stdout]
    finally:
        for each in programs:
            os.killpg(each.pid, signal.SIGKILL) if each.poll() is None else None
            each.communicate()


def test_an_interrupt_ends_the_workers_quietly(running: list[tuple[subprocess.Popen[str], list[int]]]) -> None:
    program, workers = running[0]
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, said = program.communicate(timeout=30)
    assert said == "interrupted\n"
    assert program.returncode == 130
    assert all(map(gone, workers))


def test_a_killed_program_leaves_no_worker(running: list[tuple[subprocess.Popen[str], list[int]]]) -> None:
    program, workers = running[1]
    assert not any(map(gone, workers))
    program.kill()
    assert soon(lambda: all(map(gone, workers)))
