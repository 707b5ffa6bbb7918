"""The built-in dataset: the functions of Python's own standard library. What kind of thing does each return?

Two views of the same functions: ``graph``, the syntax tree with its attributes, and ``sequence``, the tokens of the
source as a path graph. In the spirit of ogbg-code2 (Hu et al. 2020), without a download.
"""

import ast
import gc
import hashlib
import os
import platform
import sysconfig
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.progress import track
from torchmetrics import MetricCollection

from gt.data.python.syntax import CLASSES, EDGE_KINDS, FUNCTIONS, NODE_TYPES, Tree, answers, hidden, label, tokens, tree
from gt.data.source import Source
from gt.data.store import Graphs, pointers
from gt.errors import UserError
from gt.metrics import Criterion
from gt.schema import Schema

VERSION = 5  # raise when the same files would give other samples
SMALLEST, LARGEST, LONGEST = 10, 500, 512  # nodes of Python's tree at least and at most, tokens at most
WORDS = 4000  # entries of the vocabulary
DEEPEST = 31
# files are few and differ: of 50 salts the one whose splits are nearest to each other in their shares of the classes
SALT = "18"
NONE, UNKNOWN = 0, 1  # the first entries of the vocabulary
# what is not the library, and test suites: their functions return next to nothing, and some systems lack them
LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "turtledemo"}

View = Literal["graph", "sequence"]
Show = Callable[[Iterable[Any], str], Iterable[Any]]  # items and a description; gives the same items


@dataclass
class Sample:
    """One function, in both views."""

    label: int
    tree: Tree
    tokens: list[str]
    digest: bytes


def library() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def sources(root: Path) -> list[Path]:
    """The Python files below a folder, relative to it, in a fixed order, but for folders of `LEFT_OUT`.

    Raises:
        UserError: there are none, as where the library is zipped.
    """
    paths = []
    for folder, inner, files in os.walk(root):
        inner[:] = set(inner) - LEFT_OUT
        paths += [(Path(folder) / name).relative_to(root) for name in files if name.endswith(".py")]
    if not paths:
        raise UserError(f"no Python sources in {root}: this interpreter comes without them; use another one")
    return sorted(paths)


