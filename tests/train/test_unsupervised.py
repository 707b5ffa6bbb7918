"""Runs trained without labels: no program predicts with their untrained head; all before the head is available."""

import json
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

import gt
from gt import diagnose, explain, export, predict
from gt.errors import UserError
from tests.small_runs import configured, train, write_graphs

ERROR = r"trained without labels \(supervised=0\).*init=RUN_FOLDER.*--embeddings"
GRAPH = nx.path_graph(4)
nx.set_node_attributes(GRAPH, {n: n % 4 for n in GRAPH}, "kind")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*write_graphs(tmp_path_factory.mktemp("data")), "trainer.max_epochs=1", "model.width=16"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, overrides: list[str]) -> Path:
    folder, options = tmp_path_factory.mktemp("first"), [*overrides, "objective=[mask_nodes]", "supervised=0"]
    train(folder, *options)
    with configured(folder, *options) as cfg:
        (folder / ".hydra").mkdir()
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    return folder


@pytest.mark.parametrize("program", [predict, explain, export], ids=["predict", "explain", "export"])
def test_prediction_programs_reject_unsupervised_run(program: Any, run: Path) -> None:
    with pytest.raises(UserError, match=ERROR):
        program.main([str(run)])
    with pytest.raises(UserError, match=ERROR):
        predict.main([str(run), "--embeddings", str(run / "rows.npy"), "--level", "0.5"])
    assert not list(run.glob("predictions-*.csv"))


def test_python_and_service_reject_unsupervised_run(run: Path) -> None:
    pytest.importorskip("fastapi")
    from gt.serving.app import service

    task = gt.load(run)
    with pytest.raises(UserError, match=ERROR):
        task.predict([GRAPH])
    with pytest.raises(UserError, match=ERROR):
        service(task, "run")


def test_embeddings_attention_and_diagnostics_are_available(run: Path, tmp_path: Path, capsys: Any) -> None:
    rows = tmp_path / "rows.npy"
    predict.main([str(run), "--device", "cpu", "--embeddings", str(rows), "--out", str(tmp_path / "table.csv")])
    output, table = capsys.readouterr().out, pd.read_csv(tmp_path / "table.csv")
    assert "20 rows of the test split" in output
    assert "prediction of" not in output
    assert np.isfinite(np.load(rows)).all()
    assert len(np.load(rows)) == len(table) == 20
    assert not [name for name in table if name.startswith(("prediction", "probability"))]
    assert gt.load(run).embed([GRAPH]).shape[0] == 1
    assert len(gt.load(run).attention([GRAPH])) == 1
    diagnose.main([str(run), "--device", "cpu", "--batches", "1", "--out", str(tmp_path)])
    assert (tmp_path / "diagnostics.csv").is_file()


def test_fine_tuned_run_predicts(run: Path, overrides: list[str], tmp_path: Path) -> None:
    train(tmp_path, *overrides, f"init.run={run}")
    assert "accuracy" in json.loads((tmp_path / "result.json").read_text())["scores"]
    assert gt.load(tmp_path).predict([GRAPH])["prediction"].isin([0, 1]).all()
