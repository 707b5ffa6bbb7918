"""``resume=auto`` resumes the right run, and no two processes work in the same folder."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gt.cli.command import prepare_arguments
from gt.cli.composing import compose_config, run_dir
from gt.cli.run_folders import FOLDER_OVERRIDES, unfinished_run
from gt.errors import UserError
from gt.train.job import SWEEP, in_use

ROOT = Path(__file__).parents[2]


def write_run(folder: Path, *command: str, saved: int | None = 1, finished: bool = False) -> Path:
    """Write what a run started by a command leaves behind; ``saved``: the time of its last checkpoint."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    OmegaConf.save(OmegaConf.create(list(command)), folder / ".hydra" / "overrides.yaml")
    OmegaConf.save(compose_config(command), folder / ".hydra" / "config.yaml")
    if saved is not None:
        path = folder / "checkpoints" / "last.ckpt"
        path.write_bytes(b"")
        os.utime(path, (saved, saved))
    if finished:
        (folder / "result.json").write_text("{}")
    return folder


@contextmanager
def working_process(folder: Path, fork: bool = False):
    """Another process that works in a folder; ``fork``: with a child that outlives it, as a loader worker may."""
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom gt.train.job import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        f"    child = os.fork() if {fork} else 0\n"
        "    if child or not {0}:\n        print(child, flush=True)\n    time.sleep(60)\n".format(fork)
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if child:
            os.kill(child, signal.SIGKILL)


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return tmp_path


def test_latest_unfinished_run_of_command_is_resumed(cwd):
    command = ["seed=3", "model=gcn"]
    assert unfinished_run(run_dir([]), command) is None
    day = cwd / "runs" / "2026-01-02"
    write_run(day / "10-00-00-gcn-tu", *command, saved=5)
    newer = write_run(day / "09-00-00-gcn-tu", *command, saved=6)
    other_seed = write_run(day / "11-00-00-gcn-tu", "seed=4", "model=gcn", saved=7)
    write_run(day / "12-00-00-gcn-tu", *command, saved=8, finished=True)
    write_run(day / "13-00-00-gcn-tu", *command, saved=None)
    locked = write_run(day / "14-00-00-gcn-tu", *command, saved=9)
    with working_process(locked):
        assert unfinished_run(run_dir([]), command[::-1]) == newer.relative_to(cwd)
        assert unfinished_run(run_dir([]), []) == other_seed.relative_to(cwd)
    assert unfinished_run(run_dir([]), command) == locked.relative_to(cwd)


@pytest.mark.parametrize("finished", [False, True])
def test_explicit_folder_is_resumed_or_started(finished, cwd, capsys):
    overrides = ["hydra.run.dir=mine", "seed=3"]
    assert prepare_arguments([*overrides, "resume=auto"]) == overrides
    assert "starting a new one" in capsys.readouterr().out
    write_run(cwd / "mine", "seed=3", finished=finished)
    arguments = prepare_arguments([*overrides, "resume=auto"])
    assert {"resume=mine", "hydra.run.dir=mine"} <= {*arguments}
    assert "continuing the run in mine" in capsys.readouterr().out
    with pytest.raises(UserError, match="mine already holds a run"):
        prepare_arguments(["hydra.run.dir=mine", "seed=4", "resume=auto"])


def test_folder_is_locked_until_process_ends(cwd):
    run = write_run(cwd / "mine")
    assert not in_use(run)
    with working_process(run, fork=True) as process:
        assert in_use(run)
        with pytest.raises(UserError, match="another process is working in mine"):
            prepare_arguments(["resume=mine"])
        with pytest.MonkeyPatch.context() as patch:  # the second process of a run started by torchrun
            patch.setenv("TORCHELASTIC_RUN_ID", "1")
            patch.setenv("RANK", "1")
            assert "resume=mine" in prepare_arguments(["hydra.run.dir=mine", "resume=auto"])
        process.kill()
        process.wait()
        assert not in_use(run)


@pytest.mark.parametrize("sweep", [["-m", "seed=1,2"], ["seeds=3"], ["sweep=optuna", "optim.lr=1,2"]])
def test_same_command_starts_and_resumes_sweep(sweep, tmp_path):
    folder = tmp_path / "sweep"
    overrides = [*sweep, f"hydra.sweep.dir={folder}", "resume=auto"]
    first = prepare_arguments(overrides)
    assert f"{FOLDER_OVERRIDES[1]}true" in first
    folder.mkdir()
    (folder / SWEEP).write_text(
        json.dumps({"arguments": [argument for argument in first if not argument.startswith(FOLDER_OVERRIDES)]})
    )
    assert prepare_arguments(overrides) == first
    with pytest.raises(UserError, match=f"other settings: continue it with resume={folder}"):
        prepare_arguments([*overrides, "model.depth=2"])
    for folder_option in ([], ["hydra.sweep.dir=sweeps/${now:%H-%M}"]):
        with pytest.raises(UserError, match=r"add hydra\.sweep\.dir=FOLDER"):
            prepare_arguments([*sweep, "resume=auto", *folder_option])
