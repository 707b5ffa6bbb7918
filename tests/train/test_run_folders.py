"""``resume=auto`` goes on with the right run, and no two processes are at work in one folder."""

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


def run_of(folder: Path, *command: str, saved: int | None = 1, finished: bool = False) -> Path:
    """What a run leaves that began by a command; ``saved``: when its last checkpoint was."""
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
def at_work(folder: Path, fork: bool = False):
    """Another process in a folder; ``fork``: with a child, as a loader's, that lives on."""
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
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return tmp_path


def test_the_run_of_this_command_that_trained_last_and_did_not_finish(here):
    command = ["seed=3", "model=gcn"]
    assert unfinished_run(run_dir([]), command) is None
    day = here / "runs" / "2026-01-02"
    run_of(day / "10-00-00-gcn-tu", *command, saved=5)
    newer = run_of(day / "09-00-00-gcn-tu", *command, saved=6)
    other = run_of(day / "11-00-00-gcn-tu", "seed=4", "model=gcn", saved=7)
    run_of(day / "12-00-00-gcn-tu", *command, saved=8, finished=True)
    run_of(day / "13-00-00-gcn-tu", *command, saved=None)
    busy = run_of(day / "14-00-00-gcn-tu", *command, saved=9)
    with at_work(busy):
        assert unfinished_run(run_dir([]), command[::-1]) == newer.relative_to(here)
        assert unfinished_run(run_dir([]), []) == other.relative_to(here)
    assert unfinished_run(run_dir([]), command) == busy.relative_to(here)


@pytest.mark.parametrize("finished", [False, True])
def test_a_folder_of_its_own_is_gone_on_with_or_begun(finished, here, capsys):
    words = ["hydra.run.dir=mine", "seed=3"]
    assert prepare_arguments([*words, "resume=auto"]) == words
    assert "starting a new one" in capsys.readouterr().out
    run_of(here / "mine", "seed=3", finished=finished)
    arguments = prepare_arguments([*words, "resume=auto"])
    assert {"resume=mine", "hydra.run.dir=mine"} <= {*arguments}
    assert "continuing the run in mine" in capsys.readouterr().out
    with pytest.raises(UserError, match="mine already holds a run"):
        prepare_arguments(["hydra.run.dir=mine", "seed=4", "resume=auto"])


def test_a_process_keeps_others_out_until_it_ends_however_it_does(here):
    run = run_of(here / "mine")
    assert not in_use(run)
    with at_work(run, fork=True) as process:
        assert in_use(run)
        with pytest.raises(UserError, match="another process is working in mine"):
            prepare_arguments(["resume=mine"])
        with pytest.MonkeyPatch.context() as patch:  # the second process of a run that torchrun has started
            patch.setenv("TORCHELASTIC_RUN_ID", "1")
            patch.setenv("RANK", "1")
            assert "resume=mine" in prepare_arguments(["hydra.run.dir=mine", "resume=auto"])
        process.kill()
        process.wait()
        assert not in_use(run)


@pytest.mark.parametrize("sweep", [["-m", "seed=1,2"], ["seeds=3"], ["sweep=optuna", "optim.lr=1,2"]])
def test_one_command_begins_a_sweep_and_goes_on_with_it(sweep, tmp_path):
    folder = tmp_path / "sweep"
    words = [*sweep, f"hydra.sweep.dir={folder}", "resume=auto"]
    first = prepare_arguments(words)
    assert f"{FOLDER_OVERRIDES[1]}true" in first
    folder.mkdir()
    (folder / SWEEP).write_text(
        json.dumps({"arguments": [word for word in first if not word.startswith(FOLDER_OVERRIDES)]})
    )
    assert prepare_arguments(words) == first
    with pytest.raises(UserError, match=f"other settings: continue it with resume={folder}"):
        prepare_arguments([*words, "model.depth=2"])
    for place in ([], ["hydra.sweep.dir=sweeps/${now:%H-%M}"]):
        with pytest.raises(UserError, match=r"add hydra\.sweep\.dir=FOLDER"):
            prepare_arguments([*sweep, "resume=auto", *place])