def split_of(path: Path) -> str:
    """The split of all functions of a file: eight tenths train, one valid, one test, by a hash of its name."""
    share = int.from_bytes(hashlib.sha256((SALT + path.as_posix()).encode()).digest()[:4]) / 2**32
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def read(path: Path) -> list[Sample] | None:
    """The samples of one file; None where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files hold invalid escapes
            module = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None
    samples = []
    for node in ast.walk(module):
        if not isinstance(node, FUNCTIONS):
            continue
        if not SMALLEST <= sum(1 for _ in ast.walk(node)) <= LARGEST:
            continue
        shown = hidden(node)
        source = ast.unparse(shown)
        words = tokens(source)
        if len(words) <= LONGEST:
            # duplicates have equal answers too: many short functions show the same and return different things
            answered = answers(node)
            digest = hashlib.sha256("\n".join([source, *map(ast.unparse, answered)]).encode()).digest()
            samples.append(Sample(label(answered), tree(shown), words, digest))
    return samples


def collect(root: Path, show: Show) -> tuple[dict[str, list[Sample]], dict[str, int]]:
    """Every distinct function by split, and counts of what was met; of equal functions the first stays."""
    paths = sources(root)
    by_split: dict[str, list[Sample]] = {"train": [], "valid": [], "test": []}
    seen: set[bytes] = set()
    facts = {"files": len(paths), "files that do not parse": 0, "functions": 0, "duplicates": 0}
    with ProcessPoolExecutor(initializer=gc.freeze) as pool:  # else each collection goes through all that was imported
        results = pool.map(read, [root / path for path in paths], chunksize=16)
        for path, samples in zip(show(paths, "reading Python's library"), results, strict=True):
            facts["files that do not parse"] += samples is None
            for sample in samples or ():
                facts["functions"] += 1
                if sample.digest in seen:
                    facts["duplicates"] += 1
                    continue
                seen.add(sample.digest)
                by_split[split_of(path)].append(sample)
    return by_split, facts


def numbered(words: Iterable[Sequence[str]]) -> dict[str, int]:
    """A vocabulary of the most frequent words, numbers from 2 on; ties go by the alphabet."""
    counts = Counter(word for sample in words for word in sample if word)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: WORDS - 2]
    return {word: number for number, (word, _) in enumerate(ranked, 2)} | {"": NONE}


def words_of(number: Mapping[str, int]) -> tuple[str, ...]:
    """A vocabulary in the order of its numbers."""
    return ("", "<unknown>", *sorted((word for word in number if word), key=number.__getitem__))


def learned(words: Sequence[str | int]) -> dict[str, int]:
    """The vocabulary that `words_of` wrote."""
    return {str(word): place for place, word in enumerate(words) if place != UNKNOWN}


def flat(samples: Sequence[Sample], values: Callable[[Sample], Iterable[Any]]) -> Iterator[Any]:
    for sample in samples:
        yield from values(sample)


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
        number = numbered(sample.tree.words for sample in train)
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
        "nodes": {"x": x},
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
        number = numbered(sample.tokens for sample in train)
    sizes = np.array([len(sample.tokens) for sample in samples])
    x = np.fromiter((number.get(token, UNKNOWN) for token in flat(samples, lambda s: s.tokens)), np.int64)
    place = np.concatenate([np.arange(1, size) for size in sizes])
    edges = np.stack([np.stack([place - 1, place]), np.stack([place, place - 1])], axis=2).reshape(2, -1)
    return {
        "node_ptr": pointers(sizes),
        "edge_ptr": pointers(2 * (sizes - 1)),
        "edge_index": edges,
        "edges": {"edge_attr": np.tile([0, 1], len(place))[:, None]},
        "nodes": {"x": x[:, None]},
        "vocab": {
            "node_vocab": (WORDS,),
            "edge_vocab": (2,),
            "node_names": ("token",),
            "node_categories": (words_of(number),),
        },
    }


def build(view: View, root: Path | None = None, show: Show = track, known: Schema | None = None) -> Graphs:
    """Read, hide, split and pack the functions below ``root``, the standard library where it is None.

    Args:
        view: how they are seen.
        root: where the sources are.
        show: shows how far it is.
        known: of a trained model, whose vocabulary is then that of the functions.

    Raises:
        UserError: no sources, or too few functions to have all three splits.
    """
    root = root or library()
    by_split, facts = collect(root, show)
    empty = [split for split, samples in by_split.items() if not samples]
    if empty:
        raise UserError(f"too few functions in {root}: none fell to {' and '.join(empty)}")
    samples = [sample for split in by_split.values() for sample in split]
    packed = (graph_view if view == "graph" else sequence_view)(samples, by_split["train"], known)
    ends = np.cumsum([0] + [len(split) for split in by_split.values()])
    schema = Schema(
        **packed.pop("vocab"),
        level="graph",
        kind="multiclass",
        outputs=len(CLASSES),
        names=CLASSES,
        target=("what it returns",),
        max_nodes=int(np.diff(packed["node_ptr"]).max()),
    )
    return Graphs(
        **packed,
        schema=schema,
        graphs={"y": np.array([sample.label for sample in samples])},
        splits={name: np.arange(ends[i], ends[i + 1]) for i, name in enumerate(by_split)},
        notes=facts,
    ).sort_edges()


def key(view: View, root: Path | None = None) -> dict[str, Any]:
    """What the built dataset depends on: the sources, and the version of Python that reads them."""
    root = root or library()
    sizes = [(path.as_posix(), (root / path).stat().st_size) for path in sources(root)]
    digest = hashlib.sha256(repr(sizes).encode()).hexdigest()
    python = platform.python_version()
    return {"dataset": "python_functions", "version": VERSION, "view": view, "python": python, "sources": digest}


class PythonFunctions(Source):
    """What kind of thing does a function return? About 15,000 functions, 7 classes, split by file.

    Args:
        view: ``graph`` (syntax trees) or ``sequence`` (tokens, a path graph) of the very same functions.
        root: where what is built is kept.
    """

    def __init__(self, view: View = "graph", root: str = "data") -> None:
        self.view, self.name, self.root = view, f"python_functions-{view}", Path(root)

    def measures(self, graphs: Graphs) -> tuple[MetricCollection, Criterion]:
        """Accuracy and macro F1; the loss decides.

        Of the 1,400 functions for validation an accuracy is known to about 1.2 %, by which the epochs do not differ,
        while the loss still falls, and rare classes are still being learned.
        """
        return super().measures(graphs)[0], Criterion("loss", "min")

    def key(self) -> dict[str, Any]:
        return key(self.view)

    def build(self) -> Graphs:
        return build(self.view)

    def build_known(self, known: Schema) -> Graphs:
        return build(self.view, known=known)
