"""Text to tokens and back: tokenizers, which files belong to which split, stores, and what a model is measured by."""

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
def test_characters_and_bytes_come_back(text):
    for tokenizer in (Characters.learn([text], 0), Bytes()):
        tokens = tokenizer.encode([text])[0]
        assert tokenizer.decode(tokens.tolist()) == text
        assert tokens.min() >= 0
        assert tokens.max() < tokenizer.size
        assert tokenizer.lengths()[tokens].sum() == len(text.encode())


def test_characters_are_numbered_in_their_order():
    tokenizer = Characters.learn(["ba", "ca\U0001d518é"], 0)
    assert tokenizer.names == ("a", "b", "c", "é", "\U0001d518")
    assert tokenizer.encode(["cab"])[0].tolist() == [2, 0, 1]
    with pytest.raises(UserError, match=r"the character 'z' is not among the 5 known to this model"):
        tokenizer.encode(["abzy"])


@pytest.fixture(scope="module")
def pairs() -> BytePairs:
    pytest.importorskip("tokenizers")
    return BytePairs.learn(CORPUS, 300)


@settings(max_examples=50, deadline=None)
@given(text=st.text())
def test_byte_pairs_lose_nothing(pairs, text):
    tokens = pairs.encode([text])[0]
    assert pairs.decode(tokens.tolist()) == text
    assert pairs.lengths()[tokens].sum() == len(text.encode())


def test_byte_pairs_of_a_text_without_spaces_are_learned_in_parts():
    """The library's time goes with the square of a word: of this one it took minutes."""
    text = "".join("ACGT"[n] for n in np.random.default_rng(0).integers(4, size=600_000))
    assert "".join(in_parts([text, "a b", ""])) == text + "a b"
    assert max(len(part) for part in in_parts([text])) == 4096
    began = time.monotonic()
    learned = BytePairs.learn([text], 300)
    assert time.monotonic() - began < 20
    (tokens,) = learned.encode([text[:5000]])
    assert learned.decode(tokens) == text[:5000]
    assert len(tokens) < 3000


def test_byte_pairs_are_fewer_than_bytes_where_they_were_learned(pairs):
    assert 256 < pairs.size <= 300
    assert len(pairs.encode([CORPUS[0]])[0]) < len(CORPUS[0].encode()) / 2
    assert [t.tolist() for t in pairs.encode(TEXTS)] == [pairs.encode([t])[0].tolist() for t in TEXTS]
    with pytest.raises(UserError, match=r"data.vocabulary=200 is too small: byte pairs need at least 256 entries"):
        BytePairs.learn(CORPUS, 200)


def test_words_are_the_commonest_and_all_others_one():
    tokenizer = Words.learn(["b a, a!", "A c b"], 4)
    assert tokenizer.names == ("<unknown>", "a", "b", "!")
    assert tokenizer.encode(["B c, a d"])[0].tolist() == [2, 0, 0, 1, 0]
    assert tokenizer.encode([" "])[0].tolist() == []


def test_every_tokenizer_survives_being_written(pairs):
    for tokenizer in (Characters("ab\n\U0001d518"), Bytes(), Words(["a", "!"]), pairs):
        again = loads(tokenizer.dumps())
        assert type(again) is type(tokenizer)
        assert (again.size, again.names) == (tokenizer.size, tokenizer.names)
        assert again.encode(["ab"])[0].tolist() == tokenizer.encode(["ab"])[0].tolist()
        assert (again.lengths() == tokenizer.lengths()).all()


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"^byte pairs need the package tokenizers: pip install tokenizers$"):
        BytePairs.learn(CORPUS, 300)


# ---- files


def tree(folder: Path, *names: str) -> dict[str, Path]:
    found = {}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
        found[name] = path
    return found


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
def test_a_folder_is_its_text_files_by_the_splits_they_name(names, expected, tmp_path):
    tree(tmp_path, *names)
    found = text_files(str(tmp_path))
    assert {s: [p.relative_to(tmp_path).as_posix() for p in paths] for s, paths in found.items()} == expected


