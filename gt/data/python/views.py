"""Functions as arrays: their syntax trees, or their tokens as paths, with words by their numbers."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gt.data.packed import pointers
from gt.data.python.syntax import EDGE_KINDS, NODE_TYPES, Sample
from gt.errors import UserError
from gt.schema import Schema

WORDS = 4000  # entries of the vocabulary
DEEPEST = 31
NONE, UNKNOWN, HIDDEN = 0, 1, 2  # the first entries of the vocabulary, the last where something is hidden by it
HIDDEN_WORD = "<hidden>"


def numbered(words: Iterable[Sequence[str]], hides: bool) -> dict[str, int]:
    """A vocabulary of the most frequent words; ties go by the alphabet. What is hidden has a number of its own."""
    counts = Counter(word for sample in words for word in sample if word)
    first = HIDDEN + hides
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: WORDS - first]
    number = {word: number for number, (word, _) in enumerate(ranked, first)} | {"": NONE}
    return number | {HIDDEN_WORD: HIDDEN} if hides else number


def words_of(number: Mapping[str, int]) -> tuple[str, ...]:
    """A vocabulary in the order of its numbers."""
    return ("", "<unknown>", *sorted((word for word in number if word), key=number.__getitem__))


def learned(words: Sequence[str | int]) -> dict[str, int]:
    """The vocabulary that `words_of` wrote."""
    return {str(word): place for place, word in enumerate(words) if place != UNKNOWN}


def flat(samples: Sequence[Sample], values: Callable[[Sample], Iterable[Any]]) -> Iterator[Any]:
    for sample in samples:
        yield from values(sample)


def hides(samples: Sequence[Sample]) -> bool:
    """Whether a variable is to be hidden in them."""
    return any(sample.slots[0] for sample in samples)


def slots(samples: Sequence[Sample], view: int) -> dict[str, np.ndarray]:
    """For each node 1 + the number of the variable that it mentions, or 0, and whether that may be hidden there."""
    if not hides(samples):
        return {}
    variable = np.fromiter(flat(samples, lambda s: s.variables[view]), np.int64)
    starts = pointers(np.array([len(sample.variables[view]) for sample in samples]))
    slot = np.zeros(len(variable), np.int64)
    slot[[start + node for start, sample in zip(starts, samples, strict=False) for node in sample.slots[view]]] = 1
    return {"variable": variable, "slot": slot}


def graph_view(samples: Sequence[Sample], train: Sequence[Sample], known: Schema | None) -> dict[str, Any]:
    """Syntax trees: x holds (type, word, depth), edge_attr the kind of each edge.

    Raises:
        UserError: a trained model has learned from the syntax of another Python.
    """
    types = tuple(NODE_TYPES)
    if known is not None and known.node_categories and known.node_categories[0] != types:
        raise UserError("the model has learned from another version of Python, whose syntax has other parts")
    if known is not None and known.node_categories:
        number = learned(known.node_categories[1])
    else:
        number = numbered((sample.tree.words for sample in train), hides(samples))
    x = np.stack(
        [
            np.fromiter(flat(samples, lambda s: s.tree.types), np.int64),
            np.fromiter((number.get(word, UNKNOWN) for word in flat(samples, lambda s: s.tree.words)), np.int64),
            np.minimum(np.fromiter(flat(samples, lambda s: s.tree.depths), np.int64), DEEPEST),
        ],
        axis=1,
    )
    edges = np.array(list(flat(samples, lambda s: s.tree.edges)), dtype=np.int64).reshape(-1, 3)
    return {
        "node_ptr": pointers(np.array([len(s.tree.types) for s in samples])),
        "edge_ptr": pointers(np.array([len(s.tree.edges) for s in samples])),
        "edge_index": edges[:, :2].T,
        "edges": {"edge_attr": edges[:, 2:]},
        "nodes": {"x": x} | slots(samples, 0),
        "vocab": {
            "node_vocab": (len(NODE_TYPES), WORDS, DEEPEST + 1),
            "edge_vocab": (len(EDGE_KINDS),),
            "node_names": ("type", "word", "depth"),
            "node_categories": (types, words_of(number), tuple(range(DEEPEST + 1))),
        },
    }


def sequence_view(samples: Sequence[Sample], train: Sequence[Sample], known: Schema | None) -> dict[str, Any]:
    """Tokens as a path: x holds the token, edges run to the next token (edge_attr 0) and to the one before (1)."""
    if known is not None and known.node_categories:
        number = learned(known.node_categories[0])
    else:
        number = numbered((sample.tokens for sample in train), hides(samples))
    sizes = np.array([len(sample.tokens) for sample in samples])
    x = np.fromiter((number.get(token, UNKNOWN) for token in flat(samples, lambda s: s.tokens)), np.int64)
    place = np.concatenate([np.arange(1, size) for size in sizes])
    edges = np.stack([np.stack([place - 1, place]), np.stack([place, place - 1])], axis=2).reshape(2, -1)
    return {
        "node_ptr": pointers(sizes),
        "edge_ptr": pointers(2 * (sizes - 1)),
        "edge_index": edges,
        "edges": {"edge_attr": np.tile([0, 1], len(place))[:, None]},
        "nodes": {"x": x[:, None]} | slots(samples, 1),
        "vocab": {
            "node_vocab": (WORDS,),
            "edge_vocab": (2,),
            "node_names": ("token",),
            "node_categories": (words_of(number),),
        },
    }
