"""Complete runs from the command line: training, stopping, resuming, several processes, reloading."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

import gt
from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData
from gt.layers import Attention, ParallelBlock, attention_layers
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.ending import backends_used
from tests.data import ogb_files, planetoid_files

ROOT = Path(__file__).parents[2]
SMALL = ("model.width=32", "model.depth=2", "model.block.dropout=0.1", "data.context=16", "data.batch_size=8",
         "logger=csv", "trainer=cpu", "trainer.max_epochs=2")  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "input.txt"
    lines = [f"{a} and {b} make {a + b};\n" for a in range(14) for b in range(14)]
    path.write_text("".join(lines))
    return path


def command(*overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *overrides]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


def train(*overrides: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*overrides), cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def scores(folder: Path) -> dict[str, float]:
    return json.loads((folder / "result.json").read_text())["scores"]


@pytest.fixture(scope="module")
def finished_run(text, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    completed = train("data=text", f"data.path={text}", *SMALL, f"hydra.run.dir={folder}", cwd=folder.parent)
    assert completed.returncode == 0, completed.stderr
    for words in ("run folder", "checkpoint", "report", "trivial baseline"):
        assert words in completed.stdout
    return folder


def test_run_learns_and_writes_report_with_figures(finished_run):
    result = json.loads((finished_run / "result.json").read_text())
    assert result["scores"]["loss"] < result["baseline"]["loss"] - 0.2
    page = (finished_run / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # curves, predictions, reach; no blend: a GPT has none
    assert "http" not in page
    for name in ("curves", "predictions", "reach"):
        assert (finished_run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (finished_run / "csv" / "version_0" / "metrics.csv").stat().st_size > 0


def test_reloaded_checkpoint_gives_identical_outputs(finished_run, text):
    task, reloaded = (gt.load(finished_run / "checkpoints" / "best.ckpt") for _ in range(2))
    assert not task.training
    data = LanguageData(Text(str(text)), context=16, batch_size=8)
    data.open([])
    data.readings = task.net.readings
    losses, targets = [], 0
    with torch.no_grad():
        for batch in data.loader("valid"):
            prediction = task(batch)
            assert torch.equal(prediction, reloaded(batch))
            losses.append(torch.nn.functional.cross_entropy(prediction, batch.y, reduction="sum"))
            targets += len(batch.y)
    assert float(sum(losses)) / targets == pytest.approx(scores(finished_run)["loss"], rel=1e-5)


def test_load_rejects_invalid_checkpoints(tmp_path, finished_run):
    with pytest.raises(gt.errors.UserError, match="no checkpoint at"):
        gt.load(tmp_path / "none.ckpt")
    (tmp_path / "bad.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(gt.errors.UserError, match="not a checkpoint of this program"):
        gt.load(tmp_path / "bad.ckpt")
    saved = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True)
    saved["hyper_parameters"]["config"]["model"]["_target_"] = "os.system"
    torch.save(saved, tmp_path / "foreign.ckpt")
    with pytest.raises(gt.errors.UserError, match=r"os\.system"):
        gt.load(tmp_path / "foreign.ckpt")


@pytest.mark.parametrize("stop", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM, signal.SIGKILL])
def test_stopped_run_resumes_to_identical_weights(stop, finished_run, text, tmp_path):
    folder = tmp_path / "run"
    overrides = ("data=text", f"data.path={text}", *SMALL, f"hydra.run.dir={folder}")
    process = subprocess.Popen(
        command(*overrides), cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    last = folder / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists():  # it follows the first validation: the signal comes in the second epoch
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(stop)
    out, err = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("the run ended before the signal came")
    assert process.returncode == (-stop if stop == signal.SIGKILL else 128 + stop), err
    if stop != signal.SIGKILL:
        assert f"resume with: python train.py resume={folder}" in out
    completed = train(f"resume={folder}", cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    for name, value in weights(finished_run).items():
        assert torch.equal(value, weights(folder)[name]), name
    assert scores(folder) == pytest.approx(scores(finished_run), rel=1e-6)


def test_two_processes_evaluate_every_sample_once(text, tmp_path):
    folder = tmp_path / "run"
    ddp = [o for o in SMALL if o != "trainer=cpu"]
    completed = train("data=text", f"data.path={text}", *ddp, "trainer=ddp", "trainer.accelerator=cpu",
                      f"hydra.run.dir={folder}", cwd=tmp_path)  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    task = gt.load(folder / "checkpoints" / "best.ckpt")
    data = LanguageData(Text(str(text)), context=16, batch_size=8)
    data.open([])
    data.readings = task.net.readings
    correct = targets = total = 0.0
    with torch.no_grad():
        for batch in data.loader("valid"):
            prediction = task(batch)
            correct += float((prediction.argmax(1) == batch.y).sum())
            total += float(torch.nn.functional.cross_entropy(prediction, batch.y, reduction="sum"))
            targets += len(batch.y)
    assert scores(folder)["accuracy"] == pytest.approx(correct / targets, abs=1e-6)
    assert scores(folder)["loss"] == pytest.approx(total / targets, rel=1e-5)


def test_grid_search_ends_with_ranking(text, tmp_path):
    folder = tmp_path / "sweep"
    completed = train("-m", "data=text", f"data.path={text}", *SMALL, "mask=hops", "mask.hops=0,2", "debug=smoke",
                      f"hydra.sweep.dir={folder}", cwd=tmp_path)  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    assert "best first" in completed.stdout
    ranking = (folder / "ranking.txt").read_text()
    results = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
    assert len(results) == 2
    assert all(f"mask.hops={hops}" in ranking for hops in (0, 2))


def test_nan_loss_is_reported_in_one_line(text, tmp_path):
    completed = train("data=text", f"data.path={text}", *SMALL, "optim.lr=1e30", "trainer.gradient_clip_val=null",
                      f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)  # fmt: skip
    assert completed.returncode == 1
    error = [line for line in completed.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert "the loss is" in error[0]
    assert "lower optim.lr" in error[0]
    assert "Traceback" not in completed.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data=text", "data.path=nowhere.txt"), "nowhere.txt"),
        (("data=text", "data.path=empty.txt"), "empty.txt is empty"),
        (("trainer=gpu", "data=text", "data.path=empty.txt"), "asks for a GPU and this machine has none"),
        (("data=text", "data.path=empty.txt", "hydra.run.dir=empty.txt/run"), "empty.txt"),
        (("resume=nowhere",), "no run in nowhere"),
    ],
)
def test_bad_input_is_reported_in_one_line(overrides, message, tmp_path):
    if "trainer=gpu" in overrides and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (tmp_path / "empty.txt").write_text("")
    completed = train(*overrides, "logger=csv", cwd=tmp_path)
    assert completed.returncode == 1
    assert len(completed.stderr.splitlines()) == 1
    assert completed.stderr.startswith("error: ")
    assert message in completed.stderr


def test_auroc_of_single_class_split_is_undefined(tmp_path):
    path, lines = tmp_path / "graphs.jsonl", []
    for n in range(30):
        split = ("train", "valid", "test")[n % 3]
        graph = {"y": 1 if split == "test" else n // 3 % 2, "split": split}
        nodes, edges = [{"id": 0, "x": n / 7}, {"id": 1, "x": 1.5}], [{"source": 0, "target": 1}]
        lines.append(json.dumps({"directed": False, "graph": graph, "nodes": nodes, "edges": edges}))
    path.write_text("\n".join(lines))
    folder = tmp_path / "run"
    completed = train("data=graph_files", f"data.path={path}", "data.kind=binary", "model.width=16", "encoding=none",
                      "logger=csv", "trainer=cpu", "trainer.max_epochs=1", f"hydra.run.dir={folder}",
                      cwd=tmp_path)  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    scored = [line for line in completed.stdout.splitlines() if line.startswith("auroc")]
    assert [line.split() for line in scored] == [["auroc", *2 * ["undefined", "(one", "class)"]]]
    assert any("test split" in line and "one class" in line for line in completed.stdout.splitlines())
    result = json.loads((folder / "result.json").read_text())
    assert all(math.isnan(result[which]["auroc"]) for which in ("scores", "baseline"))
    assert math.isfinite(result["best_valid"])
    assert "undefined (one class)" in (folder / "report.html").read_text()
    assert "Warning" not in completed.stderr


# those whose data a few lines can generate; tests/cli/test_presets.py trains the networks of the others
EXPERIMENTS = ("cora_gcn", "gps_molhiv", "molhiv_gnn_plus", "molhiv_gps", "shakespeare_char")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_trains_a_step_and_reports(experiment, text, tmp_path):
    ogb_files.write_molecules(tmp_path / "ogbg_molhiv", [0, 1, 0, 1])
    planetoid_files.write_planetoid(tmp_path / "data" / "pyg" / "Cora" / "raw", "cora")
    source = f"data.path={text}" if "data: text" in (ROOT / f"configs/experiment/{experiment}.yaml").read_text() else ""
    completed = train(f"experiment={experiment}", source or f"data.root={tmp_path}", "logger=csv",
                      "trainer.max_steps=1", "trainer.accelerator=cpu", "trainer.devices=1",
                      "trainer.limit_val_batches=1", "trainer.val_check_interval=1",
                      f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
    assert (tmp_path / "run" / "report.html").exists()


def test_backends_of_layers_are_summarised():
    net = GraphTransformer(Schema((5, 5)), 8, 4, partial(ParallelBlock, attention=partial(Attention, heads=2)))
    for layer, backends in zip((layer for _, layer in attention_layers(net)), ("ab", "ab", "b", ""), strict=True):
        layer.used.update(backends)
    layer.used.update("bbba")
    assert backends_used(net) == [
        "attention in layers 0 to 1: a 50%, b 50%",
        "attention in layer 2: b 100%",
        "attention in layer 3: b 75%, a 25%",
    ]
