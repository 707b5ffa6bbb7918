"""Tokenizers: round trips, vocabularies, serialisation, and tokenizers from files."""

import json
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gt.data.text.tokenizer import BytePairs, Bytes, Characters, Words, in_parts, loads
from gt.errors import UserError
from tests.data.text.corpora import CORPUS, open_data

TEXTS = ["", "the cat", "  two  spaces\n\n\ttab ", "unseen Zürich 漢字 \U0010ffff\0"]


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


def test_tokenizer_is_serialised_as_json():
    assert json.loads(Characters("ba").dumps()) == {"characters": "ab"}
