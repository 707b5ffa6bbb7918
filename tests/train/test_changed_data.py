"""Files that are edited after a run began: it does not go on with them, nor are rows it has seen taken for held out."""

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
from tests.train.test_interrupts import stopped


def run_of(folder: Path, *overrides: str) -> Path:
    """The folder of a whole run, as the command leaves it."""
    train(folder, *overrides)
    with configured(folder, *overrides) as cfg:
        (folder / ".hydra").mkdir()
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    return folder


def edit(overrides: list[str]) -> None:
    """Take the first graph out of the file."""
    path = Path(overrides[0].partition("=")[2])
    path.write_text(path.read_text().partition("\n")[2])


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    data = write_graphs(tmp_path)
    stopped((Task, "training_step", 3), signal.SIGTERM, tmp_path / "run", *data)
    original = (tmp_path / "graphs.jsonl").read_text()
    edit(data)
    with pytest.raises(UserError, match=r"changed .*\(file"):
        train(tmp_path / "run", *data, resume=True)
    (tmp_path / "graphs.jsonl").write_text(original)
    train(tmp_path / "run", *data, resume=True)


def test_a_split_of_other_data_is_not_that_which_was_held_out(tmp_path, capsys):
    data = write_graphs(tmp_path)
    run = run_of(tmp_path / "run", *data, "trainer.max_epochs=1")
    predict([str(run)])
    edit(data)
    for ask in (
        lambda: predict([str(run)]),
        lambda: predict([str(run), "--split", "valid"]),
        lambda: explain([str(run)]),
    ):
        with pytest.raises(UserError, match="--split all"):
            ask()
    other = run_of(tmp_path / "other", *data, "trainer.max_epochs=1")
    predict([str(other)])
    with pytest.raises(UserError, match="--split all"):
        predict([str(other), str(run)])
    capsys.readouterr()
    predict([str(run), "--split", "all"])
    predict([str(run), f"data.path={tmp_path / 'graphs.jsonl'}"])
    assert capsys.readouterr().out.count("91 predictions") == 2


def test_what_programs_made_them_by_makes_no_other_data():
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
        (["data.test=40"], True),  # so many samples of a puzzle
        (["data.path=x"], True), (["data.path=x", "data.fold=1"], True), (["data=text"], True),
    ],
)  # fmt: skip
def test_data_are_new_but_where_the_same_are_dealt_out_anew(overrides, new):
    assert chooses_new_data(overrides) == new


def test_what_one_fold_holds_out_another_was_trained_on(tmp_path, capsys):
    data = [*write_graphs(tmp_path), "data.source.folds=3", "trainer.max_epochs=1"]
    first, other = (run_of(tmp_path / str(n), *data, f"data.source.fold={n}") for n in (0, 1))
    predict([str(first)])
    for ask in (
        lambda: predict([str(first), str(other), "--split", "test"]),
        lambda: predict([str(first), "data.source.fold=1", "--split", "test"]),
        lambda: predict([str(first), "data.source.fold=1"]),
        lambda: predict([str(first), "data.source.split_seed=1", "--split", "valid"]),
        lambda: explain([str(first), "data.source.fold=1"]),
    ):
        with pytest.raises(UserError, match=r"data\.fold"):
            ask()
    predict([str(first), str(other), "--split", "all"])
    older = '{"files": ["a"]}'  # of a version that kept no folds
    check_data(older, '{"files": ["a"], "data.fold": {"folds": 3, "fold": 0, "seed": 0}}', "")
    capsys.readouterr()
