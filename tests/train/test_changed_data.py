"""Data files edited since training: resuming is refused, and training samples never count as held out."""

import signal
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gt.cli.new_data import chooses_new_data
from gt.errors import UserError
from gt.explain import main as explain
from gt.predict import main as predict
from gt.train.resume import check_data
from gt.train.task import Task
from tests.small_runs import configured, train, write_graphs
from tests.train.signals import train_until_signal


def train_run(folder: Path, *overrides: str) -> Path:
    """Train a run; returns its folder, complete as the command leaves it."""
    train(folder, *overrides)
    with configured(folder, *overrides) as cfg:
        (folder / ".hydra").mkdir()
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    return folder


def remove_first_graph(overrides: list[str]) -> None:
    """Remove the first graph from the data file."""
    path = Path(overrides[0].partition("=")[2])
    path.write_text(path.read_text().partition("\n")[2])


def test_resuming_with_changed_data_is_rejected(tmp_path):
    data = write_graphs(tmp_path)
    train_until_signal((Task, "training_step", 3), signal.SIGTERM, tmp_path / "run", *data)
    original = (tmp_path / "graphs.jsonl").read_text()
    remove_first_graph(data)
    with pytest.raises(UserError, match=r"changed .*\(file"):
        train(tmp_path / "run", *data, resume=True)
    (tmp_path / "graphs.jsonl").write_text(original)
    train(tmp_path / "run", *data, resume=True)


def test_split_of_changed_data_is_not_held_out(tmp_path, capsys):
    data = write_graphs(tmp_path)
    run = train_run(tmp_path / "run", *data, "trainer.max_epochs=1")
    predict([str(run)])
    remove_first_graph(data)
    for command in (
        lambda: predict([str(run)]),
        lambda: predict([str(run), "--split", "valid"]),
        lambda: explain([str(run)]),
    ):
        with pytest.raises(UserError, match="--split all"):
            command()
    other = train_run(tmp_path / "other", *data, "trainer.max_epochs=1")
    predict([str(other)])
    with pytest.raises(UserError, match="--split all"):
        predict([str(other), str(run)])
    capsys.readouterr()
    predict([str(run), "--split", "all"])
    predict([str(run), f"data.path={tmp_path / 'graphs.jsonl'}"])
    assert capsys.readouterr().out.count("91 predictions") == 2


def test_check_data_ignores_versions_and_renamed_files():
    check_data('{"file": 1, "version": 1}', '{"file": 1, "version": 2, "rdkit": "x"}', "")
    check_data(None, '{"file": 1}', "")
    check_data('{"files": {"0 a.json": "x", "1 b.json": "y"}}', '{"files": {"0 a.json": "x", "1 c.json": "y"}}', "")
    with pytest.raises(UserError, match="files"):
        check_data('{"files": {"0 a.json": "x", "1 b.json": "y"}}', '{"files": {"0 a.json": "y", "1 b.json": "x"}}', "")
    with pytest.raises(UserError, match="fractions"):
        check_data('{"file": 1, "fractions": [1]}', '{"file": 1, "fractions": [2]}', "")


@pytest.mark.parametrize(
    ("overrides", "new"),
    [
        ([], False), (["data.workers=2", "data.root=x"], False), (["data.source.fold=1"], False),
        (["data.split_seed=1"], False), (["data.valid=0.2"], False),
        (["data.test=40"], True),  # number of samples of a puzzle
        (["data.path=x"], True), (["data.path=x", "data.fold=1"], True), (["data=text"], True),
    ],
)  # fmt: skip
def test_split_options_do_not_choose_new_data(overrides, new):
    assert chooses_new_data(overrides) == new


def test_samples_of_another_fold_are_not_held_out(tmp_path, capsys):
    data = [*write_graphs(tmp_path), "data.source.folds=3", "trainer.max_epochs=1"]
    first, other = (train_run(tmp_path / str(n), *data, f"data.source.fold={n}") for n in (0, 1))
    predict([str(first)])
    for command in (
        lambda: predict([str(first), str(other), "--split", "test"]),
        lambda: predict([str(first), "data.source.fold=1", "--split", "test"]),
        lambda: predict([str(first), "data.source.fold=1"]),
        lambda: predict([str(first), "data.source.split_seed=1", "--split", "valid"]),
        lambda: explain([str(first), "data.source.fold=1"]),
    ):
        with pytest.raises(UserError, match=r"data\.fold"):
            command()
    predict([str(first), str(other), "--split", "all"])
    without_folds = '{"files": ["a"]}'  # by a version that did not record folds
    check_data(without_folds, '{"files": ["a"], "data.fold": {"folds": 3, "fold": 0, "seed": 0}}', "")
    capsys.readouterr()
