"""A run that learned without labels: no program tells what its head says; what lies before the head can be asked."""

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

REFUSED = r"trained without labels \(supervised=0\).*init=RUN_FOLDER.*--embeddings"
GRAPH = nx.path_graph(4)
nx.set_node_attributes(GRAPH, {n: n % 4 for n in GRAPH}, "kind")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*write_graphs(tmp_path_factory.mktemp("data")), "trainer.max_epochs=1", "model.width=16"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, overrides: list[str]) -> Path:
    folder, own = tmp_path_factory.mktemp("first"), [*overrides, "objective=[mask_nodes]", "supervised=0"]
    train(folder, *own)
    with configured(folder, *own) as cfg:
        (folder / ".hydra").mkdir()
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    return folder


@pytest.mark.parametrize("program", [predict, explain, export], ids=["predict", "explain", "export"])
def test_programs_that_tell_answers_refuse_it(program: Any, run: Path) -> None:
    with pytest.raises(UserError, match=REFUSED):
        program.main([str(run)])
    with pytest.raises(UserError, match=REFUSED):
        predict.main([str(run), "--embeddings", str(run / "rows.npy"), "--level", "0.5"])
    assert not list(run.glob("predictions-*.csv"))


def test_it_answers_neither_in_python_nor_as_a_service(run: Path) -> None:
    pytest.importorskip("fastapi")
    from gt.serving.app import service

    task = gt.load(run)
    with pytest.raises(UserError, match=REFUSED):
        task.predict([GRAPH])
    with pytest.raises(UserError, match=REFUSED):
        service(task, "run")


def test_what_lies_before_its_head_can_be_asked(run: Path, tmp_path: Path, capsys: Any) -> None:
    rows = tmp_path / "rows.npy"
    predict.main([str(run), "--device", "cpu", "--embeddings", str(rows), "--out", str(tmp_path / "table.csv")])
    said, table = capsys.readouterr().out, pd.read_csv(tmp_path / "table.csv")
    assert "20 rows of the test split" in said
    assert "prediction of" not in said
    assert np.isfinite(np.load(rows)).all()
    assert len(np.load(rows)) == len(table) == 20
    assert not [name for name in table if name.startswith(("prediction", "probability"))]
    assert gt.load(run).embed([GRAPH]).shape[0] == 1
    assert len(gt.load(run).attention([GRAPH])) == 1
    diagnose.main([str(run), "--device", "cpu", "--batches", "1", "--out", str(tmp_path)])
    assert (tmp_path / "diagnostics.csv").is_file()


def test_a_run_on_labels_that_begins_with_it_answers(run: Path, overrides: list[str], tmp_path: Path) -> None:
    train(tmp_path, *overrides, f"init.run={run}")
    assert "accuracy" in json.loads((tmp_path / "result.json").read_text())["scores"]
    assert gt.load(tmp_path).predict([GRAPH])["prediction"].isin([0, 1]).all()
