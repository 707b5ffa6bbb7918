"""A small text for tests, and text files opened as data of language models."""

from pathlib import Path

from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData
from tests.data.modules import make_data

CORPUS = [f"the {a} cat and the {b} dog, naïve 🙂\n" for a in ("red", "old") for b in ("new", "wet")] * 5


def open_data(path: Path, **options) -> Text:
    data = make_data(
        LanguageData, Text, str(path), **({"context": 8, "batch_size": 4, "root": str(path.parent / "root")} | options)
    )
    data.open([])
    return data
