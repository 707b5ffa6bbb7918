"""The examples of CONTRIBUTING.md, run as printed there in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import train
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture
from tests.small_runs import write_graphs

ROOT = Path(__file__).parents[2]
SECTIONS = re.split(r"^### ", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)[1:]
SECTIONS[-1] = SECTIONS[-1].partition("\n## ")[0]
SHORT = ["model.width=32", "model.depth=1", "logger=csv", "trainer=cpu", "trainer.max_epochs=1"]


def files(section: str) -> dict[str, str]:
    """The files of a section by name, which a comment at the top of each gives."""
    blocks = re.findall(r"^```(?:python|yaml)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    return {re.findall(r"^# ([\w./]+)$", text, flags=re.MULTILINE)[0]: text for text in blocks}


def commands(section: str) -> list[list[str]]:
    """The arguments of each ``python train.py`` in a section."""
    return [shlex.split(line) for line in re.findall(r"^python train\.py (.*)$", section, flags=re.MULTILINE)]


def write_files(section: str, folder: Path) -> None:
    for name, text in files(section).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("section", SECTIONS, ids=[section.partition("\n")[0] for section in SECTIONS])
def test_commands_train(section, tmp_path, monkeypatch):
    write_files(section, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert commands(section)
    for number, arguments in enumerate(commands(section)):
        data = ["data=graph_files", *write_graphs(tmp_path, train=16, valid=8, test=8)]
        if "data.task=returns" in arguments:  # on fewer files than the standard library
            data = [f"data.path={ROOT / 'gt' / 'data' / 'own'}"]
        elif any(word.startswith("data") for word in arguments):
            data = []
        small = [] if any(word.startswith("encoding=") for word in arguments) else ["encoding=none"]
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments, *data, *small, *SHORT, f"hydra.run.dir=run{number}"])
        train.command()
        assert (tmp_path / f"run{number}" / "result.json").is_file()
    for name in files(section):
        sys.modules.pop(name.removesuffix(".py"), None)


def test_example_tests_pass(tmp_path):
    for section in SECTIONS:
        write_files(section, tmp_path)
        assert any(name.startswith("test_") for name in files(section))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    assert f"{len(SECTIONS)} passed" in result.stdout
