"""Whatever is wrong on a command line or in the file that it names: one line, soon, and nothing left running.

Soon is five seconds of a processor, those of imports and of the exit included: one program runs at a time, with one
thread, and an idle core takes as many on a clock.
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
from tests.cli.test_sweep import own_logging  # noqa: F401  a fixture
from tests.command_lines import Line, write_files, wrong_lines

ROOT = Path(train.__file__).parent
SOON = 5  # seconds of a processor
TABLE = wrong_lines()
MODULES = {"gt.predict": "gt.predict", "gt.diagnose": "gt.diagnose", "gt.generate": "gt.generate",
           "gt.spectrum": "gt.spectrum", "gt.lottery": "gt.lottery.__main__", "gt.puzzles": "gt.puzzles.__main__",
           "gt.demo": "gt.demo", "gt.data": "gt.data.__main__"}  # fmt: skip


def called(line: Line) -> int:
    """The exit code of a program that runs in this process."""
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


def fault(code: int, err: str) -> str | None:
    """What is wrong with how a program ended, or None."""
    lines = [line for line in err.splitlines() if line.strip()]
    if code == 0:
        return "went through"
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return f"said {len(lines)} lines: {err[:500]}"
    if "the traceback is in" in err:
        return f"took it for a bug: {err}"
    return None


def test_the_table_is_large_and_names_every_kind_of_mistake():
    assert len(TABLE) >= 150
    assert {program for program, _ in TABLE} == {"train", *MODULES}


def test_every_tenth_wrong_line_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    """In this process, whose imports are paid for; all of them are run by the long test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", sys.path[:])
    write_files(tmp_path)
    threads, faults, slow = torch.get_num_threads(), {}, {}
    for program, arguments in TABLE[::10]:
        began = time.process_time()
        code = called((program, arguments))
        words, seconds = f"{program} {' '.join(arguments)}", time.process_time() - began
        if wrong := fault(code, capsys.readouterr().err):
            faults[words] = wrong
        if seconds >= SOON:
            slow[words] = seconds
        shutil.rmtree("run", ignore_errors=True)  # which the next line would have to go on with
    torch.set_num_threads(threads)
    assert faults == {}
    assert slow == {}


def children() -> set[str]:
    """Processes that name this folder's programs."""
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
def test_every_wrong_line_ends_as_a_program(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    environment |= {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "GT_WRONG_COMMAND": "1"}

    def run(number: int, tries: int = 3) -> tuple[str, str | None, float]:
        """What is wrong with how a line ended, and the seconds of its quickest try: neighbours slow a core down."""
        program, arguments = TABLE[number]
        folder = tmp_path / f"{number}.{tries}"
        folder.mkdir()
        write_files(folder)
        command = [str(ROOT / "train.py")] if program == "train" else ["-m", program]
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, *command, *arguments], cwd=folder, env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
        if seconds >= SOON and tries > 1:
            return run(number, tries - 1)
        return f"{program} {' '.join(arguments)}", fault(done.returncode, done.stderr), seconds

    results = [run(number) for number in range(len(TABLE))]
    slowest = sorted(results, key=lambda result: -result[2])[:3]
    print(f"{len(results)} lines; slowest {slowest}; left behind {children()}")
    assert {line: wrong for line, wrong, _ in results if wrong} == {}
    assert children() == set()
    assert {line: seconds for line, _, seconds in results if seconds >= SOON} == {}  # last: a slow machine fails here
