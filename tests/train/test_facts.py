"""What a run was made of."""

import shlex
import subprocess

from hydra.core.hydra_config import HydraConfig

from gt.train.facts import command, commit
from gt.train.job import overrides
from tests.small_runs import configured


def test_a_commit_says_whether_the_code_was_changed_since(tmp_path):
    assert commit(tmp_path) is None
    (tmp_path / "a.py").write_text("1")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    clean = commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "b.py").write_text("what no commit knows does not count")
    assert commit(tmp_path) == clean
    (tmp_path / "a.py").write_text("2")
    assert commit(tmp_path) == clean + "+"


def test_the_command_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(tmp_path / "train.py")])
    monkeypatch.chdir(tmp_path)
    with configured(tmp_path, "name='a b'"):
        words = shlex.split(command())
        assert words[:2] == ["python", "train.py"]
        assert words[2:] == list(HydraConfig.get().overrides.task)
        assert words[-1] == "name='a b'"


def test_a_run_that_goes_on_is_known_by_how_it_began(tmp_path, monkeypatch):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- model=gin\n- optim.lr=0.1\n- +trainer.max_time=1\n")
    with configured(tmp_path, "optim.lr=0.2", f"resume={tmp_path}"):
        known = overrides()
    assert known[:3] == ["model=gin", "optim.lr=0.2", "+trainer.max_time=1"]
    assert not any(line.startswith("resume") for line in known)
    with configured(tmp_path, "optim.lr=0.2"):
        assert "model=gin" not in overrides()
