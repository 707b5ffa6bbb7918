"""Tokenizers: text to integers and back, by characters, bytes, words, or byte pairs.

A tokenizer is stored as JSON text beside the tokens and in the schema of the data, so that a checkpoint alone suffices
to encode a prompt and decode the output. For byte pairs this is a ``tokenizer.json`` of the package ``tokenizers``.
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
    """A text has a character that the tokenizer was not trained on."""


class Tokenizer(ABC):
    """Maps pieces of text to token ids, 0 to ``size - 1``.

    Attributes:
        unit: the noun for tokens in messages.
        size: size of the vocabulary.
        names: the text of each token if it is readable, else empty.
    """

    unit = "tokens"
    size: int
    names: tuple[str, ...] = ()

    @classmethod
    @abstractmethod
    def learn(cls, pieces: Iterable[str], size: int) -> "Tokenizer":
        """Train a tokenizer on text given in pieces, with at most ``size`` tokens if the size is adjustable."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The token ids (T,) of each text."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""

    @abstractmethod
    def lengths(self) -> np.ndarray:
        """(size,) int64, the length of each token in UTF-8 bytes, exact unless the tokenizer alters the text."""

    @abstractmethod
    def dumps(self) -> str:
        """Serialise to JSON for `loads`."""


class Characters(Tokenizer):
    """Every character (Unicode code point) of a text."""

    unit = "characters"

    def __init__(self, symbols: str) -> None:
        self.names = tuple(sorted(symbols))
        self.size = len(self.names)
        self._codes = self._code_points("".join(self.names))

    @staticmethod
    def _code_points(text: str) -> np.ndarray:
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
        codes = self._code_points(text)
        tokens = np.searchsorted(self._codes, codes).clip(max=self.size - 1)
        unknown = np.flatnonzero(self._codes[tokens] != codes)
        if len(unknown):
            raise UnknownCharacter(
                f"the character {text[unknown[0]]!r} is not among the {self.size} known to this model"
            )
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.names[token] for token in tokens)

    def lengths(self) -> np.ndarray:
        return np.array([len(name.encode()) for name in self.names])

    def dumps(self) -> str:
        return json.dumps({"characters": "".join(self.names)})


class Bytes(Tokenizer):
    """UTF-8 bytes: 256 tokens for any text."""

    unit = "bytes"
    size = 256

    @classmethod
    def learn(cls, pieces: Iterable[str], size: int) -> "Bytes":
        return cls()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")  # generated text may end within a character

    def lengths(self) -> np.ndarray:
        return np.ones(self.size, dtype=np.int64)

    def dumps(self) -> str:
        return json.dumps({"bytes": self.size})


class Words(Tokenizer):
    """The most frequent lower-case words and punctuation marks of a text; all others map to token 0."""

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
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))  # ties in alphabetical order
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


LONG_WORD = re.compile(r"\S{4096}")  # split for training, whose time is quadratic in the length of a word


def in_parts(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces, with words of thousands of characters split, as in text without spaces."""
    for piece in pieces:
        start = 0
        for part in LONG_WORD.finditer(piece):
            yield piece[start : part.end()]
            start = part.end()
        yield piece[start:]


class BytePairs(Tokenizer):
    """Byte-level byte pair encoding (Sennrich et al. 2016; GPT-2), or any tokenizer in a ``tokenizer.json``.

    A tokenizer trained here is lossless and handles any text, as its vocabulary includes all 256 bytes.
    """

    def __init__(self, text: str) -> None:
        self._tokenizer = _library().Tokenizer.from_str(text)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        self.size = max(self._vocabulary.values(), default=-1) + 1  # ids may have gaps

    @classmethod
    def learn(cls, pieces: Iterable[str], size: int) -> "BytePairs":
        library = _library()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
        if size < len(alphabet):
            raise UserError(f"data.vocabulary={size} is too small: byte pairs need at least {len(alphabet)} entries")
        trainer = library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(in_parts(pieces), trainer)
        return cls(tokenizer.to_str())

    @classmethod
    def read(cls, path: Path) -> "BytePairs":
        """Read a tokenizer from a file.

        Raises:
            UserError: the file is missing or does not hold a tokenizer.
        """
        try:
            tokenizer = cls(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"no tokenizer at {path}: set data.tokenizer to a tokenizer.json") from None
        except UserError:
            raise
        except Exception as error:  # the library raises bare Exceptions
            cause = first_line(error)
            raise UserError(f"{path} is not a tokenizer that the package tokenizers can read: {cause}") from None
        if not tokenizer.size:
            raise UserError(f"the tokenizer in {path} has no tokens")
        return tokenizer

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        try:
            encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except Exception as error:
            if type(error) is not Exception:  # the library raises bare Exceptions
                raise
            raise UserError(
                f"the tokenizer has no token for part of the text ({first_line(error)}): use one with an unknown token "
                "(data.tokenizer)"
            ) from None
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encoded]

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)

    def lengths(self) -> np.ndarray:
        alphabet = set(_library().pre_tokenizers.ByteLevel.alphabet())
        lengths = np.zeros(self.size, dtype=np.int64)
        for token, number in self._vocabulary.items():  # a character of a byte-level vocabulary stands for a byte
            lengths[number] = len(token) if alphabet.issuperset(token) else len(token.encode())
        return lengths

    def dumps(self) -> str:
        return self._tokenizer.to_str()


KINDS: dict[str, type[Tokenizer]] = {"characters": Characters, "bytes": Bytes, "words": Words, "bpe": BytePairs}


def loads(text: str) -> Tokenizer:
    """The inverse of `Tokenizer.dumps`."""
    content = json.loads(text)
    if "characters" in content:
        return Characters(content["characters"])
    if "words" in content:
        return Words(content["words"])
    return Bytes() if "bytes" in content else BytePairs(text)
