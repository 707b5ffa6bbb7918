"""A corpus for language models that needs no download: the source of Python's own standard library."""

from functools import partial
from pathlib import Path
from typing import Any

from gt.data.python.library import library, sources, split_of
from gt.data.text.corpus import Corpus, Kind
from gt.data.text.files import digest, pieces
from gt.data.text.tokens import Texts


class PythonText(Corpus):
    """The concatenated files of Python's standard library, 12 MB, with the same split as their functions.

    Args:
        tokens, vocabulary, tokenizer, root: see `Corpus`.
    """

    def __init__(
        self, tokens: Kind = "characters", vocabulary: int = 8192, tokenizer: str | None = None, root: str = "data"
    ) -> None:
        super().__init__(tokens=tokens, vocabulary=vocabulary, tokenizer=tokenizer, root=root)

    def __str__(self) -> str:
        return "Python's library"

    def files(self) -> dict[str, list[Path]]:
        """The files of each split."""
        root = library()
        by_split: dict[str, list[Path]] = {"train": [], "valid": [], "test": []}
        for path in sources(root):
            by_split[split_of(path)].append(root / path)
        return by_split

    def facts(self) -> dict[str, Any]:
        return {"python": digest(self.files())}

    def texts(self) -> Texts:
        return {split: partial(pieces, paths) for split, paths in self.files().items()}
