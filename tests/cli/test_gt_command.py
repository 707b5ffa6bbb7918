"""``gt PROGRAM``: every program by one word, with completion that shells understand; and ``gt doctor``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gt import __main__ as command
from gt.errors import UserError

ROOT = Path(command.__file__).parents[1]


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """A ``gt`` as an installation makes it."""
    script = tmp_path / "bin" / "gt"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m gt "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)


def test_every_program_is_listed_with_what_it_does(capsys):
    command.main(["--help"])
    said = capsys.readouterr().out
    for name in ("train", "predict", "generate", "data", "spectrum", "puzzles", "lottery", "bench", "runs", "doctor"):
        (line,) = [line for line in said.splitlines() if line.startswith(f"  {name} ")]
        assert len(line) > len(name) + 12
        assert "``" not in line


def test_a_typo_names_what_is_alike():
    with pytest.raises(UserError, match="'predict'"):
        command.main(["predcit"])
    with pytest.raises(UserError, match="bash"):
        command.main(["--completion", "fish"])


def test_a_program_runs_under_its_name(on_path):
    done = subprocess.run(["gt", "runs", "nowhere"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    done = subprocess.run(["gt", "train", "modle=gps"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'model'" in done.stderr


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
def test_completions(words, completed):
    assert command.completions(words) == completed


def test_bash_completes(on_path):
    script = f"""{command.SHELLS["bash"]}
COMP_WORDS=(gt train model=gps_h); COMP_CWORD=2; _gt; echo "${{COMPREPLY[@]}}"
COMP_WORDS=(gt doc); COMP_CWORD=1; _gt; echo "${{COMPREPLY[@]}}"
complete -p gt"""
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    first, second, third = done.stdout.splitlines()
    assert (first, second) == ("model=gps_hops", "doctor")
    assert "_gt" in third


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completes(on_path):
    script = f"""compdef() {{ :; }}; compadd() {{ print -l -- "${{@[5,-1]}}"; }}
functions[compdef]=':'
{command.SHELLS["zsh"]}
words=(gt train model=gps_h); CURRENT=3; _gt
words=(gt doc); CURRENT=2; _gt"""
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["model=gps_hops", "doctor"]


def test_doctor_tells_of_this_machine(tmp_path):
    words = [sys.executable, "-m", "gt.doctor"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    rows = {line[:18].strip(): line[18:].strip() for line in done.stdout.splitlines()}
    assert rows["dense on cpu"] == "yes"
    assert rows["flash on cpu"].startswith("no: ")
    assert str(tmp_path) in rows["runs"]
    assert "cores" in rows["processor"]
