"""However the processes of a run are started, they train as those that Lightning starts, or say why they cannot."""

import os
import socket
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from gt.errors import UserError
from gt.train.launch import check_started, shared_folder_arguments
from gt.train.plan import on_single_device
from tests.train.test_distributed import ENVIRONMENT, MODEL, ROOT, logged, train, write_graphs

OUTSIDE = {
    "torchrun": {"TORCHELASTIC_RUN_ID": "1", "RANK": "{}", "LOCAL_RANK": "{}", "WORLD_SIZE": "2"},
    "srun": {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "{}", "SLURM_LOCALID": "{}",
             "SLURM_NODEID": "0", "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train"},
    "hand": {"NODE_RANK": "{}"},
}  # fmt: skip


def environment(how: str, rank: int) -> dict[str, str]:
    return {name: value.format(rank) for name, value in OUTSIDE[how].items()}


@pytest.fixture(params=OUTSIDE)
def second(request, monkeypatch):
    for name, value in environment(request.param, 1).items():
        monkeypatch.setenv(name, value)


def test_processes_that_are_started_outside_share_a_folder_of_which_one_keeps_the_configuration(second):
    line = ["model=gps", "hydra.run.dir=run"]
    given = shared_folder_arguments(line)
    assert given[:2] == line
    assert "hydra.output_subdir=null" in given
    with pytest.raises(UserError, match=r"hydra\.run\.dir"):
        shared_folder_arguments(["model=gps"])
    with pytest.raises(UserError, match="sweep"):
        shared_folder_arguments(["-m", *line])


@pytest.mark.parametrize("how", ["torchrun", "srun"])
def test_as_many_processes_are_started_as_train(how, monkeypatch):
    for name, value in environment(how, 0).items():
        monkeypatch.setenv(name, value)
    check_started(2, 1)
    check_started(1, 2)
    with pytest.raises(
        UserError, match=r"^2 .*trainer\.devices=1 trainer\.num_nodes=1 .*trainer\.devices=2, or start 1"
    ):
        check_started(1, 1)
    # whatever trainer=ddp trainer.devices=2 is: what is planned is one of its processes
    with pytest.raises(UserError, match=r"stage=plan runs on one process"):
        on_single_device(OmegaConf.create({"stage": "plan", "trainer": {"devices": 2}}))
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UserError, match=r"^1 process was .* start 2 on each machine"):
        check_started(2, 1)


def test_several_machines_need_the_command_on_each(monkeypatch):
    line = ["model=gps"]
    assert shared_folder_arguments(line) == line
    check_started(2, 1)
    with pytest.raises(UserError, match=r"trainer\.num_nodes=2"):
        check_started(2, 2)
    monkeypatch.setenv("NODE_RANK", "0")
    check_started(2, 2)


@pytest.mark.slow
def test_every_way_to_start_two_processes_is_the_same_run(tmp_path):
    write_graphs(tmp_path / "graphs.jsonl", {"train": 20, "valid": 3, "test": 3})
    options = [f"data.path={tmp_path / 'graphs.jsonl'}", "data=graph_files", f"data.root={tmp_path}", *MODEL,
               "data.batch_size=4", "trainer.max_epochs=2", "trainer=ddp_cpu"]  # fmt: skip
    plain = train(tmp_path / "plain", *options)
    assert plain.returncode == 0, plain.stderr
    for how in OUTSIDE:
        nodes = ["trainer.devices=1", "trainer.num_nodes=2"] if how == "hand" else []
        command = [sys.executable, str(ROOT / "train.py"), *options, *nodes, f"hydra.run.dir={tmp_path / how}"]
        with socket.socket() as free:
            free.bind(("", 0))
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        processes = [
            subprocess.Popen(command, cwd=tmp_path, env={**ENVIRONMENT, **meeting, **environment(how, rank)})
            for rank in (0, 1)
        ]
        assert [process.wait(timeout=200) for process in processes] == [0, 0]
        for name in ("train/loss", "valid/loss", "test/loss"):
            assert logged(tmp_path / how, name) == logged(tmp_path / "plain", name)
        assert os.listdir(tmp_path / how / ".hydra")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_a_sweep_of_jobs_of_two_processes_runs_each_once(launcher, tmp_path):
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    write_graphs(tmp_path / "graphs.jsonl", {"train": 20, "valid": 3, "test": 3})
    options = [f"data.path={tmp_path / 'graphs.jsonl'}", "data=graph_files", f"data.root={tmp_path}", *MODEL,
               "data.batch_size=4", "trainer.max_epochs=2", "trainer.gradient_clip_val=null"]  # fmt: skip
    alone = train(tmp_path / "alone", *options, "trainer=cpu", "data.batch_size=8", "optim.lr=0.002")
    assert alone.returncode == 0, alone.stderr
    folder = tmp_path / "sweep"
    line = ["-m", *options, "trainer=ddp_cpu", "optim.lr=0.001,1e30,0.002", f"hydra/launcher={launcher}"]
    swept = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *line, f"hydra.sweep.dir={folder}"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert swept.returncode == 1, swept.stderr
    assert "error: 1 of the jobs failed: 1; to try them again" in swept.stderr
    assert {path.name for path in folder.iterdir() if path.is_dir()} - {".submitit"} == {"0", "1", "2"}
    assert {path.parent.name for path in folder.glob("*/result.json")} == {"0", "2"}
    for job in ("0", "2"):
        assert len(logged(folder / job, "train/loss")) == 6
        assert os.listdir(folder / job / "csv") == ["version_0"]
    assert logged(folder / "2", "train/loss") == pytest.approx(logged(tmp_path / "alone", "train/loss"), abs=1e-5)
