"""Texts of the Hugging Face hub, with a stand-in for the package ``datasets``."""

import sys
import types

import pytest
import torch

from gt.data.text.hub import HuggingFaceText
from gt.data.text.language import LanguageData
from gt.errors import UserError
from tests.data.modules import make_data


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
    data = make_data(LanguageData, HuggingFaceText, "wikitext", **options)
    data.open([])
    assert requests == [("wikitext", "raw", None)]
    decoded = {split: data.opened.tokenizer.decode(tokens.tolist()) for split, tokens in data.tokens.items()}
    repeat = "\n = A = \nno end\n\n"
    assert decoded == {"train": repeat * 20, "valid": repeat * 2, "test": repeat}
    batch = next(iter(data.loader("train")))
    assert torch.equal(batch.x[1:8, 0], batch.y[:7])
    make_data(LanguageData, HuggingFaceText, "wikitext", **options).open([])
    assert len(requests) == 1  # the store is reused, without the network


def test_local_dataset_store_depends_on_its_files(tmp_path, monkeypatch):
    requests, folder = fake_hub(monkeypatch, {"train": FakeRows([{"text": "a word"}] * 20)}), tmp_path / "own"
    (folder / "inner").mkdir(parents=True)
    names = ["inner/train.txt", "inner/dev.txt"]
    for ordered in (names, names[::-1], names):
        for content, name in enumerate(ordered):
            (folder / name).write_text(str(content))
        make_data(LanguageData, HuggingFaceText, str(folder), tokens="bytes", context=8, root=str(tmp_path)).open([])
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
