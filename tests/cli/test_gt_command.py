"""``gt PROGRAM``: the list of programs, shell completion, and ``gt doctor``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gt import __main__ as gt_main
from gt.errors import UserError

ROOT = Path(gt_main.__file__).parents[1]


@pytest.fixture
def gt_on_path(tmp_path, monkeypatch):
    """A ``gt`` script as an installation creates it, on the PATH."""
    script = tmp_path / "bin" / "gt"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m gt "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)


def test_help_lists_every_program_with_a_description(capsys):
    gt_main.main(["--help"])
    output = capsys.readouterr().out
    for name in ("train", "predict", "generate", "data", "spectrum", "puzzles", "lottery", "bench", "runs", "doctor"):
        (line,) = [line for line in output.splitlines() if line.startswith(f"  {name} ")]
        assert len(line) > len(name) + 12
        assert "``" not in line


def test_typo_gets_the_nearest_name():
    with pytest.raises(UserError, match="'predict'"):
        gt_main.main(["predcit"])
    with pytest.raises(UserError, match="bash"):
        gt_main.main(["--completion", "fish"])


def test_programs_run_as_subcommands(gt_on_path):
    process = subprocess.run(["gt", "runs", "nowhere"], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "nowhere" in process.stderr
    process = subprocess.run(["gt", "train", "modle=gps"], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "'model'" in process.stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["pred"], ["predict"]),
        (["train", "model/l"], ["model/local="]),
        (["train", "model=gps_h"], ["model=gps_hops"]),
        (["train", "a=b", "encoding=[rrwp,rw"], ["encoding=[rrwp,rwse"]),
        (["train", "model=gps,gps_h"], ["model=gps,gps_hops"]),
        (["train", "model=gps_"], ["model=gps_hops", "model=gps_performer"]),
        (["train", "nothing=here"], []),
    ],
)
def test_completions_of_programs_groups_and_options(words, completed):
    assert gt_main.completions(words) == completed


def test_bash_completion(gt_on_path):
    script = f"""{gt_main.SHELLS["bash"]}
COMP_WORDS=(gt train model=gps_h); COMP_CWORD=2; _gt; echo "${{COMPREPLY[@]}}"
COMP_WORDS=(gt doc); COMP_CWORD=1; _gt; echo "${{COMPREPLY[@]}}"
complete -p gt"""
    process = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    first, second, third = process.stdout.splitlines()
    assert (first, second) == ("model=gps_hops", "doctor")
    assert "_gt" in third


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completion(gt_on_path):
    script = f"""compdef() {{ :; }}; compadd() {{ print -l -- "${{@[5,-1]}}"; }}
functions[compdef]=':'
{gt_main.SHELLS["zsh"]}
words=(gt train model=gps_h); CURRENT=3; _gt
words=(gt doc); CURRENT=2; _gt"""
    process = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["model=gps_hops", "doctor"]


def test_doctor_reports_on_this_machine(tmp_path):
    command = [sys.executable, "-m", "gt.doctor"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    process = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    rows = {line[:18].strip(): line[18:].strip() for line in process.stdout.splitlines()}
    assert rows["dense on cpu"] == "yes"
    assert rows["flash on cpu"].startswith("no: ")
    assert str(tmp_path) in rows["runs"]
    assert "cores" in rows["processor"]
