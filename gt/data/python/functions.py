"""The built-in dataset: the functions of Python's own standard library, without a download.

Two tasks: which variable belongs at a hidden use (`gt.data.python.misuse`), and what kind of value a function returns
(`gt.data.python.returns`). Two views of the same functions: ``graph``, the syntax tree with its attributes, and
``sequence``, the tokens of the source as a path graph. In the spirit of ogbg-code2 (Hu et al. 2020).
"""

import hashlib
import platform
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from gt.data.batch_sampler import Request
from gt.data.batching import GraphDataset
from gt.data.packed import Graphs
from gt.data.python import misuse, returns
from gt.data.python.library import Samples, Show, collect, library, read, sources
from gt.data.python.syntax import Sample
from gt.data.python.views import UNKNOWN, graph_view, sequence_view
from gt.data.source import Source
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.losses import Criterion
from gt.ranges import at_least
from gt.schema import Schema

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

VERSION = {"returns": 5, "misuse": 1}  # raise when the same files would give different samples

View = Literal["graph", "sequence"]
Task = Literal["misuse", "returns"]
EXAMPLE_NODES, EXAMPLE_VARIABLES = 70, 4  # maximum nodes and minimum variables of printed functions
VIEWS = ("graph", "sequence")
SAMPLES: dict[str, Samples] = {"misuse": misuse.samples, "returns": returns.samples}


def build(task: Task, view: View, root: Path, show: Show = track, model_schema: Schema | None = None) -> Graphs:
    """Read, split and pack the functions of the files below a folder.

    Args:
        task, view: see `PythonFunctions`.
        root: the folder of the sources.
        show: displays progress.
        model_schema: the schema of a trained model, whose vocabulary is then used.

    Raises:
        UserError: no sources, or too few functions to have all three splits.
    """
    by_split, counts = collect(root, SAMPLES[task], show)
    empty = [split for split, samples in by_split.items() if not samples and model_schema is None]
    if empty:
        raise UserError(f"too few functions in {root}: none fell into {' and '.join(empty)}")
    if not any(by_split.values()):
        raise UserError(f"no suitable function in {root}: none has two variables, or 10 to 500 nodes")
    paths, samples = zip(*(pair for split in by_split.values() for pair in split), strict=True)
    train = [sample for _, sample in by_split["train"]]
    packed = (graph_view if view == "graph" else sequence_view)(samples, train, model_schema)
    ends = np.cumsum([0] + [len(split) for split in by_split.values()])
    number = {path: index for index, path in enumerate(sources(root))}
    per_graph = {
        "file": np.array([number[path] for path in paths]),
        "line": np.array([sample.line for sample in samples]),
    }
    task_fields: dict[str, Any] = {"outputs": misuse.MAX_VARIABLES, "pointer": True, "target": ("the hidden variable",)}
    if task == "returns":
        task_fields = {"outputs": len(returns.CLASSES), "names": returns.CLASSES, "target": ("what it returns",)}
        per_graph["y"] = np.array([sample.label for sample in samples])
    elif view == "graph":
        per_graph["added_edges"] = np.array([2 * np.count_nonzero(sample.variables[0]) for sample in samples])
    schema = Schema(
        **packed.pop("vocab"),
        level="graph",
        kind="multiclass",
        max_nodes=int(np.diff(packed["node_ptr"]).max()),
        **task_fields,
    )
    return Graphs(
        **packed,
        schema=schema,
        graphs=per_graph,
        splits={name: np.arange(ends[i], ends[i + 1]) for i, name in enumerate(by_split)},
        notes=counts,
    ).sort_edges()


def key(task: Task, view: View, root: Path) -> dict[str, Any]:
    """What the built dataset depends on: the sources, and the version of Python that reads them."""
    total = hashlib.sha256()
    for path in sources(root):
        with suppress(OSError):  # unreadable files have no functions
            total.update(f"{path.as_posix()} {hashlib.sha256((root / path).read_bytes()).hexdigest()}\n".encode())
    return {
        "dataset": f"python_{task}",
        "version": VERSION[task],
        "view": view,
        "python": platform.python_version(),
        "sources": total.hexdigest(),
    }


@lru_cache(maxsize=8)  # functions of the same file are consecutive
def _samples_by_line(path: Path, task: Task) -> dict[int, Sample]:
    """The functions of a file in its current state, by the line where each begins."""
    return {sample.line: sample for sample in read(path, SAMPLES[task]) or ()}


