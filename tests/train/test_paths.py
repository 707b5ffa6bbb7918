"""Relative paths in a configuration: a run can be resumed, and predict, from any folder."""

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import gt.predict
import train
from gt.train.paths import anchor
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture


def test_only_relative_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = OmegaConf.create(
        {
            "path": "some/*.txt", "root": "data", "valid_path": "v.csv", "tokenizer": None, "name": "path", "size": 3,
            "test_path": "~/t.csv", "dataset": {"root": "${..root}", "path": "/there", "list": [{"path": "deep"}]},
            "needed_path": "???", "data_path": "",
        }
    )  # fmt: skip
    anchor(cfg)
    here = str(Path.cwd())
    assert cfg.path == f"{here}/some/*.txt"
    assert (cfg.root, cfg.dataset.root, cfg.valid_path) == (f"{here}/data", f"{here}/data", f"{here}/v.csv")
    assert (cfg.dataset.path, cfg.dataset.list[0].path, cfg.test_path) == ("/there", f"{here}/deep", "~/t.csv")
    assert (cfg.name, cfg.size, cfg.tokenizer, cfg.data_path) == ("path", 3, None, "")
    assert OmegaConf.is_missing(cfg, "needed_path")


def test_run_resumes_and_predicts_from_another_folder(tmp_path, monkeypatch, capsys):
    original, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (original, elsewhere):
        folder.mkdir()
    (original / "input.txt").write_text("".join(f"{a} and {b} make {a + b};\n" for a in range(9) for b in range(9)))
    monkeypatch.chdir(original)
    options = ["data=text", "data.path=input.txt", "data.context=8", "model.width=8", "model.depth=1", "logger=csv",
               "model.block.attention.heads=1", "trainer=cpu", "debug=smoke", "hydra.run.dir=run"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train.py", *options])
    train.command()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "argv", ["train.py", f"resume={original / 'run'}", "trainer.max_epochs=2"])
    train.command()
    gt.predict.main([str(original / "run"), "--split", "valid"])
    assert str(original / "run" / "predictions-valid.csv") in capsys.readouterr().out
    assert [path.name for path in elsewhere.iterdir()] == []
    log = (original / "run" / "train.log").read_text()
    assert log.count("test metric") + log.count("valid metric") == 2


@pytest.mark.parametrize("sweep", [False, True])
def test_saved_configuration_has_absolute_paths(sweep, tmp_path, monkeypatch):
    import gt.train.run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "input.txt").write_text("some text")
    seen = []
    monkeypatch.setattr(gt.train.run, "run", lambda cfg: seen.append(cfg.data.source.path))
    folder = ["-m", "seed=1,2", "hydra.sweep.dir=sweep"] if sweep else ["hydra.run.dir=sweep/0"]
    monkeypatch.setattr(sys, "argv", ["train.py", "data=text", "data.path=input.txt", *folder])
    train.command()
    assert set(seen) == {str(tmp_path / "input.txt")}
    saved = OmegaConf.load(tmp_path / "sweep" / "0" / ".hydra" / "config.yaml")
    assert (saved.data.source.path, saved.data.source.root) == (str(tmp_path / "input.txt"), str(tmp_path / "data"))
    assert OmegaConf.is_interpolation(saved.data, "seed")
