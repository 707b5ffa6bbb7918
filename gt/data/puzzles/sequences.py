"""What can a model recall from a sequence? Tokens are nodes of a path; the targets are at its end.

Edges run to the next token (kind 0) and to the previous one (kind 1). With positional masks, such as ``mask=causal``,
a model reads these graphs as a language model reads text.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gt.data.puzzles.base import Puzzle, Samples, add_reverses, balanced, label_at
from gt.ranges import at_least
from gt.schema import UNLABELLED


class SequencePuzzle(Puzzle):
    """A puzzle with a single feature, the token."""

    columns: ClassVar[tuple[str, ...]] = ("token",)

    def path(self, tokens: np.ndarray, y: np.ndarray) -> Samples:
        """Sequences (G, n) of tokens with their targets (G, n)."""
        node = np.arange(tokens.shape[1] - 1)
        return Samples(tokens[..., None], y, add_reverses(node, node + 1), np.repeat([0, 1], len(node)))


@dataclass(kw_only=True, eq=False)
class Copying(SequencePuzzle):
    """The copying problem (Hochreiter & Schmidhuber 1997; Arjovsky et al. 2016): repeat what came before a pause.

    ``length`` random symbols, ``pause`` blanks, and ``length`` marks; the i-th mark predicts the i-th symbol.

        a c b . . . . . . ? ? ?  ->  a c b

    Args:
        length: number of symbols to copy.
        pause: blanks between them and the marks.
        symbols: size of the alphabet.
    """

    length: int = 8
    pause: int = 16
    symbols: int = 8

    name = "copying"
    target_name: ClassVar[str] = "symbol of this turn"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.length, "length")
        at_least(0, self.pause, "pause")
        at_least(2, self.symbols, "symbols")

    @property
    def classes(self) -> int:
        return self.symbols

    @property
    def vocab(self) -> tuple[int, ...]:
        return (self.symbols + 2,)

    def draw(self, rng: np.random.Generator, count: int) -> Samples:
        symbols = balanced(rng, count * self.length, self.symbols).reshape(count, self.length)
        blank, mark = self.symbols, self.symbols + 1
        tokens = np.full((count, 2 * self.length + self.pause), blank)
        tokens[:, : self.length], tokens[:, -self.length :] = symbols, mark
        y = np.full_like(tokens, UNLABELLED)
        y[:, -self.length :] = symbols
        return self.path(tokens, y)


@dataclass(kw_only=True, eq=False)
class AssociativeRecall(SequencePuzzle):
    """Associative recall (Graves et al. 2014; Olsson et al. 2022): the value that followed a key.

    Pairs of a key and a value with distinct keys, then one of the keys again, at which its value is predicted. One
    attention layer can find the key, but the value is the next token: this takes two layers, an induction head.

        c 3 a 1 d 1 b 2 a  ->  1

    Args:
        pairs: number of pairs in a sequence.
        keys, values: number of possible keys and values.
    """

    pairs: int = 8
    keys: int = 16
    values: int = 16

    name = "associative_recall"
    target_name: ClassVar[str] = "value after the key"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.pairs, "pairs")
        at_least(self.pairs, self.keys, "keys")
        at_least(2, self.values, "values")

    @property
    def classes(self) -> int:
        return self.values

    @property
    def vocab(self) -> tuple[int, ...]:
        return (self.keys + self.values,)

    def draw(self, rng: np.random.Generator, count: int) -> Samples:
        graph, query = np.arange(count), rng.integers(self.pairs, size=count)
        label = balanced(rng, count, self.values)
        keys = rng.permuted(np.tile(np.arange(self.keys), (count, 1)), axis=1)[:, : self.pairs]
        values = rng.integers(self.values, size=(count, self.pairs))
        values[graph, query] = label
        pairs = np.stack([keys, self.keys + values], -1).reshape(count, -1)
        tokens = np.concatenate([pairs, keys[graph, query, None]], axis=1)
        return self.path(tokens, label_at(np.full(count, tokens.shape[1] - 1), label, tokens.shape[1]))


@dataclass(kw_only=True, eq=False)
class Needle(SequencePuzzle):
    """A needle in a haystack: one token of a long sequence holds a class, all others are noise.

    The needle is anywhere but at the last token, where its class is predicted.

    Args:
        length: tokens of a sequence.
        noise: number of possible noise tokens.
    """

    length: int = 128
    noise: int = 32

    name = "needle"
    classes: ClassVar[int] = 10
    target_name: ClassVar[str] = "class of the needle"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, self.length, "length")
        at_least(1, self.noise, "noise")

    @property
    def vocab(self) -> tuple[int, ...]:
        return (self.noise + self.classes + 1,)

    def draw(self, rng: np.random.Generator, count: int) -> Samples:
        label, last = balanced(rng, count, self.classes), self.length - 1
        tokens = rng.integers(self.noise, size=(count, self.length))
        tokens[np.arange(count), rng.integers(last, size=count)] = self.noise + label
        tokens[:, last] = self.noise + self.classes
        return self.path(tokens, label_at(np.full(count, last), label, self.length))
