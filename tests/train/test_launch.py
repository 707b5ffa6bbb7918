"""Launching by torchrun, srun or hand: the same results as by Lightning, or an error with the reason."""

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

LAUNCH_VARIABLES = {
    "torchrun": {"TORCHELASTIC_RUN_ID": "1", "RANK": "{}", "LOCAL_RANK": "{}", "WORLD_SIZE": "2"},
    "srun": {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "{}", "SLURM_LOCALID": "{}",
             "SLURM_NODEID": "0", "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train"},
    "hand": {"NODE_RANK": "{}"},
}  # fmt: skip


def launch_variables(launcher: str, rank: int) -> dict[str, str]:
    return {name: value.format(rank) for name, value in LAUNCH_VARIABLES[launcher].items()}


@pytest.fixture(params=LAUNCH_VARIABLES)
def second_process(request, monkeypatch):
    for name, value in launch_variables(request.param, 1).items():
        monkeypatch.setenv(name, value)


def test_external_processes_share_one_run_folder(second_process):
    arguments = ["model=gps", "hydra.run.dir=run"]
    adapted = shared_folder_arguments(arguments)
    assert adapted[:2] == arguments
    assert "hydra.output_subdir=null" in adapted
    with pytest.raises(UserError, match=r"hydra\.run\.dir"):
        shared_folder_arguments(["model=gps"])
    with pytest.raises(UserError, match="sweep"):
        shared_folder_arguments(["-m", *arguments])


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_number_of_started_processes_is_checked(launcher, monkeypatch):
    for name, value in launch_variables(launcher, 0).items():
        monkeypatch.setenv(name, value)
    check_started(2, 1)
    check_started(1, 2)
    with pytest.raises(
        UserError, match=r"^2 .*trainer\.devices=1 trainer\.num_nodes=1 .*trainer\.devices=2, or start 1"
    ):
        check_started(1, 1)
    # even with trainer=ddp trainer.devices=2: the plan is for one of its processes
    with pytest.raises(UserError, match=r"stage=plan runs on one process"):
        on_single_device(OmegaConf.create({"stage": "plan", "trainer": {"devices": 2}}))
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UserError, match=r"^1 process was .* start 2 on each machine"):
        check_started(2, 1)


def test_several_machines_require_node_rank(monkeypatch):
    arguments = ["model=gps"]
    assert shared_folder_arguments(arguments) == arguments
    check_started(2, 1)
    with pytest.raises(UserError, match=r"trainer\.num_nodes=2"):
        check_started(2, 2)
    monkeypatch.setenv("NODE_RANK", "0")
    check_started(2, 2)


@pytest.mark.slow
def test_every_launcher_gives_the_same_results(tmp_path):
    write_graphs(tmp_path / "graphs.jsonl", {"train": 20, "valid": 3, "test": 3})
    options = [f"data.path={tmp_path / 'graphs.jsonl'}", "data=graph_files", f"data.root={tmp_path}", *MODEL,
               "data.batch_size=4", "trainer.max_epochs=2", "trainer=ddp_cpu"]  # fmt: skip
    plain = train(tmp_path / "plain", *options)
    assert plain.returncode == 0, plain.stderr
    for launcher in LAUNCH_VARIABLES:
        nodes = ["trainer.devices=1", "trainer.num_nodes=2"] if launcher == "hand" else []
        command = [sys.executable, str(ROOT / "train.py"), *options, *nodes, f"hydra.run.dir={tmp_path / launcher}"]
        with socket.socket() as free:
            free.bind(("", 0))
            rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        processes = [
            subprocess.Popen(
                command, cwd=tmp_path, env={**ENVIRONMENT, **rendezvous, **launch_variables(launcher, rank)}
            )
            for rank in (0, 1)
        ]
        assert [process.wait(timeout=200) for process in processes] == [0, 0]
        for name in ("train/loss", "valid/loss", "test/loss"):
            assert logged(tmp_path / launcher, name) == logged(tmp_path / "plain", name)
        assert os.listdir(tmp_path / launcher / ".hydra")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_sweep_of_distributed_jobs_runs_each_once(launcher, tmp_path):
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    write_graphs(tmp_path / "graphs.jsonl", {"train": 20, "valid": 3, "test": 3})
    options = [f"data.path={tmp_path / 'graphs.jsonl'}", "data=graph_files", f"data.root={tmp_path}", *MODEL,
               "data.batch_size=4", "trainer.max_epochs=2", "trainer.gradient_clip_val=null"]  # fmt: skip
    alone = train(tmp_path / "alone", *options, "trainer=cpu", "data.batch_size=8", "optim.lr=0.002")
    assert alone.returncode == 0, alone.stderr
    folder = tmp_path / "sweep"
    arguments = ["-m", *options, "trainer=ddp_cpu", "optim.lr=0.001,1e30,0.002", f"hydra/launcher={launcher}"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments, f"hydra.sweep.dir={folder}"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert "error: 1 of the jobs failed: 1; to try them again" in result.stderr
    assert {path.name for path in folder.iterdir() if path.is_dir()} - {".submitit"} == {"0", "1", "2"}
    assert {path.parent.name for path in folder.glob("*/result.json")} == {"0", "2"}
    for job in ("0", "2"):
        assert len(logged(folder / job, "train/loss")) == 6
        assert os.listdir(folder / job / "csv") == ["version_0"]
    assert logged(folder / "2", "train/loss") == pytest.approx(logged(tmp_path / "alone", "train/loss"), abs=1e-5)