def test_a_run_says_which_files_are_for_what_and_which_are_left_out(tmp_path, capsys):
    tree(tmp_path, *(f"train/{n}.txt" for n in range(5)), "book.txt", "book_test.txt", "b.md")
    data = LanguageData(Text(str(tmp_path), root=str(tmp_path.parent / "root")), context=4, batch_size=1)
    data.open([])
    assert data.has("test")
    train = "train book.txt, train/0.txt, train/1.txt and 3 more"
    assert capsys.readouterr().out.splitlines()[0] == f"{tmp_path}: {train}; test book_test.txt; left out b.md"
    opened(tmp_path / "book.txt", context=1, valid=0.4)
    assert "book.txt" not in capsys.readouterr().out


def test_a_glob_is_the_files_that_fit(tmp_path):
    files = tree(tmp_path, "a/1.txt", "a/2.txt", "b/1.txt", "a/3.md")
    assert text_files(str(tmp_path / "a" / "*.txt")) == {"train": [files["a/1.txt"], files["a/2.txt"]]}
    assert len(text_files(str(tmp_path / "**" / "1.txt"))["train"]) == 2
    splits = tree(tmp_path / "s", "train.1", "dev.1", "test.1", "x.1")
    assert text_files(str(tmp_path / "s" / "*.1"))["valid"] == [splits["dev.1"]]
    odd = tree(tmp_path, "what[1].txt")["what[1].txt"]
    assert text_files(str(odd)) == {"train": [odd]}


def test_pieces_are_whole_lines_and_the_whole_text(tmp_path):
    text = "".join(f"line {i} " + "x" * (i % 300) + "\n" for i in range(4000)) + "no end"
    (tmp_path / "a.txt").write_text(text)
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8-sig") as handle:
        handle.write("zipped")
    found = list(pieces([tmp_path / "a.txt", tmp_path / "b.txt.gz"]))
    assert "".join(found) == text + "zipped"
    assert len(found) > 2
    assert all(piece.endswith("\n") and len(piece) < PIECE + 400 for piece in found[:-1])


@given(st.lists(st.text(min_size=1, max_size=5)), st.integers(0, 20), st.integers(0, 20))
def test_a_part_of_pieces_is_that_part_of_the_text(found, start, length):
    text = "".join(found)
    assert "".join(between(found, start, start + length)) == text[start : start + length]
    assert "".join(between(found, start, None)) == text[start:]
    assert "".join(join_lines(found)) == text


# ---- stores


def opened(path: Path, **options) -> Text:
    data = over(
        LanguageData, Text, str(path), **({"context": 8, "batch_size": 4, "root": str(path.parent / "root")} | options)
    )
    data.open([])
    return data


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
def test_a_text_is_held_out_from_its_end_whatever_a_token_is(kind, tmp_path):
    if kind == "bpe":
        pytest.importorskip("tokenizers")
    path, text = tmp_path / "a.txt", "".join(CORPUS)
    path.write_text(text, encoding="utf-8")
    data = opened(path, tokens=kind, vocabulary=280, valid=0.3)
    decoded = {split: data.opened.tokenizer.decode(tokens.tolist()) for split, tokens in data.tokens.items()}
    cut = int(len(text) * 0.7)
    assert decoded == {"train": text[:cut], "valid": text[cut:]}
    assert all(isinstance(tokens.base, np.memmap) for tokens in data.tokens.values())
    assert {tokens.dtype for tokens in data.tokens.values()} == {np.dtype("uint16" if kind == "bpe" else "uint8")}
    assert data.opened.lossless
    assert loads(data.schema.tokenizer).size == data.schema.outputs
    batch = next(iter(data.loader("train")))
    assert batch.x.dtype == batch.y.dtype == torch.int64


def test_a_folder_with_splits_has_a_test(tmp_path):
    for split, count in (("train", 60), ("valid", 30), ("test", 20)):
        (tmp_path / f"wiki.{split}.raw").write_text("ab" * count)
    data = LanguageData(Text(str(tmp_path), root=str(tmp_path / ".root")), context=8, batch_size=4)
    data.open([])
    assert {split: len(tokens) for split, tokens in data.tokens.items()} == {"train": 120, "valid": 60, "test": 40}
    assert data.has("test")


