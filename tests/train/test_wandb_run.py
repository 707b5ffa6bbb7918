"""What a run sends to W&B, read back from its offline log or from a local server."""

import json
import signal

import numpy as np
import pytest
import wandb

from gt.schema import Schema
from gt.train.logging import wandb_logger
from gt.train.task import Task
from gt.train.wandb_run import charts
from tests.small_runs import train, write_graphs
from tests.train.signals import train_until_signal
from tests.wandb_records import read_log, records, values
from tests.wandb_server import recorder


@pytest.fixture(scope="module")
def logged_run(tmp_path_factory):
    """The records of a run by kind, and its folder."""
    folder = tmp_path_factory.mktemp("wandb")
    train(folder / "run", *write_graphs(folder), "logger=[csv,wandb]", "logger.wandb.tags=[a,b]", "optim.lr=0.01")
    wandb.finish()
    by_kind: dict = {}
    for record in records(folder / "run"):
        kind = record.WhichOneof("record_type")
        by_kind.setdefault(kind, []).append(getattr(record, kind))
    return by_kind, folder / "run"


def test_configuration_and_dataset_are_logged(logged_run):
    by_kind, folder = logged_run
    config = {}
    for record in by_kind["config"]:
        config |= values(record.update)
    assert config["optim"]["lr"] == 0.01
    assert config["data"]["batch_size"] == 8
    assert config["seed"] == 0
    assert config["dataset"]["samples"] == {"train": 36, "valid": 36, "test": 20}
    assert config["parameters"] == json.loads((folder / "result.json").read_text())["parameters"]
    assert list(by_kind["run"][0].tags) == ["a", "b"]


def test_partial_log_yields_complete_records(logged_run):
    (path,) = logged_run[1].glob("wandb/offline-run-*/*.wandb")
    log = path.read_bytes()
    complete = [record.SerializeToString() for record in read_log(log)]
    for end in range(0, len(log), 997):
        partial = [record.SerializeToString() for record in read_log(log[:end])]
        assert partial == complete[: len(partial)]
        assert len(partial) < len(complete)


def test_metrics_define_their_summaries(logged_run):
    by_kind, _ = logged_run
    summaries = {m.name or m.glob_name: m.summary for m in by_kind["metric"]}
    assert summaries["valid/accuracy"].max
    assert summaries["valid/loss"].min
    assert summaries["speed/*"].mean


def test_speed_updates_and_memory_are_logged(logged_run):
    by_kind, _ = logged_run
    history = [values(record.item) for record in by_kind["history"]]
    speeds = [row for row in history if "speed/graphs_per_s" in row]
    assert len(speeds) == 10  # five batches in each of two epochs
    for row in speeds:
        assert row["speed/nodes_per_s"] > row["speed/graphs_per_s"] > 0
        assert row["optim/gradient_norm"] > 0
        assert row["optim/update_to_weight"] > 0
        assert row["memory/peak_gib"] > 0.1


def test_scores_baseline_figures_and_samples_are_logged(logged_run):
    by_kind, folder = logged_run
    result, summary, last = json.loads((folder / "result.json").read_text()), {}, {}
    for record in by_kind["summary"]:
        summary |= values(record.update)
    for record in by_kind["history"]:
        last |= values(record.item)
    assert summary["result/accuracy"] == result["scores"]["accuracy"]
    assert summary["baseline/accuracy"] == result["baseline"]["accuracy"]
    assert summary["best_valid"] == result["best_valid"]
    assert summary["attention"].startswith("attention in layer 0: ")
    for name in ("report/curves", "report/predictions", "report/reach"):
        assert last[f"{name}._type"] == "image-file"
    assert last["predictions/worst._type"] == "table-file"
    (table,) = folder.glob("wandb/offline-run-*/files/media/table/predictions/worst_*.json")
    rows = json.loads(table.read_text())["data"]
    assert [row[-1] for row in rows] == sorted((row[-1] for row in rows), reverse=True)


def test_resumed_run_uploads_both_logs_and_overall_best(tmp_path, capsys):
    overrides = [*write_graphs(tmp_path), "logger=[csv,wandb]", "trainer.max_epochs=4"]
    train_until_signal((Task, "training_step", 13), signal.SIGTERM, tmp_path / "run", *overrides)  # of 20 steps
    wandb.finish()
    capsys.readouterr()
    train(tmp_path / "run", *overrides, resume=True)
    wandb.finish()
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "wandb sync" in line)
    folders = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert line == f"upload with wandb sync {folders[0]} {folders[1]}"
    result, summary = json.loads((tmp_path / "run" / "result.json").read_text()), {}
    for record in records(tmp_path / "run"):
        if record.WhichOneof("record_type") == "summary":
            summary |= values(record.summary.update)
    assert summary["valid/accuracy"] == {"max": result["best_valid"]}


@pytest.mark.parametrize(
    ("schema", "prediction", "target", "names"),
    [
        (Schema(kind="regression"), np.array([[1.0], [2.0]]), np.array([[1.5], [np.nan]]), {"parity"}),
        (Schema(kind="regression", outputs=3), np.ones((2, 3)), np.array([[1e-4, np.nan, 5], [np.nan, np.nan, 1e3]]),
         {"parity_0", "parity_2"}),
        (Schema(kind="binary", outputs=2), np.zeros((3, 2)), np.zeros((3, 2)), set()),
        (Schema(kind="binary"), np.array([[3.0], [-2.0]]), np.array([[1.0], [0.0]]),
         {"confusion", "calibration", "roc", "precision_recall"}),
        (Schema(outputs=3), np.eye(3), np.zeros(3, int), {"confusion", "calibration"}),  # one class has no curve
        (Schema(outputs=3), np.zeros((0, 3)), np.zeros(0, int), set()),
    ],
)  # fmt: skip
def test_charts_depend_on_the_target(schema, prediction, target, names):
    assert {name.removeprefix("charts/") for name in charts(schema, prediction, target)} == names


def test_wandb_options_are_passed_on(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr("gt.train.logging._logger", lambda mode, **options: seen.update(options))
    wandb_logger("gt", "a", str(tmp_path), group="g", tags=["t"], init={"save_code": True})
    assert (seen["group"], seen["tags"], seen["save_code"]) == ("g", ["t"], True)
    assert "entity" not in seen


def test_server_receives_the_same_records(logged_run, tmp_path, monkeypatch):
    """Online, to a server on this machine: the same steps, summary and figures as offline."""
    overrides = [*write_graphs(tmp_path), "logger=[csv,wandb]", "logger.wandb.tags=[a,b]", "optim.lr=0.01"]
    wandb.teardown()  # its service has read its settings
    with recorder() as server:
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        train(tmp_path / "run", *overrides)
        wandb.teardown()
    offline = [values(record.item) for record in logged_run[0]["history"]]
    online = server.lines["wandb-history.jsonl"]
    for name in ("train/loss", "valid/accuracy", "test/accuracy"):
        assert [row[name] for row in online if name in row] == [row[name] for row in offline if name in row]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert json.loads(server.uploads["wandb-summary.json"])["result/accuracy"] == result["scores"]["accuracy"]
    assert any(path.startswith("media/images/report/curves") for path in server.uploads)
    configs = [json.loads(variables["config"]) for name, variables in server.operations if name == "UpsertBucket"]
    assert configs[-1]["optim"]["value"]["lr"] == 0.01
