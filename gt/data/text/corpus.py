"""Text to learn a language from: of files, split by their names or at the end; and what its tokens are."""

from abc import ABC, abstractmethod
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from gt.data.datamodule import ALL
from gt.data.source import small
from gt.data.text.files import digest, files_told, pieces, text_files, word_for
from gt.data.text.tokenizer import KINDS, BytePairs, Tokenizer, loads
from gt.data.text.tokens import VERSION, Texts, held_out
from gt.schema import Schema

Kind = Literal["characters", "bytes", "bpe"]


class Corpus(ABC):
    """The text of each split, and its tokens.

    Args:
        valid: the share of the training text, at its end, that is held out where there is no text for validation.
        tokens: what a token is: ``characters``, ``bytes``, or ``bpe``, byte pairs learned on the training text.
        vocabulary: how many tokens to learn, for ``bpe``.
        tokenizer: a ``tokenizer.json`` to take instead.
        root: where tokens are kept, in ``<root>/stores``.

    Attributes:
        made_of: see `gt.data.source.Source`.
        mend: what to do where the text is empty.
    """

    made_of = ""
    mend = "set data.path to a file with text"

    def __init__(
        self,
        valid: float = 0.1,
        tokens: Kind = "characters",
        vocabulary: int = 8192,
        tokenizer: str | None = None,
        root: str = "data",
    ) -> None:
        if not 0 < valid < 1:
            raise ValueError(f"valid, the share that is held out, must lie between 0 and 1, not {valid}")
        if tokens not in KINDS:
            raise ValueError(f"tokens must be characters, bytes or bpe, not {tokens}")
        self.valid, self.root, self.kind, self.vocabulary = valid, Path(root), tokens, vocabulary
        self.tokenizer = None if tokenizer is None else Path(tokenizer)

    @abstractmethod
    def __str__(self) -> str:
        """What messages call the text."""

    def check_files(self) -> None:  # noqa: B027  most sources read none
        """See `gt.data.source.Source.check_files`."""

    def summary(self) -> str:
        """Which files are for what, in a line; nothing where there is nothing to say."""
        return ""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """JSON-able facts that tell the text from any other."""

    @abstractmethod
    def texts(self) -> Texts:
        """The text of each split; ``train`` at least."""

    def key(self) -> dict[str, Any]:
        """What the stored tokens depend on."""
        if self.tokenizer is not None:
            facts: dict[str, Any] = {"tokenizer": BytePairs.read(self.tokenizer).dumps()}
        else:
            facts = {"tokens": self.kind, "vocabulary": self.vocabulary if self.kind == "bpe" else None}
        return facts | {"version": VERSION, "source": self.facts(), "valid": self.valid}

    def build(self) -> tuple[Texts, Tokenizer]:
        """The text by split, and a tokenizer for it; byte pairs are learned on the training text alone."""
        texts = held_out(self.texts(), self.valid, str(self), self.mend)
        if self.tokenizer is not None:
            return texts, BytePairs.read(self.tokenizer)
        learned_on = ["train"] if self.kind == "bpe" else texts
        text = (piece for split in learned_on for piece in texts[split]())
        return texts, KINDS[self.kind].learn(text, self.vocabulary)

    def build_known(self, known: Schema) -> tuple[Texts, Tokenizer]:
        """The text of every split, one after the other, and the tokenizer of a trained model."""
        texts = list(self.texts().values())
        return {ALL: lambda: (piece for text in texts for piece in text())}, loads(known.tokenizer)


class Text(Corpus):
    """The text of a file, of a folder, or of the files that fit a glob.

    Files follow one another in the order of their names. Those that name a split (``wiki.train.txt``, ``valid.txt``)
    belong to it, see `text_files`, and the others are for training; without one for validation the last part of these
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
        self.path, self.made_of = path, word_for(path)

    def __str__(self) -> str:
        return self.path

    def check_files(self) -> None:
        if small(list(chain.from_iterable(text_files(self.path).values()))):
            held_out(self.texts(), self.valid, str(self), self.mend)

    def summary(self) -> str:
        return files_told(self.path, text_files(self.path))

    def facts(self) -> dict[str, Any]:
        return {"text": digest(text_files(self.path))}

    def texts(self) -> Texts:
        return {split: partial(pieces, paths) for split, paths in text_files(self.path).items()}
