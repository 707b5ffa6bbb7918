"""Corpora for language models: tokenizers, files and their splits, stores, metrics, and the Hugging Face hub."""

import gzip
import json
import math
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gt.data.text.corpus import Text
from gt.data.text.files import PIECE, between, join_lines, pieces, store_name, text_files
from gt.data.text.hub import HuggingFaceText
from gt.data.text.language import LanguageData
from gt.data.text.metrics import LanguageModel
from gt.data.text.tokenizer import BytePairs, Bytes, Characters, Words, in_parts, loads
from gt.errors import UserError
from tests.data.modules import over

CORPUS = [f"the {a} cat and the {b} dog, naïve 🙂\n" for a in ("red", "old") for b in ("new", "wet")] * 5
TEXTS = ["", "the cat", "  two  spaces\n\n\ttab ", "unseen Zürich 漢字 \U0010ffff\0"]


def whole(tokenizer, text: str) -> str:
    return tokenizer.decode(tokenizer.encode([text])[0].tolist())


@given(st.text(min_size=1))
def test_characters_and_bytes_round_trip(text):
    for tokenizer in (Characters.learn([text], 0), Bytes()):
        tokens = tokenizer.encode([text])[0]
        assert tokenizer.decode(tokens.tolist()) == text
        assert tokens.min() >= 0
        assert tokens.max() < tokenizer.size
        assert tokenizer.lengths()[tokens].sum() == len(text.encode())


def test_characters_are_numbered_by_code_point():
    tokenizer = Characters.learn(["ba", "ca\U0001d518é"], 0)
    assert tokenizer.names == ("a", "b", "c", "é", "\U0001d518")
    assert tokenizer.encode(["cab"])[0].tolist() == [2, 0, 1]
    with pytest.raises(UserError, match=r"the character 'z' is not among the 5 known to this model"):
        tokenizer.encode(["abzy"])


@pytest.fixture(scope="module")
def bpe() -> BytePairs:
    pytest.importorskip("tokenizers")
    return BytePairs.learn(CORPUS, 300)


@settings(max_examples=50, deadline=None)
@given(text=st.text())
def test_byte_pairs_round_trip(bpe, text):
    tokens = bpe.encode([text])[0]
    assert bpe.decode(tokens.tolist()) == text
    assert bpe.lengths()[tokens].sum() == len(text.encode())


def test_byte_pairs_learn_long_words_in_parts():
    """The library takes time quadratic in the length of a word: without parts, minutes for this one."""
    text = "".join("ACGT"[n] for n in np.random.default_rng(0).integers(4, size=600_000))
    assert "".join(in_parts([text, "a b", ""])) == text + "a b"
    assert max(len(part) for part in in_parts([text])) == 4096
    start = time.monotonic()
    tokenizer = BytePairs.learn([text], 300)
    assert time.monotonic() - start < 20
    (tokens,) = tokenizer.encode([text[:5000]])
    assert tokenizer.decode(tokens) == text[:5000]
    assert len(tokens) < 3000


def test_byte_pairs_compress_their_training_text(bpe):
    assert 256 < bpe.size <= 300
    assert len(bpe.encode([CORPUS[0]])[0]) < len(CORPUS[0].encode()) / 2
    assert [t.tolist() for t in bpe.encode(TEXTS)] == [bpe.encode([t])[0].tolist() for t in TEXTS]
    with pytest.raises(UserError, match=r"data.vocabulary=200 is too small: byte pairs need at least 256 entries"):
        BytePairs.learn(CORPUS, 200)


def test_rare_words_share_one_token():
    tokenizer = Words.learn(["b a, a!", "A c b"], 4)
    assert tokenizer.names == ("<unknown>", "a", "b", "!")
    assert tokenizer.encode(["B c, a d"])[0].tolist() == [2, 0, 0, 1, 0]
    assert tokenizer.encode([" "])[0].tolist() == []


def test_tokenizers_survive_serialisation(bpe):
    for tokenizer in (Characters("ab\n\U0001d518"), Bytes(), Words(["a", "!"]), bpe):
        restored = loads(tokenizer.dumps())
        assert type(restored) is type(tokenizer)
        assert (restored.size, restored.names) == (tokenizer.size, tokenizer.names)
        assert restored.encode(["ab"])[0].tolist() == tokenizer.encode(["ab"])[0].tolist()
        assert (restored.lengths() == tokenizer.lengths()).all()