def test_a_store_is_made_once_and_again_when_the_text_or_an_option_changes(tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.txt"
    path.write_text("".join(CORPUS))
    made = []
    monkeypatch.setattr(Text, "build", lambda self, run=Text.build: (made.append(1), run(self))[1])
    opened(path)
    opened(path, context=4)
    path.rename(tmp_path / "b.txt")
    opened(tmp_path / "b.txt")
    assert len(made) == 1
    assert "other store" not in capsys.readouterr().out
    opened(tmp_path / "b.txt", valid=0.2)
    assert "other store" not in capsys.readouterr().out  # of a file of this name
    opened(tmp_path / "b.txt", tokens="bytes")
    assert "1 other store of text-b (" in capsys.readouterr().out
    assert len(made) == 3
    (tmp_path / "b.txt").write_text("".join(CORPUS) + "more")
    opened(tmp_path / "b.txt")
    assert len(made) == 4


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
def test_a_store_is_called_after_what_it_is_made_of(path, word):
    assert store_name(path) == word


def test_a_build_that_fails_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("".join(CORPUS))

    def broken(self, texts):
        raise RuntimeError

    monkeypatch.setattr(Characters, "encode", broken)
    with pytest.raises(RuntimeError):
        opened(path)
    assert [p.suffix for p in (tmp_path / "root" / "stores").iterdir()] == [".lock"]


def test_a_tokenizer_from_a_file_is_taken_as_it_is(tmp_path, pairs):
    path, file = tmp_path / "a.txt", tmp_path / "tokenizer.json"
    path.write_text("".join(CORPUS))
    file.write_text(pairs.dumps())
    data = opened(path, tokenizer=str(file))
    assert data.schema.outputs == pairs.size
    assert (
        data.tokens["train"].tolist() == pairs.encode(["".join(CORPUS)[: int(len("".join(CORPUS)) * 0.9)]])[0].tolist()
    )
    import tokenizers

    lossy = tokenizers.Tokenizer.from_str(pairs.dumps())
    path.write_text("The first\n" + "".join(CORPUS))
    for normalizer in (tokenizers.normalizers.Lowercase(), tokenizers.normalizers.Replace("the ", "")):
        lossy.normalizer = normalizer
        file.write_text(lossy.to_str())
        data = opened(path, tokenizer=str(file))
        assert not data.opened.lossless
    measures, _ = data.measures()
    measures.update(torch.zeros(3, pairs.size), torch.tensor([1, 2, 3]))
    assert set(measures.compute()) == {"accuracy", "perplexity"}


def test_a_tokenizer_without_a_token_for_the_unknown_is_one_line():
    tokenizers = pytest.importorskip("tokenizers")
    known = BytePairs(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0})).to_str())
    assert known.encode(["a"])[0].tolist() == [0]
    with pytest.raises(
        UserError, match=r"no token for part of the text \(WordLevel error: .*\): use one with an unknown token"
    ):
        known.encode(["b"])


# ---- metrics


def test_perplexity_and_bits_per_byte_are_sums_over_all_tokens():
    torch.manual_seed(0)
    lengths = np.array([1, 2, 3, 4])
    logits, target = torch.randn(30, 4), torch.randint(4, (30,))
    metric = LanguageModel(lengths)
    for part in (slice(0, 7), slice(7, 30)):
        metric.update(logits[part], target[part])
    nats = [
        -math.log(math.exp(row[t]) / sum(map(math.exp, row))) for row, t in zip(logits.tolist(), target, strict=True)
    ]
    found = metric.compute()
    assert float(found["perplexity"]) == pytest.approx(math.exp(sum(nats) / 30), rel=1e-5)
    assert float(found["bits_per_byte"]) == pytest.approx(sum(nats) / math.log(2) / lengths[target].sum(), rel=1e-5)
    metric.reset()
    metric.update(torch.zeros(5, 4), torch.zeros(5, dtype=torch.long))
    assert float(metric.compute()["bits_per_byte"]) == pytest.approx(2.0)


def test_bits_per_byte_do_not_depend_on_what_a_token_is(tmp_path):
    """A model that is sure of every token but knows nothing of one in two needs half a bit a byte of ASCII."""
    path = tmp_path / "a.txt"
    path.write_text("ab" * 200)
    found = {}
    for kind in ("characters", "bytes"):
        data = opened(path, tokens=kind)
        measures, criterion = data.measures()
        target = data.targets("valid")
        logits = torch.full((len(target), data.schema.outputs), -100.0)
        for symbol in "ab":
            logits[:, data.opened.tokenizer.encode([symbol])[0][0]] = 0.0
        measures.update(logits, target)
        found[kind] = float(measures.compute()["bits_per_byte"])
        assert criterion.name == "loss"
    assert found == {"characters": pytest.approx(1.0), "bytes": pytest.approx(1.0)}


