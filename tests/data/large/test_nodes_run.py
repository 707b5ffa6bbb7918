"""Training runs on node datasets through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import gt
from gt.prediction.asking import predict
from gt.prediction.models import Models
from tests.data.ogb_files import to_csv, write_gzip

ROOT = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
SMALL_RUN = ("model.width=16", "model.depth=2", "logger=csv", "trainer.max_epochs=2", "trainer.accelerator=cpu")


def train(folder: Path, *overrides: str) -> dict[str, float]:
    """Train through the command line, check the report, and return the scores."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides, *SMALL_RUN, f"hydra.run.dir={folder}"]
    process = subprocess.run(
        command, cwd=folder.parent, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
    assert (folder / "report.html").stat().st_size > 10_000
    return json.loads((folder / "result.json").read_text())["scores"]


@pytest.fixture
def arxiv(tmp_path) -> Path:
    """A random graph of 203 papers in OGB's layout; the features indicate the class."""
    rng = np.random.default_rng(0)
    folder, y = tmp_path / "ogbn_arxiv", rng.integers(0, 40, 203)
    x = rng.normal(size=(203, 128))
    x[:, :40] += 5 * np.eye(40)[y]
    write_gzip(folder / "RELEASE_v1.txt", "")
    raw = {"edge": rng.integers(0, 203, (600, 2)), "num-node-list": [203], "num-edge-list": [600], "node-label": y}
    for name, values in {**raw, "node-feat": x.round(3), "node_year": y}.items():
        write_gzip(folder / "raw" / f"{name}.csv.gz", to_csv(np.asarray(values)))
    for name, ids in zip(("train", "valid", "test"), np.split(rng.permutation(203), [101, 152]), strict=True):
        write_gzip(folder / "split" / "time" / f"{name}.csv.gz", to_csv(ids))
    return tmp_path


@pytest.mark.parametrize("name", ["ogbn_arxiv", "ogbn_proteins"])
def test_default_config_trains_on_ogb_sample(name, real_data, tmp_path):
    (tmp_path / name).symlink_to(real_data / "ogb_mini" / name)
    scores = train(tmp_path / "run", f"data={name}", f"data.root={tmp_path}", "trainer=cpu")
    assert set(scores) == {"loss", "acc" if name == "ogbn_arxiv" else "rocauc"}
    assert all(np.isfinite(score) for score in scores.values())


@pytest.mark.slow
def test_ddp_scores_equal_single_process_scores(arxiv):
    overrides = ("data=ogbn_arxiv", f"data.root={arxiv}", "data/sampler=neighbours", "data.sampler.roots=20")
    scores = train(arxiv / "run", *overrides, "trainer=ddp", "model=gcn", "data.chunk=300")
    data = instantiate(OmegaConf.load(arxiv / "run" / ".hydra" / "config.yaml").data)
    data.open([])
    task = gt.load(arxiv / "run" / "checkpoints" / "best.ckpt")
    prediction = predict(Models([task]), data, data.measures()[0], "test", torch.device("cpu"))
    assert len(prediction.table) == 51
    assert prediction.scores["acc"] == pytest.approx(scores["acc"])
    accuracy = (prediction.table["prediction"] == prediction.table["target"]).mean()
    assert accuracy == pytest.approx(scores["acc"])