def test_missing_tokenizers_package_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"^byte pairs need the package tokenizers: pip install tokenizers$"):
        BytePairs.learn(CORPUS, 300)


# ---- files


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


# ---- stores


def open_data(path: Path, **options) -> Text:
    data = over(
        LanguageData, Text, str(path), **({"context": 8, "batch_size": 4, "root": str(path.parent / "root")} | options)
    )
    data.open([])
    return data


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
    assert "other store" not in capsys.readouterr().out  # of a file of this name
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


def test_tokenizer_from_a_file_is_used_unchanged(tmp_path, bpe):
    path, tokenizer_path = tmp_path / "a.txt", tmp_path / "tokenizer.json"
    path.write_text("".join(CORPUS))
    tokenizer_path.write_text(bpe.dumps())
    data = open_data(path, tokenizer=str(tokenizer_path))
    assert data.schema.outputs == bpe.size
    assert data.tokens["train"].tolist() == bpe.encode(["".join(CORPUS)[: int(len("".join(CORPUS)) * 0.9)]])[0].tolist()
    import tokenizers

    lossy = tokenizers.Tokenizer.from_str(bpe.dumps())
    path.write_text("The first\n" + "".join(CORPUS))
    for normalizer in (tokenizers.normalizers.Lowercase(), tokenizers.normalizers.Replace("the ", "")):
        lossy.normalizer = normalizer
        tokenizer_path.write_text(lossy.to_str())
        data = open_data(path, tokenizer=str(tokenizer_path))
        assert not data.opened.lossless
    measures, _ = data.measures()
    measures.update(torch.zeros(3, bpe.size), torch.tensor([1, 2, 3]))
    assert set(measures.compute()) == {"accuracy", "perplexity"}


def test_tokenizer_without_unknown_token_is_reported():
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = BytePairs(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0})).to_str())
    assert tokenizer.encode(["a"])[0].tolist() == [0]
    with pytest.raises(
        UserError, match=r"no token for part of the text \(WordLevel error: .*\): use one with an unknown token"
    ):
        tokenizer.encode(["b"])


# ---- metrics


def test_perplexity_and_bits_per_byte_match_plain_sums():
    torch.manual_seed(0)
    lengths = np.array([1, 2, 3, 4])
    logits, target = torch.randn(30, 4), torch.randint(4, (30,))
    metric = LanguageModel(lengths)
    for rows in (slice(0, 7), slice(7, 30)):
        metric.update(logits[rows], target[rows])
    nats = [
        -math.log(math.exp(row[t]) / sum(map(math.exp, row))) for row, t in zip(logits.tolist(), target, strict=True)
    ]
    values = metric.compute()
    assert float(values["perplexity"]) == pytest.approx(math.exp(sum(nats) / 30), rel=1e-5)
    assert float(values["bits_per_byte"]) == pytest.approx(sum(nats) / math.log(2) / lengths[target].sum(), rel=1e-5)
    metric.reset()
    metric.update(torch.zeros(5, 4), torch.zeros(5, dtype=torch.long))
    assert float(metric.compute()["bits_per_byte"]) == pytest.approx(2.0)


def test_bits_per_byte_do_not_depend_on_the_tokenizer(tmp_path):
    """A model that only knows that each symbol is one of two needs one bit per byte of ASCII text."""
    path = tmp_path / "a.txt"
    path.write_text("ab" * 200)
    bits = {}
    for kind in ("characters", "bytes"):
        data = open_data(path, tokens=kind)
        measures, criterion = data.measures()
        target = data.targets("valid")
        logits = torch.full((len(target), data.schema.outputs), -100.0)
        for symbol in "ab":
            logits[:, data.opened.tokenizer.encode([symbol])[0][0]] = 0.0
        measures.update(logits, target)
        bits[kind] = float(measures.compute()["bits_per_byte"])
        assert criterion.name == "loss"
    assert bits == {"characters": pytest.approx(1.0), "bytes": pytest.approx(1.0)}


# ---- the Hugging Face hub


