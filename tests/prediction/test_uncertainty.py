"""``python -m gt.predict``: ensembles of runs, dropout, calibration, prediction sets and embeddings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gt.data.text.classification import TextClassification
from gt.errors import UserError
from tests.runs import float_columns, network, predictions, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs with different weights on the same texts."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    rows = [f"{' '.join(rng.choice(list('abcdefgh'), 6))}\t{n % 3}" for n in range(300)]
    (folder / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    net = network("model.block.dropout=0.2")
    for seed in range(2):
        (folder / "sweep" / str(seed)).mkdir(parents=True)
        run = write_run(folder / "sweep" / str(seed), TextClassification, net, path=str(folder / "mine.tsv"), seed=seed)
        run.rename(folder / "moved")
        (folder / "sweep" / str(seed)).rename(folder / f"root-{seed}")
        (folder / "moved").rename(folder / "sweep" / str(seed))
    return folder / "sweep"


def test_folder_of_runs_is_an_ensemble(runs: Path, capsys: Any) -> None:
    each = [float_columns(predictions(run, "--probabilities"), *PROBABILITIES) for run in (runs / "0", runs / "1")]
    table = predictions(runs, "--probabilities")
    np.testing.assert_allclose(float_columns(table, *PROBABILITIES), np.mean(each, 0), atol=1e-6)
    best = table["prediction"].astype(int).to_numpy()[:, None]
    deviation = np.take_along_axis(np.std(each, 0, ddof=1), best, 1)
    np.testing.assert_allclose(float_columns(table, "deviation"), deviation, atol=1e-6)
    assert "2 models" in capsys.readouterr().out
    assert predictions(runs / "0", str(runs / "1"), "--probabilities").equals(table)


PROBABILITIES = [f"probability_{n}" for n in range(3)]


def test_dropout_calibration_and_sets_of_new_data(runs: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "new.tsv").write_text("text\na b c\nd e f\n\n")
    options = ("--dropout", "4", "--calibrate", "--level", "0.8")
    table = predictions(runs / "0", f"data.path={tmp_path / 'new.tsv'}", *options)
    assert (float_columns(table, "deviation") > 0).all()
    assert all({*row.split(" | ")} <= {"0", "1", "2"} for row in table["set"])
    output = capsys.readouterr().out
    assert "temperature" in output
    assert "sets at 0.8" in output
    with pytest.raises(UserError, match="another split"):
        predictions(runs / "0", "--split", "valid", "--level", "0.8")
    with pytest.raises(UserError, match="--dropout 1"):
        predictions(runs / "0", "--dropout", "1")


def test_embeddings_follow_the_order_of_the_table(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text('text\n"a b c"\n" "\n"d e"\n"a b c"\n')
    table = predictions(runs / "0", f"data.path={tmp_path / 'new.csv'}", "--embeddings", str(tmp_path / "rows"))
    rows = np.load(tmp_path / "rows.npy")
    assert rows.shape[0] == len(table) == 4
    assert not any(name.startswith("embedding") for name in table)
    assert np.isnan(rows).all(1).tolist() == [False, True, False, False]
    np.testing.assert_allclose(rows[0], rows[3], atol=1e-6)
    assert not np.allclose(rows[0], rows[2])
