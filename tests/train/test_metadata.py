"""Metadata of a run: the git commit, the command and the overrides."""

import shlex
import subprocess

from hydra.core.hydra_config import HydraConfig

from gt.train.job import overrides
from gt.train.metadata import command, commit
from tests.small_runs import configured


def test_commit_marks_uncommitted_changes(tmp_path):
    assert commit(tmp_path) is None
    (tmp_path / "a.py").write_text("1")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True)
    clean = commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "b.py").write_text("what no commit knows does not count")
    assert commit(tmp_path) == clean
    (tmp_path / "a.py").write_text("2")
    assert commit(tmp_path) == clean + "+"


def test_command_is_quoted_for_the_shell(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(tmp_path / "train.py")])
    monkeypatch.chdir(tmp_path)
    with configured(tmp_path, "name='a b'"):
        arguments = shlex.split(command())
        assert arguments[:2] == ["python", "train.py"]
        assert arguments[2:] == list(HydraConfig.get().overrides.task)
        assert arguments[-1] == "name='a b'"


def test_resumed_run_keeps_its_original_overrides(tmp_path, monkeypatch):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- model=gin\n- optim.lr=0.1\n- +trainer.max_time=1\n")
    with configured(tmp_path, "optim.lr=0.2", f"resume={tmp_path}"):
        found = overrides()
    assert found[:3] == ["model=gin", "optim.lr=0.2", "+trainer.max_time=1"]
    assert not any(line.startswith("resume") for line in found)
    with configured(tmp_path, "optim.lr=0.2"):
        assert "model=gin" not in overrides()