class FakeRows(list):
    """The part of the interface of ``datasets.Dataset`` that is used."""

    @property
    def column_names(self):
        return list(self[0])

    def select_columns(self, names):
        return [{name: row[name] for name in names} for row in self]


def fake_hub(monkeypatch, splits: dict[str, FakeRows] | Exception) -> list[tuple]:
    """Replace the package ``datasets`` by one that returns or raises ``splits``; return the list of its requests."""
    requests: list[tuple] = []

    def load_dataset(name, config, revision=None):
        requests.append((name, config, revision))
        if isinstance(splits, Exception):
            raise splits
        return splits

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return requests


def test_hub_dataset_is_read_by_split(tmp_path, monkeypatch):
    rows = FakeRows({"text": text, "id": 1} for text in ["", " = A = \n", "no end", None] * 20)
    requests = fake_hub(
        monkeypatch, {"train": rows, "validation": FakeRows(rows[:8]), "test": FakeRows(rows[:4]), "extra": rows}
    )
    options = {"config": "raw", "tokens": "characters", "context": 8, "root": str(tmp_path)}
    data = over(LanguageData, HuggingFaceText, "wikitext", **options)
    data.open([])
    assert requests == [("wikitext", "raw", None)]
    decoded = {split: data.opened.tokenizer.decode(tokens.tolist()) for split, tokens in data.tokens.items()}
    repeat = "\n = A = \nno end\n\n"
    assert decoded == {"train": repeat * 20, "valid": repeat * 2, "test": repeat}
    batch = next(iter(data.loader("train")))
    assert torch.equal(batch.x[1:8, 0], batch.y[:7])
    over(LanguageData, HuggingFaceText, "wikitext", **options).open([])
    assert len(requests) == 1  # the store is reused, without the network


def test_local_dataset_store_depends_on_its_files(tmp_path, monkeypatch):
    requests, folder = fake_hub(monkeypatch, {"train": FakeRows([{"text": "a word"}] * 20)}), tmp_path / "own"
    (folder / "inner").mkdir(parents=True)
    names = ["inner/train.txt", "inner/dev.txt"]
    for ordered in (names, names[::-1], names):
        for content, name in enumerate(ordered):
            (folder / name).write_text(str(content))
        over(LanguageData, HuggingFaceText, str(folder), tokens="bytes", context=8, root=str(tmp_path)).open([])
    assert len(requests) == 2


def test_splits_of_the_same_purpose_are_joined(monkeypatch):
    fake_hub(monkeypatch, {name: FakeRows([{"text": name}]) for name in ("train", "dev", "validation")})
    texts = {split: "".join(text()) for split, text in HuggingFaceText("a/b").texts().items()}
    assert texts == {"train": "train\n", "valid": "dev\nvalidation\n"}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (ConnectionError("no route\nto host"), "cannot load a/b (c) from the Hugging Face hub (no route): "
         "without a network download its text files elsewhere and train with data=text data.path=FOLDER"),
        (TimeoutError(), "cannot load a/b (c) from the Hugging Face hub (TimeoutError)"),
        ({"test": FakeRows([{"text": "a"}])}, "a/b (c) has no training split, only test"),
        ({"train": FakeRows([{"txt": "a"}])}, "a/b (c) has no column 'text' (data.column): did you mean 'txt'?"),
        ({"train": FakeRows([{"text": 0}])}, "a/b (c): 'text' holds 0, which is not text: set data.column to another"),
        ({"train": FakeRows([{"text": None}] * 3)}, "a/b (c) is empty: set data.column to a column with text"),
    ],
)  # fmt: skip
def test_hub_errors_are_reported_in_one_line(splits, message, tmp_path, monkeypatch):
    fake_hub(monkeypatch, splits)
    with pytest.raises(UserError) as caught:
        LanguageData(HuggingFaceText("a/b", "c", root=str(tmp_path), tokens="bytes")).open([])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_datasets_package_is_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="needs the package datasets: pip install datasets, or download text files"):
        LanguageData(HuggingFaceText("a/b", root=str(tmp_path), tokens="bytes")).open([])


def test_tokenizer_is_serialised_as_json():
    assert json.loads(Characters("ba").dumps()) == {"characters": "ab"}
