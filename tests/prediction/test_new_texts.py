"""Predictions for new texts: the tokenizer and options of the training, headers, labels and changed files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gt.data.text.classification import TextClassification
from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData
from gt.errors import UserError
from tests.runs import float_columns, network, predictions, write_run

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 60 texts whose words differ from row to row."""
    folder = tmp_path_factory.mktemp("text")
    rng, words = np.random.default_rng(0), [f"word{n}" for n in range(40)]
    rows = [f"{' '.join(rng.choice(words, 6))}\t{'good' if n % 2 else 'bad'}" for n in range(60)]
    (folder / "mine.tsv").write_text("\n".join(["review\tlabel", *rows]) + "\n")
    return write_run(folder, TextClassification, path=str(folder / "mine.tsv"), vocabulary=30)


def test_new_texts_use_the_training_tokenizer(text_run: Path, capsys: Any) -> None:
    split = predictions(text_run, "--split", "test")
    new = text_run.parent / "fresh.tsv"
    rows = zip(split["text"], split["target"], strict=True)
    new.write_text("\n".join(["number\tlabel\treview", *(f"{n}\t{y}\t{text}" for n, (text, y) in enumerate(rows))]))
    scores = capsys.readouterr().out.partition(".csv")[2]
    table = predictions(text_run, f"data.path={new}")
    assert table.columns.tolist() == ["number", "label", "review", "prediction", "probability"]
    assert table["number"].tolist() == list(map(str, range(len(split))))
    assert table["prediction"].tolist() == split["prediction"].tolist()
    np.testing.assert_allclose(float_columns(table, "probability"), float_columns(split, "probability"), **CLOSE)
    assert capsys.readouterr().out.partition(".csv")[2] == scores != ""


@pytest.mark.parametrize("name", ["one_column.csv", "lines.txt", "objects.jsonl", "no_header.csv"])
def test_unlabelled_texts_are_predicted(text_run: Path, name: str, capsys: Any) -> None:
    texts = ["word1 word2", "  ", "never seen before", "word3"]
    contents = {"one_column.csv": ["review", *(f'"{text}"' for text in texts)], "lines.txt": texts}
    contents["objects.jsonl"] = [json.dumps({"review": text, "id": n}) for n, text in enumerate(texts)]
    contents["no_header.csv"] = [f'"{text}"' for text in texts]
    path = text_run.parent / name
    path.write_text("\n".join(contents[name]) + "\n")
    table = predictions(text_run, f"data.path={path}")
    assert len(table) == 4
    assert [bool(cell) for cell in table["prediction"]] == [True, False, True, True]
    listed = pd.read_csv(text_run.parent / "predicted.unreadable.csv")
    assert listed["row"].tolist() == [1]
    assert f"{path}, line {3 if name == 'one_column.csv' else 2}" in listed["reason"][0]
    assert "accuracy" not in capsys.readouterr().out  # there is nothing to score by


def test_training_options_need_not_be_repeated(tmp_path: Path) -> None:
    rows = [f"this is text {n} of many words\t{'good' if n % 2 else 'bad'}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    run = write_run(tmp_path, TextClassification, path=str(tmp_path / "mine.tsv"), longest=4, tokens="bytes")
    every = predictions(run, "--split", "all")
    path = f"data.path={tmp_path / 'mine.tsv'}"
    assert predictions(run, "data=text_classification", path).equals(every)
    with pytest.raises(UserError, match=r"data\.longest=9"):
        predictions(run, path, "data.longest=9")


def test_file_with_only_a_header(text_run: Path) -> None:
    path = text_run.parent / "nothing.tsv"
    path.write_text("review\tnumber\n")
    assert predictions(text_run, f"data.path={path}").columns.tolist()[:3] == ["review", "number", "prediction"]
    path.write_text("")
    with pytest.raises(UserError, match=r"nothing\.tsv is empty"):
        predictions(text_run, f"data.path={path}")


def test_header_is_recognised_by_training_columns(tmp_path: Path, capsys: Any) -> None:
    rows = [f"this is text {n},{'good' if n % 2 else 'bad'}" for n in range(40)]
    (tmp_path / "mine.csv").write_text("\n".join(["phrase,polarity", *rows]))
    run = write_run(tmp_path, TextClassification, path=str(tmp_path / "mine.csv"))
    capsys.readouterr()
    path = tmp_path / "new.csv"
    for header in ("id,phrase", "author,phrase"):
        path.write_text(f"{header}\nann,text 3\nbob,text 4\n")
        table = predictions(run, f"data.path={path}")
        assert (table.columns.tolist()[:2], len(table)) == (header.split(","), 2)
    assert "line 1" not in capsys.readouterr().out
    path.write_text("author,remark\nann,text 3\nbob,text 4\n")  # nothing tells whether these are names
    assert len(predictions(run, f"data.path={path}")) == 3
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "line 1" in line)
    assert str(path) in line
    assert "'phrase'" in line
    assert len(predictions(run, f"data.path={path}", "data.text=remark")) == 2
    path.write_text("id,remark\n1,text 3\n2,text 4\n")
    with pytest.raises(UserError, match=r"'phrase'.* id, remark, such as data\.text=remark"):
        predictions(run, f"data.path={path}")


def test_unknown_label_is_not_scored(text_run: Path, capsys: Any) -> None:
    path = text_run.parent / "strange.tsv"
    path.write_text("label\treview\ngood\tword1\nugly\tword2\n\tword3\n")
    table = predictions(text_run, f"data.path={path}")
    assert table["label"].tolist() == ["good", "ugly", ""]
    assert all(table["prediction"])
    assert "'ugly'" in capsys.readouterr().out


def test_changed_file_is_rejected_as_training_data(tmp_path: Path) -> None:
    rows = [f"this is text {n}\t{'good' if n % 2 else 'bad'}" for n in range(40)]
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows]))
    run = write_run(tmp_path, TextClassification, path=str(tmp_path / "mine.tsv"))
    (tmp_path / "mine.tsv").write_text("\n".join(["text\tlabel", *rows[::-1], "another word\tgood"]))
    with pytest.raises(UserError, match="--split all"):
        predictions(run, "--split", "test")
    assert len(predictions(run, "--split", "all")) == 41


def test_characters_use_the_training_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("to be, or not to be\n" * 40)
    run = write_run(tmp_path, Text, network("mask=causal"), LanguageData, path=str(tmp_path / "a.txt"), context=8)
    (tmp_path / "b.txt").write_text("to be, or not to be\n" * 4)  # the validation text, with the same characters
    split = predictions(run, "--split", "valid")
    (tmp_path / "c.txt").write_text("not\n" * 9)
    assert predictions(run, f"data.path={tmp_path / 'b.txt'}").equals(split)
    assert len(predictions(run, f"data.path={tmp_path / 'c.txt'}")) == 35
    (tmp_path / "d.txt").write_text("quite\n" * 9)
    with pytest.raises(UserError, match=r"d\.txt: the character 'q'"):
        predictions(run, f"data.path={tmp_path / 'd.txt'}")
