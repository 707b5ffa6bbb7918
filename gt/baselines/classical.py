"""A strong answer without a network, from scikit-learn and RDKit: which model, by the kind of data."""

import re
import time
import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from gt.baselines.features import Surroundings
from gt.baselines.fingerprints import fingerprints
from gt.baselines.models import Matrix, boosted, is_labelled, linear
from gt.data.batching import runs
from gt.data.datamodule import DataModule
from gt.data.files import say
from gt.data.graphs import Stored
from gt.ranges import at_least
from gt.schema import many

CLASSES = 100  # at most: boosting grows a tree for each in every round
LARGE = 5_000_000  # cells of a table from which threads save more time than they wait for each other


@dataclass(frozen=True)
class Answers:
    """What a classical model says of a split.

    Attributes:
        model: its name, for a reader.
        prediction: (rows, outputs) as a network's, in the order of the split's targets.
        seconds: that it took, from the store to the answers.
        samples, total: of training, how many it was fitted to and how many there are.
    """

    model: str
    prediction: Tensor
    seconds: float
    samples: int
    total: int


class Classical:
    """The classical model that suits a dataset.

    =========================== ======================================================================
    molecules, SMILES known     Morgan fingerprints (Rogers & Hahn 2010), counts, and gradient boosting
    labelled texts              words and pairs of words by TF-IDF, and logistic regression
    other graphs with a target  sizes, and features of nodes, edges and neighbours over each graph, boosted
    nodes with targets          their features and the means of those one and two hops away, boosted
    =========================== ======================================================================

    Boosting is scikit-learn's `HistGradientBoosting`, as in LightGBM (Ke et al. 2017), a model for each yes/no task or
    number, fitted to what is labelled.

    Args:
        samples: of the training split at most, drawn at random; None takes all. Of nodes, their number.
        seed: what is drawn from.
    """

    _fitted: ClassVar[dict[tuple[object, ...], Answers]] = {}  # of this process: jobs of a sweep ask for the same again

    def __init__(self, samples: int | None = 50_000, seed: int = 0) -> None:
        if samples is not None:
            at_least(2, samples, "samples")
        self.samples, self.seed = samples, seed

    def answers(self, data: DataModule, split: str) -> Answers | None:
        """Fit to the training split and answer another; None, and a line that says why, where no model suits the data.

        Args:
            data: open.

        Raises:
            UserError: what reads molecules is not installed.
        """
        if why := unsuited(data):
            say(f"no classical baseline: {why}")
            return None
        assert isinstance(data, Stored)
        started, y = time.monotonic(), data.targets("train").numpy()
        train, asked = (rows(data, name) for name in ("train", split))  # in the order of the targets
        chosen = labelled = np.flatnonzero(is_labelled(data.schema, y))
        if self.samples is not None and len(labelled) > self.samples:
            chosen = np.sort(np.random.default_rng(self.seed).choice(labelled, self.samples, replace=False))
        if not len(chosen):
            say("no classical baseline: no training sample has a label")
            return None
        train, y = train[chosen], y[chosen]
        drawn = tuple(zlib.crc32(values.tobytes()) for values in (train, y, asked))
        key = (str(data.source.folder), data.schema, self.seed, *drawn)
        if key not in self._fitted:
            model, known, others = described(data, train, asked)
            say(f"classical baseline: {model}, fitted to {many(len(train), 'training sample')}")
            fit = linear if data.source.texts_of(data.graphs) is not None else boosted
            small = known.shape[0] * known.shape[1] < LARGE
            with threadpool_limits(1 if small else None):
                prediction = fit(data.schema, y, known, others, self.seed)
            seconds = time.monotonic() - started
            self._fitted[key] = Answers(model, prediction, seconds, len(chosen), len(labelled))
        return self._fitted[key]


def unsuited(data: DataModule) -> str:
    """Why no classical model suits the data; nothing where one does."""
    schema = data.schema
    if schema.is_language_model:
        return "of language models there is none"
    if schema.level == "link" or not isinstance(data, Stored):
        return "of links there is none"
    if schema.pointer or schema.positions > 1 or data.source.present is not None:
        return "an answer is no single class or number"
    if schema.kind == "multiclass" and schema.outputs > CLASSES and data.source.texts_of(data.graphs) is None:
        return f"{schema.outputs:,} classes are more than {CLASSES}"
    return ""


def rows(data: Stored, split: str) -> np.ndarray:
    """The numbers, in the store, of what has the targets of a split: graphs or nodes."""
    graphs, ids = data.graphs, np.asarray(data.graphs.splits[split], np.int64)
    if data.schema.level == "graph" or len(graphs) == 1:
        return ids
    return runs(graphs.node_ptr[ids], graphs.sizes[ids])


def described(data: Stored, train: np.ndarray, asked: np.ndarray) -> tuple[str, Matrix, Matrix]:
    """What model suits the data, and (rows, features) of the training rows and of those that are asked for."""
    graphs, source = data.graphs, data.source
    if (texts := source.texts_of(graphs)) is not None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        # where there are no words, as in texts of emoji alone, marks stand for them
        pattern = r"\b\w+\b" if any(re.search(r"\w", texts[row]) for row in train) else r"\S"
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=pattern)
        known = words.fit_transform([texts[row] for row in train])
        return "words and logistic regression", known, words.transform([texts[row] for row in asked])
    if (smiles := source.smiles_of(graphs)) is not None:
        known, others = (fingerprints([smiles[row] for row in part]) for part in (train, asked))
        return "Morgan fingerprints and gradient boosting", known, others
    if data.schema.level == "graph":
        around = Surroundings(graphs, train)
        return "features of graphs and gradient boosting", around.whole(train), around.whole(asked)
    around = Surroundings(graphs, np.unique(np.searchsorted(graphs.node_ptr, train, side="right") - 1))
    return "features of neighbours and gradient boosting", around.nodes(train), around.nodes(asked)
