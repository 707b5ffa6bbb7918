"""Distributed training: equal to one process with the global batch size, and all processes end together."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import gt
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.schema import Schema
from gt.train.network import build
from gt.train.processes import check_devices, has_unused_parameters
from tests.graphs import random_graph
from tests.runs import network

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])  # for sweep launchers
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "PYTHONPATH": PATHS.rstrip(os.pathsep)}
# no batch norm and no dropout, whose statistics and masks differ between processes
MODEL = ("model.width=16", "model.depth=2", "model.block.dropout=0", "encoding=none", "model/norm=layer",
         "model/local=gine", "logger=csv", "trainer.log_every_n_steps=1", "trainer.accelerator=cpu")  # fmt: skip


def write_graphs(path: Path, splits: dict[str, int], seed: int = 0) -> None:
    """Write random graphs of 1 to 15 nodes, each node with a class: ranks have different numbers of targets."""
    draw, lines = np.random.default_rng(seed), []
    for split, count in splits.items():
        for _ in range(count):
            size = int(draw.integers(1, 16))
            nodes = [{"id": n, "kind": int(draw.integers(4)), "label": int(draw.integers(3))} for n in range(size)]
            edges = [{"source": n, "target": int(draw.integers(n))} for n in range(1, size)]
            graph = {"directed": False, "multigraph": False, "graph": {"split": split}, "nodes": nodes, "edges": edges}
            lines.append(json.dumps(graph))
    path.write_text("\n".join(lines))


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *overrides, f"hydra.run.dir={folder}"]
    return subprocess.run(
        command, cwd=folder.parent, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )


def logged(folder: Path, name: str) -> list[float]:
    """The logged values of a column."""
    with open(folder / "csv" / "version_0" / "metrics.csv") as handle:
        return [float(row[name]) for row in csv.DictReader(handle) if row.get(name)]


SHARDED = ("trainer=fsdp", "callbacks=[default,activation_checkpointing]")


@pytest.mark.parametrize("strategy", [("trainer=ddp_cpu",), pytest.param(SHARDED, marks=pytest.mark.slow)])
def test_two_processes_train_as_one(strategy, tmp_path):
    write_graphs(tmp_path / "graphs.jsonl", {"train": 49, "valid": 1, "test": 7})
    data = ("data=graph_files", f"data.path={tmp_path / 'graphs.jsonl'}", f"data.root={tmp_path}")
    options = (*data, *MODEL, "trainer.max_epochs=13")
    alone = train(tmp_path / "alone", *options, "trainer=cpu", "data.batch_size=16")
    assert alone.returncode == 0, alone.stderr
    both = train(tmp_path / "both", *options, *strategy, "data.batch_size=8")
    assert both.returncode == 0, both.stderr
    assert "Warning" not in both.stderr
    losses = logged(tmp_path / "alone", "train/loss")
    assert len(losses) == 52  # three batches of 16 and one of a single graph, in each of 13 epochs
    assert logged(tmp_path / "both", "train/loss") == pytest.approx(losses, abs=1e-5)
    for name in ("valid/loss", "valid/accuracy"):
        assert logged(tmp_path / "both", name) == pytest.approx(logged(tmp_path / "alone", name), abs=1e-6)
    result, expected = (json.loads((tmp_path / run / "result.json").read_text()) for run in ("both", "alone"))
    assert result["scores"] == pytest.approx(expected["scores"], abs=1e-6)
    targets = [
        re.search(r"([\d,]+) targets of", (tmp_path / run / "report.html").read_text()) for run in ("both", "alone")
    ]
    assert targets[0][1] == targets[1][1]


@pytest.mark.slow
def test_sharded_run_is_resumed_and_loaded(tmp_path):
    write_graphs(tmp_path / "graphs.jsonl", {"train": 16, "valid": 3, "test": 3})
    data = ("data=graph_files", f"data.path={tmp_path / 'graphs.jsonl'}", f"data.root={tmp_path}", "data.batch_size=2")
    options = (*data, *MODEL, *SHARDED, "model/norm=batch", "model.block.dropout=0.1", "optim/schedule=constant")
    uninterrupted, resumed = tmp_path / "whole", tmp_path / "parts"
    for folder, *overrides in (
        (uninterrupted, *options, "trainer.max_epochs=4"),
        (resumed, *options, "trainer.max_epochs=2"),
    ):
        result = train(folder, *overrides)
        assert result.returncode == 0, result.stderr
    result = train(resumed, f"resume={resumed}", "trainer.max_epochs=4")
    assert result.returncode == 0, result.stderr
    saved, expected = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (resumed, uninterrupted)
    )
    torch.testing.assert_close(saved["state_dict"], expected["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(saved["optimizer_states"], expected["optimizer_states"], rtol=0, atol=0)
    best = torch.load(resumed / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    for name, parameter in gt.load(resumed).named_parameters():
        assert torch.equal(parameter, best[name])
    refused = train(resumed, f"resume={resumed}", "trainer.strategy=ddp")
    assert "trainer.strategy" in refused.stderr


@pytest.mark.slow
def test_sharded_language_model_matches_single_process(tmp_path):
    """Its head is tied to its embedding, and the report generates text."""
    (tmp_path / "text.txt").write_text("\n".join(f"{a} and {b} make {a + b};" for a in range(40) for b in range(40)))
    data = ("data=text", f"data.path={tmp_path / 'text.txt'}", f"data.root={tmp_path}", "data.context=16", "logger=csv")
    model = ("model.width=16", "model.depth=2", "model.block.attention.heads=2", "model.dropout=0")
    steps = ("trainer.max_steps=8", "trainer.val_check_interval=4", "trainer.log_every_n_steps=1")
    options = (*data, *model, "model.block.dropout=0", *steps)
    one = train(tmp_path / "one", *options, "trainer=cpu", "data.batch_size=16")
    assert one.returncode == 0, one.stderr
    both = train(tmp_path / "both", *options, "trainer=fsdp", "trainer.accelerator=cpu", "data.batch_size=8")
    assert both.returncode == 0, both.stderr
    for name in ("train/loss", "valid/loss"):
        assert logged(tmp_path / "both", name) == pytest.approx(logged(tmp_path / "one", name), abs=1e-5)
    messages = [line for line in both.stdout.splitlines() if line.startswith("attention in layers")]
    assert messages == [line for line in one.stdout.splitlines() if line.startswith("attention in layers")]


def child_pids(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.fixture
def long_run(tmp_path):
    """A run of two processes that has saved its first checkpoint and would train for hours, its rank 1, its folder."""
    write_graphs(tmp_path / "graphs.jsonl", {"train": 40, "valid": 4, "test": 4})
    folder = tmp_path / "run"
    data = ("data=graph_files", f"data.path={tmp_path / 'graphs.jsonl'}", f"data.root={tmp_path}", "data.batch_size=8")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *data, *MODEL, "trainer=ddp", "trainer.devices=2",
         "trainer.max_epochs=1000000", "callbacks.early_stopping=null", f"hydra.run.dir={folder}"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not (folder / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    [child] = child_pids(process.pid)
    yield process, child, folder
    for pid in (process.pid, child):
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@linux
def test_killed_rank_ends_the_run_with_resume_command(long_run):
    process, child, folder = long_run
    os.kill(child, signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    lines = err.splitlines()
    assert len(lines) == 1, err
    [line] = lines
    assert line.startswith("error: process 1 of 2 was killed by SIGKILL")
    assert f"resume={folder}" in line


@linux
@pytest.mark.slow
def test_other_ranks_end_if_rank_0_is_killed(long_run):
    process, child, _ = long_run
    process.kill()
    process.communicate(timeout=20)
    time.sleep(1)
    assert not is_alive(child)


@linux
def test_child_process_ends_with_its_parent(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(
        "import time\nfrom gt.train.processes import end_with_parent\n"
        "end_with_parent()\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    parent = (
        f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, {str(script)!r}])\n"
        "print(child.pid, flush=True)\nchild.wait()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    pid = int(process.stdout.readline())
    assert process.stdout.readline() == "up\n"
    assert is_alive(pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)


@pytest.mark.parametrize(("accelerator", "devices"), [("cpu", 99), ("cpu", "99"), ("auto", 3)])
def test_more_processes_than_cores_are_rejected(accelerator, devices, two_cores):
    with pytest.raises(UserError, match=rf"devices={devices} .* 2$"):
        check_devices(accelerator, devices)


@pytest.mark.parametrize("devices", [2, "auto"])
def test_as_many_processes_as_cores_are_accepted(devices, two_cores):
    check_devices("cpu", devices)


def test_gpu_must_exist_and_cores_do_not_limit_gpus(two_cores, monkeypatch):
    with pytest.raises(UserError, match="asks for a GPU and this machine has none"):
        check_devices("gpu", 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_devices("gpu", 8)


@pytest.mark.parametrize(("local", "unused"), [("gine", False), ("gated_gcn", True)])
def test_unused_parameters_are_detected(local, unused):
    schema = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=2)
    net, batch = build(network(f"model/local={local}"), schema), GraphBatch.from_data_list([random_graph(6, 0)])
    before = torch.get_rng_state()
    assert has_unused_parameters(net, batch) == unused
    assert torch.equal(torch.get_rng_state(), before)
    assert net.training
    net(batch).sum().backward()
    without_gradient = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert bool(without_gradient) == unused
    assert all(name.startswith("blocks.0.") for name in without_gradient)
