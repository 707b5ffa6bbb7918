"""The log of a run: it reads as the screen does in the end."""

import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console
from rich.progress import Progress

from gt.train.transcript import Copied, transcript


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def log_of(text: str, stream: io.StringIO) -> str:
    log = io.StringIO()
    copy = Copied(stream, log)
    copy.write(text)
    copy.close_copy()
    assert stream.getvalue() == text
    return log.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("", ""),
        ("one\ntwo\n", "one\ntwo\n"),
        ("no end", "no end\n"),
        ("\nspace\n\nbelow\n", "\nspace\n\nbelow\n"),
        ("10 %\r50 %\rdone\n", "done\n"),
        ("\x1b[31mred\x1b[0m and \x1b[1;32mgreen\x1b[m\n", "red and green\n"),
        ("bar\n\x1b[1A\x1b[2Kdone\n", "done\n"),
        ("".join(f"line {n}\n" for n in range(30)), "".join(f"line {n}\n" for n in range(30))),
    ],
)
def test_control_codes_are_applied(text, logged, stream):
    assert log_of(text, stream()) == logged


def test_transient_progress_bars_are_not_logged():
    terminal, log = Terminal(), io.StringIO()
    copy = Copied(terminal, log)
    console = Console(file=copy, force_terminal=True, width=60)
    print("before", file=copy)
    with Progress(console=console, transient=True, auto_refresh=False) as bars:
        first, second = bars.add_task("epoch", total=3), bars.add_task("validation", total=3)
        for step in range(3):
            bars.advance(first)
            bars.advance(second)
            bars.refresh()
            console.print(f"step {step} is done")
    print("after", file=copy)
    copy.close_copy()
    assert "epoch" in terminal.getvalue()
    assert log.getvalue().split("\n") == ["before", *(f"step {n} is done" for n in range(3)), "after", ""]


def test_both_streams_and_the_command_are_logged(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "name=two words"])
    log = tmp_path / "train.log"
    for end in ("a", "b"):
        with pytest.raises(SystemExit), transcript(log):
            sys.exit(print(f"out {end}") or print(f"err {end}", file=sys.stderr) or 1)
    print("later")
    lines = log.read_text().splitlines()
    assert [line for line in lines if "$" not in line] == ["out a", "err a", "out b", "err b"]
    assert sum(line.endswith("python train.py 'name=two words'") for line in lines) == 2
    captured = capsys.readouterr()
    assert captured.out == "out a\nout b\nlater\n"
    assert captured.err == "err a\nerr b\n"


def test_lines_are_logged_immediately(tmp_path):
    with transcript(tmp_path / "train.log"):
        print("now")
        assert (tmp_path / "train.log").read_text().splitlines()[-1] == "now"


class SlowLog(io.StringIO):
    """A log that lets other threads run in the middle of a line."""

    def write(self, text: str) -> int:
        time.sleep(0.001)
        return super().write(text)


def test_lines_of_several_threads_are_logged_once():
    log = SlowLog()
    copy = Copied(io.StringIO(), log)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(copy.write, [f"line {n}\n" for n in range(100)]))
    assert sorted(log.getvalue().splitlines()) == sorted(f"line {n}" for n in range(100))


class BrokenPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_broken_pipe_does_not_stop_the_run():
    log = io.StringIO()
    copy = Copied(BrokenPipe(), log)
    print("unread", file=copy, flush=True)
    copy.close_copy()
    assert log.getvalue() == "unread\n"
