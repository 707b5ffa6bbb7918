"""Every invalid command line or file that it names: an error in one line, quickly, and no process left running.

Quickly means within five seconds of CPU time, including imports and exit: one program runs at a time, on one thread, so
on an idle core this is wall-clock time.
"""

import importlib
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import train
from gt.errors import one_line
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture
from tests.command_lines import Line, write_files, wrong_lines

ROOT = Path(train.__file__).parent
MAX_SECONDS = 5  # seconds of CPU time
TABLE = wrong_lines()
MODULES = {"gt.predict": "gt.predict", "gt.diagnose": "gt.diagnose", "gt.generate": "gt.generate",
           "gt.spectrum": "gt.spectrum", "gt.lottery": "gt.lottery.__main__", "gt.puzzles": "gt.puzzles.__main__",
           "gt.demo": "gt.demo", "gt.data": "gt.data.__main__"}  # fmt: skip


def run_in_process(line: Line) -> int:
    """Run a program in this process; returns its exit code."""
    program, arguments = line
    sys.argv[:] = [program, *arguments]
    GlobalHydra.instance().clear()
    try:
        if program == "train":
            train.command()
            return 0
        with one_line():
            module = importlib.import_module(MODULES[program])
            module.main(arguments) if program in ("gt.predict", "gt.diagnose", "gt.spectrum") else module.main()
    except SystemExit as end:
        return end.code
    return 0


def find_fault(code: int, err: str) -> str | None:
    """Describe what is wrong with the exit code and stderr of a program; None if nothing is."""
    lines = [line for line in err.splitlines() if line.strip()]
    if code == 0:
        return "went through"
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return f"said {len(lines)} lines: {err[:500]}"
    if "the traceback is in" in err:
        return f"took it for a bug: {err}"
    return None


def test_table_is_large_and_covers_every_program():
    assert len(TABLE) >= 150
    assert {program for program, _ in TABLE} == {"train", *MODULES}


def test_every_tenth_wrong_line_is_reported_in_one_line(tmp_path, monkeypatch, capsys):
    """In this process, which has done its imports; the slow test runs all lines as programs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", sys.path[:])
    write_files(tmp_path)
    threads, faults, slow = torch.get_num_threads(), {}, {}
    for program, arguments in TABLE[::10]:
        start = time.process_time()
        code = run_in_process((program, arguments))
        words, seconds = f"{program} {' '.join(arguments)}", time.process_time() - start
        if fault := find_fault(code, capsys.readouterr().err):
            faults[words] = fault
        if seconds >= MAX_SECONDS:
            slow[words] = seconds
        shutil.rmtree("run", ignore_errors=True)  # otherwise the next line would have to resume it
    torch.set_num_threads(threads)
    assert faults == {}
    assert slow == {}


def child_processes() -> set[str]:
    """Ids of the processes started by this test."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if b"GT_WRONG_COMMAND=1" in path.read_bytes():
                found.add(path.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_every_wrong_line_is_reported_by_the_program(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    environment |= {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "GT_WRONG_COMMAND": "1"}

    def run(number: int, tries: int = 3) -> tuple[str, str | None, float]:
        """A line, its fault, and the CPU time; slow ones are repeated, as other processes slow a core down."""
        program, arguments = TABLE[number]
        folder = tmp_path / f"{number}.{tries}"
        folder.mkdir()
        write_files(folder)
        command = [str(ROOT / "train.py")] if program == "train" else ["-m", program]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.run(
            [sys.executable, *command, *arguments], cwd=folder, env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if seconds >= MAX_SECONDS and tries > 1:
            return run(number, tries - 1)
        return f"{program} {' '.join(arguments)}", find_fault(process.returncode, process.stderr), seconds

    results = [run(number) for number in range(len(TABLE))]
    slowest = sorted(results, key=lambda result: -result[2])[:3]
    print(f"{len(results)} lines; slowest {slowest}; left behind {child_processes()}")
    assert {line: fault for line, fault, _ in results if fault} == {}
    assert child_processes() == set()
    # last, as a slow machine fails here
    assert {line: seconds for line, _, seconds in results if seconds >= MAX_SECONDS} == {}
