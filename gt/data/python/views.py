"""Functions as arrays: their syntax trees, or their tokens as paths, with words as vocabulary indices."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gt.data.packed import pointers
from gt.data.python.syntax import EDGE_KINDS, NODE_TYPES, Sample
from gt.errors import UserError
from gt.schema import Schema

VOCABULARY_SIZE = 4000
MAX_DEPTH = 31  # larger depths are clipped to this
NONE, UNKNOWN, HIDDEN = 0, 1, 2  # the first entries of the vocabulary; HIDDEN only for tasks that hide words
HIDDEN_WORD = "<hidden>"


def build_vocabulary(words: Iterable[Sequence[str]], with_hidden: bool) -> dict[str, int]:
    """A vocabulary of the most frequent words, ties in alphabetical order, with an entry for hidden words if needed."""
    counts = Counter(word for sample in words for word in sample if word)
    first = HIDDEN + with_hidden
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: VOCABULARY_SIZE - first]
    vocabulary = {word: index for index, (word, _) in enumerate(ranked, first)} | {"": NONE}
    return vocabulary | {HIDDEN_WORD: HIDDEN} if with_hidden else vocabulary


def words_of(vocabulary: Mapping[str, int]) -> tuple[str, ...]:
    """The words of a vocabulary in order of their indices."""
    return ("", "<unknown>", *sorted((word for word in vocabulary if word), key=vocabulary.__getitem__))


def load_vocabulary(words: Sequence[str | int]) -> dict[str, int]:
    """The vocabulary from the output of `words_of`, as stored with a trained model."""
    return {str(word): index for index, word in enumerate(words) if index != UNKNOWN}


def flatten(samples: Sequence[Sample], values: Callable[[Sample], Iterable[Any]]) -> Iterator[Any]:
    for sample in samples:
        yield from values(sample)


def has_slots(samples: Sequence[Sample]) -> bool:
    """Whether a variable will be hidden in them."""
    return any(sample.slots[0] for sample in samples)


def slots(samples: Sequence[Sample], view: int) -> dict[str, np.ndarray]:
    """For each node, 1 + the index of the variable that it mentions or 0, and whether it may be hidden there."""
    if not has_slots(samples):
        return {}
    variable = np.fromiter(flatten(samples, lambda s: s.variables[view]), np.int64)
    starts = pointers(np.array([len(sample.variables[view]) for sample in samples]))
    slot = np.zeros(len(variable), np.int64)
    slot[[start + node for start, sample in zip(starts, samples, strict=False) for node in sample.slots[view]]] = 1
    return {"variable": variable, "slot": slot}


def graph_view(samples: Sequence[Sample], train: Sequence[Sample], model_schema: Schema | None) -> dict[str, Any]:
    """Syntax trees: x holds (type, word, depth), edge_attr the kind of each edge.

    Raises:
        UserError: the trained model was trained on the syntax of a different Python version.
    """
    types = tuple(NODE_TYPES)
    if model_schema is not None and model_schema.node_categories and model_schema.node_categories[0] != types:
        raise UserError("the model was trained with another version of Python, whose syntax has different node types")
    if model_schema is not None and model_schema.node_categories:
        vocabulary = load_vocabulary(model_schema.node_categories[1])
    else:
        vocabulary = build_vocabulary((sample.tree.words for sample in train), has_slots(samples))
    x = np.stack(
        [
            np.fromiter(flatten(samples, lambda s: s.tree.types), np.int64),
            np.fromiter((vocabulary.get(word, UNKNOWN) for word in flatten(samples, lambda s: s.tree.words)), np.int64),
            np.minimum(np.fromiter(flatten(samples, lambda s: s.tree.depths), np.int64), MAX_DEPTH),
        ],
        axis=1,
    )
    edges = np.array(list(flatten(samples, lambda s: s.tree.edges)), dtype=np.int64).reshape(-1, 3)
    return {
        "node_ptr": pointers(np.array([len(s.tree.types) for s in samples])),
        "edge_ptr": pointers(np.array([len(s.tree.edges) for s in samples])),
        "edge_index": edges[:, :2].T,
        "edges": {"edge_attr": edges[:, 2:]},
        "nodes": {"x": x} | slots(samples, 0),
        "vocab": {
            "node_vocab": (len(NODE_TYPES), VOCABULARY_SIZE, MAX_DEPTH + 1),
            "edge_vocab": (len(EDGE_KINDS),),
            "node_names": ("type", "word", "depth"),
            "node_categories": (types, words_of(vocabulary), tuple(range(MAX_DEPTH + 1))),
        },
    }


def sequence_view(samples: Sequence[Sample], train: Sequence[Sample], model_schema: Schema | None) -> dict[str, Any]:
    """Tokens as a path: x holds the token, edges run to the next token (edge_attr 0) and to the previous one (1)."""
    if model_schema is not None and model_schema.node_categories:
        vocabulary = load_vocabulary(model_schema.node_categories[0])
    else:
        vocabulary = build_vocabulary((sample.tokens for sample in train), has_slots(samples))
    sizes = np.array([len(sample.tokens) for sample in samples])
    x = np.fromiter((vocabulary.get(token, UNKNOWN) for token in flatten(samples, lambda s: s.tokens)), np.int64)
    position = np.concatenate([np.arange(1, size) for size in sizes])
    edges = np.stack([np.stack([position - 1, position]), np.stack([position, position - 1])], axis=2).reshape(2, -1)
    return {
        "node_ptr": pointers(sizes),
        "edge_ptr": pointers(2 * (sizes - 1)),
        "edge_index": edges,
        "edges": {"edge_attr": np.tile([0, 1], len(position))[:, None]},
        "nodes": {"x": x[:, None]} | slots(samples, 1),
        "vocab": {
            "node_vocab": (VOCABULARY_SIZE,),
            "edge_vocab": (2,),
            "node_names": ("token",),
            "node_categories": (words_of(vocabulary),),
        },
    }
