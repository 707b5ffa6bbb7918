"""Text to integers and back: characters, bytes, words, or byte pairs.

A tokenizer is kept as text (JSON) beside the tokens and in the schema of the data, so that a checkpoint alone can read
a prompt and write an answer. That of byte pairs is a ``tokenizer.json`` as the package ``tokenizers`` writes it.
"""

import json
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gt.errors import UserError, first_line


class UnknownCharacter(UserError):
    """A text has a character that was not in those that a tokenizer was learned from."""


class Tokenizer(ABC):
    """Numbers 0 to ``size - 1`` for pieces of text.

    Attributes:
        unit: what a token is called where they are counted.
        size: how many there are.
        names: each token as text where a reader can make something of it, else none.
    """

    unit = "tokens"
    size: int
    names: tuple[str, ...] = ()

    @classmethod
    @abstractmethod
    def learn(cls, pieces: Iterable[str], size: int) -> "Tokenizer":
        """One for a text, given piece by piece, with at most ``size`` tokens where that is a choice."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens (T,) of each text."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens."""

    @abstractmethod
    def lengths(self) -> np.ndarray:
        """(size,) int64, the bytes of UTF-8 that each token stands for, unless the tokenizer alters the text."""

    @abstractmethod
    def dumps(self) -> str:
        """JSON that `loads` reads."""


class Characters(Tokenizer):
    """Every character (Unicode code point) of a text."""

    unit = "characters"

    def __init__(self, symbols: str) -> None:
        self.names = tuple(sorted(symbols))
        self.size = len(self.names)
        self._codes = self._numbers("".join(self.names))

    @staticmethod
    def _numbers(text: str) -> np.ndarray:
        return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)

    @classmethod
    def learn(cls, pieces: Iterable[str], size: int) -> "Characters":
        characters: set[str] = set()
        for piece in pieces:
            characters.update(piece)
        return cls("".join(characters))

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> np.ndarray:
        codes = self._numbers(text)
        tokens = np.searchsorted(self._codes, codes).clip(max=self.size - 1)
        strange = np.flatnonzero(self._codes[tokens] != codes)
        if len(strange):
            raise UnknownCharacter(
                f"the character {text[strange[0]]!r} is not among the {self.size} that this model knows"
            )
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.names[token] for token in tokens)

    def lengths(self) -> np.ndarray:
        return np.array([len(name.encode()) for name in self.names])

    def dumps(self) -> str:
        return json.dumps({"characters": "".join(self.names)})


class Bytes(Tokenizer):
    """Every byte of UTF-8: 256 tokens serve any text."""

    unit = "bytes"
    size = 256

    @classmethod
    def learn(cls, pieces: Iterable[str], size: int) -> "Bytes":
        return cls()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")  # a sample may stop within a character

    def lengths(self) -> np.ndarray:
        return np.ones(self.size, dtype=np.int64)

    def dumps(self) -> str:
        return json.dumps({"bytes": self.size})


class Words(Tokenizer):
    """Lower-case words and single marks, the most frequent ones of a text; all others are one token, 0."""

    UNKNOWN = "<unknown>"
    PATTERN = re.compile(r"\w+|[^\w\s]")

    def __init__(self, words: Sequence[str]) -> None:
        self.names = (self.UNKNOWN, *words)
        self.size = len(self.names)
        self._number = {word: number for number, word in enumerate(words, 1)}

    @classmethod
    def _split(cls, text: str) -> list[str]:
        return cls.PATTERN.findall(text.lower())

    @classmethod
    def learn(cls, pieces: Iterable[str], size: int) -> "Words":
        counts: Counter[str] = Counter()
        for piece in pieces:
            counts.update(cls._split(piece))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))  # ties go by the alphabet
        return cls([word for word, _ in ranked[: size - 1]])

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([self._number.get(w, 0) for w in self._split(text)], dtype=np.int64) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(self.names[token] for token in tokens)

    def lengths(self) -> np.ndarray:
        return np.array([len(name.encode()) for name in self.names])

    def dumps(self) -> str:
        return json.dumps({"words": self.names[1:]})


def _library() -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        import tokenizers
    except ImportError:
        raise UserError("byte pairs need the package tokenizers: pip install tokenizers") from None
    return tokenizers


LONG = re.compile(r"\S{4096}")  # a word that is learned from in parts, for the time goes with its square


def in_parts(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces, cut where a word goes on for thousands of characters, as all of a text without spaces does."""
    for piece in pieces:
        start = 0
        for part in LONG.finditer(piece):
            yield piece[start : part.end()]
            start = part.end()
        yield piece[start:]


class BytePairs(Tokenizer):
    """Byte-level byte pair encoding (Sennrich et al. 2016; GPT-2), or whatever a ``tokenizer.json`` holds.

    One that is learned here loses nothing and knows every text: it begins with all 256 bytes.
    """

    def __init__(self, text: str) -> None:
        self._tokenizer = _library().Tokenizer.from_str(text)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        self.size = max(self._vocabulary.values(), default=-1) + 1  # numbers may have gaps

    @classmethod
    def learn(cls, pieces: Iterable[str], size: int) -> "BytePairs":
        library = _library()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
        if size < len(alphabet):
            raise UserError(f"data.vocabulary={size} is too small: byte pairs begin with {len(alphabet)} bytes")
        trainer = library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(in_parts(pieces), trainer)
        return cls(tokenizer.to_str())

    @classmethod
    def read(cls, path: Path) -> "BytePairs":
        """One from a file.

        Raises:
            UserError: there is none, or the file does not hold a tokenizer.
        """
        try:
            tokenizer = cls(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"no tokenizer at {path}: set data.tokenizer to a tokenizer.json") from None
        except UserError:
            raise
        except Exception as error:  # the library raises bare Exceptions
            why = first_line(error)
            raise UserError(f"{path} holds no tokenizer that the package tokenizers can read: {why}") from None
        if not tokenizer.size:
            raise UserError(f"the tokenizer in {path} has no tokens")
        return tokenizer

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        try:
            encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except Exception as error:
            if type(error) is not Exception:  # the library raises bare ones
                raise
            raise UserError(
                f"the text has what its tokenizer has no token for ({first_line(error)}): take one with a token for "
                "the unknown (data.tokenizer)"
            ) from None
        return [np.array(each.ids, dtype=np.int64) for each in encoded]

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)

    def lengths(self) -> np.ndarray:
        alphabet = set(_library().pre_tokenizers.ByteLevel.alphabet())
        characters = np.zeros(self.size, dtype=np.int64)
        for token, number in self._vocabulary.items():  # in a byte-level vocabulary each character stands for a byte
            characters[number] = len(token) if alphabet.issuperset(token) else len(token.encode())
        return characters

    def dumps(self) -> str:
        return self._tokenizer.to_str()


KINDS: dict[str, type[Tokenizer]] = {"characters": Characters, "bytes": Bytes, "words": Words, "bpe": BytePairs}


def loads(text: str) -> Tokenizer:
    """The tokenizer that `Tokenizer.dumps` wrote."""
    facts = json.loads(text)
    if "characters" in facts:
        return Characters(facts["characters"])
    if "words" in facts:
        return Words(facts["words"])
    return Bytes() if "bytes" in facts else BytePairs(text)