class PythonFunctions(Source):
    """The functions of Python's standard library, or of a user's folder, split by file.

    Args:
        task: ``misuse``: which variable belongs at a hidden use, drawn anew each epoch; `slots` fixed uses for each
            validation and test function. ``returns``: what kind of value a function returns, one of 7 classes.
        view: ``graph`` (syntax trees) or ``sequence`` (tokens, a path graph) of the same functions.
        path: a folder with Python files; None for the library.
        slots: see ``task``.
        root: the folder of the built stores.
    """

    def __init__(
        self, task: Task = "misuse", view: View = "graph", path: str | None = None, slots: int = 2, root: str = "data"
    ) -> None:
        at_least(1, slots, "slots")
        if task not in SAMPLES:
            raise ValueError(f"task must be {' or '.join(SAMPLES)}, not {task}")
        if view not in VIEWS:
            raise ValueError(f"view must be {' or '.join(VIEWS)}, not {view}")
        self.task, self.view, self.slots, self.root = task, view, slots, Path(root)
        self.path = None if path is None else Path(path)
        self.name = f"python_{task}-{view}"
        if task == "misuse":
            self.present = self._hide

    @property
    def column(self) -> int:
        """The column of ``x`` that holds words."""
        return 1 if self.view == "graph" else 0

    @property
    def files(self) -> Path:
        """The folder that holds the sources."""
        return self.path or library()

    def check_files(self) -> None:
        sources(self.files)

    @cached_property
    def paths(self) -> list[Path]:
        """The sources, relative to `files`, in the order of their indices in the store."""
        return sources(self.files)

    def measures(self, graphs: Graphs) -> "tuple[MetricCollection, Criterion]":
        """Accuracy and, for classes, macro F1; checkpoints are selected by the loss.

        With 1,400 validation functions, accuracy has an error of about 1.2 %, too large to rank epochs, while the loss
        still falls and rare classes are still being learned.
        """
        return super().measures(graphs)[0], Criterion("loss", "min")

    def key(self) -> dict[str, Any]:
        return key(self.task, self.view, self.files)

    def build(self) -> Graphs:
        return build(self.task, self.view, self.files)

    def build_known(self, model_schema: Schema) -> Graphs:
        return build(self.task, self.view, self.files, model_schema=model_schema)

    def resplit(self, graphs: Graphs) -> Graphs:
        if self.task == "misuse":
            held_out = {split: np.repeat(graphs.splits[split], self.slots) for split in ("valid", "test")}
            return replace(graphs, splits=graphs.splits | held_out)
        return graphs

    def names(self, graphs: Graphs) -> dict[str, np.ndarray]:
        """The file and the line where each function begins."""
        files = np.array([path.as_posix() for path in self.paths])
        return {"file": files[graphs.graphs["file"]], "line": np.asarray(graphs.graphs["line"])}

    def labels(self, graphs: Graphs, number: int, batch: GraphBatch) -> list[str]:
        """The word of each node, or its type if it has no word."""
        assert batch.x is not None
        words = self._words(graphs, number, batch.x[:, self.column])
        if self.view == "sequence":
            return words
        types = graphs.schema.node_categories[0]
        return [word or str(types[kind]) for word, kind in zip(words, batch.x[:, 0].tolist(), strict=True)]

    def spelled(self, graphs: Graphs, numbers: np.ndarray, answers: Tensor, batch: GraphBatch) -> list[str] | None:
        """The names of the predicted variables."""
        if self.task != "misuse":
            return None
        assert batch.x is not None
        mentions = (batch.extras["candidate"] == answers[batch.batch, 0] + 1).nonzero()[:, 0]
        first = batch.ptr.new_full((batch.num_graphs,), batch.num_nodes)
        first = first.scatter_reduce(0, batch.batch[mentions], mentions, "amin")
        words, positions = batch.x[first, self.column].tolist(), batch.position[first].tolist()
        vocabulary = graphs.schema.node_categories[self.column]
        spelled = [str(vocabulary[word]) for word in words]
        for row in (row for row, word in enumerate(words) if word == UNKNOWN):
            column = batch.x[int(batch.ptr[row]) : int(batch.ptr[row + 1]), self.column]
            name = self._words(graphs, int(numbers[row]), column)[positions[row]]
            spelled[row] = f"node {positions[row]}" if name == vocabulary[UNKNOWN] else name
        return spelled

    def _words(self, graphs: Graphs, number: int, words: Tensor) -> list[str]:
        """The words (n,) of one function; those outside the vocabulary are taken from its file, if unchanged."""
        vocabulary = graphs.schema.node_categories[self.column]
        spelled = [str(vocabulary[word]) for word in words.tolist()]
        line = int(graphs.graphs["line"][number])
        path = self.files / self.paths[int(graphs.graphs["file"][number])]
        if not (words == UNKNOWN).any() or (sample := _samples_by_line(path, self.task).get(line)) is None:
            return spelled
        originals = sample.tree.words if self.view == "graph" else sample.tokens
        if len(originals) != len(spelled):
            return spelled
        return [
            original if word == UNKNOWN else name
            for word, original, name in zip(words.tolist(), originals, spelled, strict=True)
        ]

    @torch.no_grad()
    def examples(self, dataset: GraphDataset, net: nn.Module) -> str:
        """Three short functions with a hidden variable, and the network's predictions for it."""
        if self.task != "misuse":
            return ""
        variables = np.maximum.reduceat(dataset.graphs.nodes["variable"], dataset.graphs.node_ptr[:-1])
        suitable = np.flatnonzero((dataset.sizes <= EXAMPLE_NODES) & (variables[dataset.ids] >= EXAMPLE_VARIABLES))
        suitable = suitable if len(suitable) else np.arange(len(dataset))
        chosen = suitable[[len(suitable) // 6, len(suitable) // 2, len(suitable) * 5 // 6]]
        batch = dataset[Request(tuple(chosen.tolist()))]
        net.eval()
        probabilities = net(batch.to(next(net.parameters()).device)).softmax(1).cpu()
        graphs = dataset.graphs.graphs
        lines = []
        for index, graph in enumerate(dataset.ids[chosen]):
            nodes = slice(int(batch.ptr[index]), int(batch.ptr[index + 1]))
            candidates = batch.extras["candidate"][nodes].tolist()
            mention = {choice: node for node, choice in enumerate(candidates) if choice}  # one for each variable
            by_node = {node: float(probabilities[index, choice - 1]) for choice, node in mention.items()}
            path, line = self.paths[graphs["file"][graph]], int(graphs["line"][graph])
            hole = int(batch.extras["query"][nodes].argmax())
            if code := misuse.describe(self.files / path, line, VIEWS.index(self.view), hole, by_node):
                lines.append(f"{path}:{line}\n{code}\n")
        return "\n".join(lines)

    def _hide(self, batch: GraphBatch, draws: np.ndarray) -> GraphBatch:
        return misuse.hide(batch, draws, self.column, joined=self.view == "graph")
