"""Text files as corpora: which files belong to which split, reading in pieces, and stores."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gt.data.text.corpus import Text
from gt.data.text.files import PIECE, between, join_lines, pieces, store_name, text_files
from gt.data.text.language import LanguageData
from gt.data.text.tokenizer import Characters, loads
from tests.data.text.corpora import CORPUS, open_data


def write_files(folder: Path, *names: str) -> dict[str, Path]:
    paths = {}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
        paths[name] = path
    return paths


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b.txt", "a.txt"], {"train": ["a.txt", "b.txt"]}),
        (["a.txt", "README.md", ".hidden.txt", ".git/c.txt"], {"train": ["a.txt"]}),
        (["a.md", "deep/b.rst"], {"train": ["a.md", "deep/b.rst"]}),
        (
            ["wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens", "LICENSE.txt"],
            {"train": ["wiki.train.tokens"], "valid": ["wiki.valid.tokens"], "test": ["wiki.test.tokens"]},
        ),
        (["train/a", "train/b", "dev/a"], {"train": ["train/a", "train/b"], "valid": ["dev/a"]}),
        (["train-1.txt", "train-2.txt"], {"train": ["train-1.txt", "train-2.txt"]}),
        (["book.txt", "book_test.txt"], {"train": ["book.txt"], "test": ["book_test.txt"]}),
        (["book.txt", "book.dev.txt", "b.md"], {"train": ["book.txt"], "valid": ["book.dev.txt"]}),
        (["train.txt", "test.txt", "more.txt"], {"train": ["more.txt", "train.txt"], "test": ["test.txt"]}),
        (["book.txt", "train_or_test.txt"], {"train": ["book.txt"]}),
        (["test_1.txt", "test_2.txt"], {"train": ["test_1.txt", "test_2.txt"]}),
        (["trains.txt", "contest.txt"], {"train": ["contest.txt", "trains.txt"]}),
    ],
)
def test_folder_is_split_by_file_names(names, expected, tmp_path):
    write_files(tmp_path, *names)
    splits = text_files(str(tmp_path))
    assert {s: [p.relative_to(tmp_path).as_posix() for p in paths] for s, paths in splits.items()} == expected


def test_files_of_each_split_are_printed(tmp_path, capsys):
    write_files(tmp_path, *(f"train/{n}.txt" for n in range(5)), "book.txt", "book_test.txt", "b.md")
    data = LanguageData(Text(str(tmp_path), root=str(tmp_path.parent / "root")), context=4, batch_size=1)
    data.open([])
    assert data.has("test")
    train = "train book.txt, train/0.txt, train/1.txt and 3 more"
    assert capsys.readouterr().out.splitlines()[0] == f"{tmp_path}: {train}; test book_test.txt; left out b.md"
    open_data(tmp_path / "book.txt", context=1, valid=0.4)
    assert "book.txt" not in capsys.readouterr().out


def test_glob_selects_matching_files(tmp_path):
    files = write_files(tmp_path, "a/1.txt", "a/2.txt", "b/1.txt", "a/3.md")
    assert text_files(str(tmp_path / "a" / "*.txt")) == {"train": [files["a/1.txt"], files["a/2.txt"]]}
    assert len(text_files(str(tmp_path / "**" / "1.txt"))["train"]) == 2
    splits = write_files(tmp_path / "s", "train.1", "dev.1", "test.1", "x.1")
    assert text_files(str(tmp_path / "s" / "*.1"))["valid"] == [splits["dev.1"]]
    bracketed = write_files(tmp_path, "what[1].txt")["what[1].txt"]
    assert text_files(str(bracketed)) == {"train": [bracketed]}


def test_pieces_are_whole_lines_of_the_whole_text(tmp_path):
    text = "".join(f"line {i} " + "x" * (i % 300) + "\n" for i in range(4000)) + "no end"
    (tmp_path / "a.txt").write_text(text)
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8-sig") as handle:
        handle.write("zipped")
    parts = list(pieces([tmp_path / "a.txt", tmp_path / "b.txt.gz"]))
    assert "".join(parts) == text + "zipped"
    assert len(parts) > 2
    assert all(piece.endswith("\n") and len(piece) < PIECE + 400 for piece in parts[:-1])


@given(st.lists(st.text(min_size=1, max_size=5)), st.integers(0, 20), st.integers(0, 20))
def test_between_slices_the_joined_pieces(parts, start, length):
    text = "".join(parts)
    assert "".join(between(parts, start, start + length)) == text[start : start + length]
    assert "".join(between(parts, start, None)) == text[start:]
    assert "".join(join_lines(parts)) == text


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
def test_end_of_text_is_held_out_for_every_tokenizer(kind, tmp_path):
    if kind == "bpe":
        pytest.importorskip("tokenizers")
    path, text = tmp_path / "a.txt", "".join(CORPUS)
    path.write_text(text, encoding="utf-8")
    data = open_data(path, tokens=kind, vocabulary=280, valid=0.3)
    decoded = {split: data.opened.tokenizer.decode(tokens.tolist()) for split, tokens in data.tokens.items()}
    cut = int(len(text) * 0.7)
    assert decoded == {"train": text[:cut], "valid": text[cut:]}
    assert all(isinstance(tokens.base, np.memmap) for tokens in data.tokens.values())
    assert {tokens.dtype for tokens in data.tokens.values()} == {np.dtype("uint16" if kind == "bpe" else "uint8")}
    assert data.opened.lossless
    assert loads(data.schema.tokenizer).size == data.schema.outputs
    batch = next(iter(data.loader("train")))
    assert batch.x.dtype == batch.y.dtype == torch.int64


def test_folder_with_test_split(tmp_path):
    for split, count in (("train", 60), ("valid", 30), ("test", 20)):
        (tmp_path / f"wiki.{split}.raw").write_text("ab" * count)
    data = LanguageData(Text(str(tmp_path), root=str(tmp_path / ".root")), context=8, batch_size=4)
    data.open([])
    assert {split: len(tokens) for split, tokens in data.tokens.items()} == {"train": 120, "valid": 60, "test": 40}
    assert data.has("test")


def test_store_is_rebuilt_only_for_changed_text_or_options(tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.txt"
    path.write_text("".join(CORPUS))
    builds = []
    monkeypatch.setattr(Text, "build", lambda self, run=Text.build: (builds.append(1), run(self))[1])
    open_data(path)
    open_data(path, context=4)
    path.rename(tmp_path / "b.txt")
    open_data(tmp_path / "b.txt")
    assert len(builds) == 1
    assert "other store" not in capsys.readouterr().out
    open_data(tmp_path / "b.txt", valid=0.2)
    assert "other store" not in capsys.readouterr().out  # stores of another name are not counted
    open_data(tmp_path / "b.txt", tokens="bytes")
    assert "1 other store of text-b (" in capsys.readouterr().out
    assert len(builds) == 3
    (tmp_path / "b.txt").write_text("".join(CORPUS) + "more")
    open_data(tmp_path / "b.txt")
    assert len(builds) == 4


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("books/A tale.txt.gz", "A-tale"),
        ("books", "books"),
        ("books/*.txt", "books"),
        ("books/war[12].txt", "war"),
        ("x" * 99 + ".txt", "x" * 40),
        (".txt", ""),
    ],
)
def test_store_is_named_after_its_path(path, word):
    assert store_name(path) == word


def test_failed_build_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("".join(CORPUS))

    def fail(self, texts):
        raise RuntimeError

    monkeypatch.setattr(Characters, "encode", fail)
    with pytest.raises(RuntimeError):
        open_data(path)
    assert [p.suffix for p in (tmp_path / "root" / "stores").iterdir()] == [".lock"]
