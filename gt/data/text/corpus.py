"""Corpora for language models: text files, split by name or by position, and their tokenizers."""

from abc import ABC, abstractmethod
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from gt.data.datamodule import ALL
from gt.data.source import small
from gt.data.text.files import digest, file_summary, pieces, store_name, text_files
from gt.data.text.tokenizer import KINDS, BytePairs, Tokenizer, loads
from gt.data.text.tokens import VERSION, Texts, held_out
from gt.schema import Schema

Kind = Literal["characters", "bytes", "bpe"]


class Corpus(ABC):
    """Base of corpora: the text of each split, and its tokenizer.

    Args:
        valid: the share of the training text, at its end, held out for validation if there is no such split.
        tokens: the unit of tokens: ``characters``, ``bytes``, or ``bpe``, byte pairs learned on the training text.
        vocabulary: size of the vocabulary, for ``bpe``.
        tokenizer: a ``tokenizer.json`` to use instead.
        root: the folder of the tokens, in ``<root>/stores``.

    Attributes:
        made_of: see `gt.data.source.Source`.
        hint: what to do if the text is empty.
    """

    made_of = ""
    hint = "set data.path to a file with text"

    def __init__(
        self,
        valid: float = 0.1,
        tokens: Kind = "characters",
        vocabulary: int = 8192,
        tokenizer: str | None = None,
        root: str = "data",
    ) -> None:
        if not 0 < valid < 1:
            raise ValueError(f"valid, the held-out share, must be between 0 and 1, not {valid}")
        if tokens not in KINDS:
            raise ValueError(f"tokens must be characters, bytes or bpe, not {tokens}")
        self.valid, self.root, self.kind, self.vocabulary = valid, Path(root), tokens, vocabulary
        self.tokenizer = None if tokenizer is None else Path(tokenizer)

    @abstractmethod
    def __str__(self) -> str:
        """The name of the text in messages."""

    def check_files(self) -> None:  # noqa: B027  most sources have none
        """See `gt.data.source.Source.check_files`."""

    def summary(self) -> str:
        """A line that lists the files of each split; empty if there is nothing to report."""
        return ""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """JSON-serialisable metadata that identifies the text."""

    @abstractmethod
    def texts(self) -> Texts:
        """The text of each split; ``train`` at least."""

    def key(self) -> dict[str, Any]:
        """Everything the stored tokens depend on."""
        if self.tokenizer is not None:
            facts: dict[str, Any] = {"tokenizer": BytePairs.read(self.tokenizer).dumps()}
        else:
            facts = {"tokens": self.kind, "vocabulary": self.vocabulary if self.kind == "bpe" else None}
        return facts | {"version": VERSION, "source": self.facts(), "valid": self.valid}

    def build(self) -> tuple[Texts, Tokenizer]:
        """The text by split, and its tokenizer; byte pairs are learned only on the training text."""
        texts = held_out(self.texts(), self.valid, str(self), self.hint)
        if self.tokenizer is not None:
            return texts, BytePairs.read(self.tokenizer)
        learned_on = ["train"] if self.kind == "bpe" else texts
        text = (piece for split in learned_on for piece in texts[split]())
        return texts, KINDS[self.kind].learn(text, self.vocabulary)

    def build_known(self, model_schema: Schema) -> tuple[Texts, Tokenizer]:
        """The concatenated text of all splits, and the tokenizer of a trained model."""
        texts = list(self.texts().values())
        return {ALL: lambda: (piece for text in texts for piece in text())}, loads(model_schema.tokenizer)


class Text(Corpus):
    """The text of a file, of a folder, or of the files that match a glob.

    Files are concatenated in the order of their names. Those that name a split (``wiki.train.txt``, ``valid.txt``)
    belong to it, see `text_files`; the others are for training. Without a validation file, the end of the training text
    is held out.

    Args:
        path: UTF-8 text; ``.gz`` is unpacked. The rest as in `Corpus`.
    """

    def __init__(
        self,
        path: str,
        valid: float = 0.1,
        tokens: Kind = "characters",
        vocabulary: int = 8192,
        tokenizer: str | None = None,
        root: str = "data",
    ) -> None:
        super().__init__(valid, tokens, vocabulary, tokenizer, root)
        self.path, self.made_of = path, store_name(path)

    def __str__(self) -> str:
        return self.path

    def check_files(self) -> None:
        if small(list(chain.from_iterable(text_files(self.path).values()))):
            held_out(self.texts(), self.valid, str(self), self.hint)

    def summary(self) -> str:
        return file_summary(self.path, text_files(self.path))

    def facts(self) -> dict[str, Any]:
        return {"text": digest(text_files(self.path))}

    def texts(self) -> Texts:
        return {split: partial(pieces, paths) for split, paths in text_files(self.path).items()}