# ---- the Hugging Face hub


class Fake(list):
    """What `datasets` gives, as far as it is used."""

    @property
    def column_names(self):
        return list(self[0])

    def select_columns(self, names):
        return [{name: row[name] for name in names} for row in self]


def hub(monkeypatch, splits: dict[str, Fake] | Exception) -> list[tuple]:
    asked: list[tuple] = []

    def load_dataset(name, config, revision=None):
        asked.append((name, config, revision))
        if isinstance(splits, Exception):
            raise splits
        return splits

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_a_dataset_of_the_hub_is_its_rows_by_split(tmp_path, monkeypatch):
    rows = Fake({"text": text, "id": 1} for text in ["", " = A = \n", "no end", None] * 20)
    asked = hub(monkeypatch, {"train": rows, "validation": Fake(rows[:8]), "test": Fake(rows[:4]), "extra": rows})
    options = {"config": "raw", "tokens": "characters", "context": 8, "root": str(tmp_path)}
    data = over(LanguageData, HuggingFaceText, "wikitext", **options)
    data.open([])
    assert asked == [("wikitext", "raw", None)]
    decoded = {split: data.opened.tokenizer.decode(tokens.tolist()) for split, tokens in data.tokens.items()}
    one = "\n = A = \nno end\n\n"
    assert decoded == {"train": one * 20, "valid": one * 2, "test": one}
    batch = next(iter(data.loader("train")))
    assert torch.equal(batch.x[1:8, 0], batch.y[:7])
    over(LanguageData, HuggingFaceText, "wikitext", **options).open([])
    assert len(asked) == 1  # kept: no network is needed again


def test_tokens_of_a_folder_go_by_its_files(tmp_path, monkeypatch):
    asked, folder = hub(monkeypatch, {"train": Fake([{"text": "a word"}] * 20)}), tmp_path / "own"
    (folder / "inner").mkdir(parents=True)
    names = ["inner/train.txt", "inner/dev.txt"]
    for some in (names, names[::-1], names):
        for content, name in enumerate(some):
            (folder / name).write_text(str(content))
        over(LanguageData, HuggingFaceText, str(folder), tokens="bytes", context=8, root=str(tmp_path)).open([])
    assert len(asked) == 2


def test_several_splits_for_one_purpose_are_joined(monkeypatch):
    hub(monkeypatch, {name: Fake([{"text": name}]) for name in ("train", "dev", "validation")})
    texts = {split: "".join(text()) for split, text in HuggingFaceText("a/b").texts().items()}
    assert texts == {"train": "train\n", "valid": "dev\nvalidation\n"}


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (ConnectionError("no route\nto host"), "cannot load a/b (c) from the Hugging Face hub (no route): "
         "without a network download its text files elsewhere and train with data=text data.path=FOLDER"),
        (TimeoutError(), "cannot load a/b (c) from the Hugging Face hub (TimeoutError)"),
        ({"test": Fake([{"text": "a"}])}, "a/b (c) has no training split, only test"),
        ({"train": Fake([{"txt": "a"}])}, "a/b (c) has no column 'text' (data.column): did you mean 'txt'?"),
        ({"train": Fake([{"text": 0}])}, "a/b (c): 'text' holds 0, which is not text: set data.column to another"),
        ({"train": Fake([{"text": None}] * 3)}, "a/b (c) is empty: set data.column to a column with text"),
    ],
)  # fmt: skip
def test_what_the_hub_cannot_give_is_one_line(splits, said, tmp_path, monkeypatch):
    hub(monkeypatch, splits)
    with pytest.raises(UserError) as caught:
        LanguageData(HuggingFaceText("a/b", "c", root=str(tmp_path), tokens="bytes")).open([])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hub_without_its_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="needs the package datasets: pip install datasets, or download text files"):
        LanguageData(HuggingFaceText("a/b", root=str(tmp_path), tokens="bytes")).open([])


def test_a_tokenizer_is_plain_json():
    assert json.loads(Characters("ba").dumps()) == {"characters": "ab"}
