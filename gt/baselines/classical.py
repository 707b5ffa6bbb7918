"""Selects a strong classical model, from scikit-learn and RDKit, by the kind of data."""

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
from gt.data.files import print_line
from gt.data.graphs import Stored
from gt.ranges import at_least
from gt.schema import pluralise

MAX_CLASSES = 100  # boosting grows a tree per class in every round
LARGE = 5_000_000  # table cells from which several threads pay off


@dataclass(frozen=True)
class Answers:
    """The predictions of a classical model for a split.

    Attributes:
        model: its name, for display.
        prediction: (rows, outputs) in a network's format, in the order of the split's targets.
        seconds: total time, from reading the store to the predictions.
        samples, total: number of training samples that were used, and that are available.
    """

    model: str
    prediction: Tensor
    seconds: float
    samples: int
    total: int


class Classical:
    """The classical model for a dataset.

    =========================== ======================================================================
    molecules, SMILES known     Morgan fingerprints (Rogers & Hahn 2010), counts, and gradient boosting
    labelled texts              words and pairs of words by TF-IDF, and logistic regression
    other graphs with a target  sizes, and features of nodes, edges and neighbours over each graph, boosted
    nodes with targets          their features and the means of those one and two hops away, boosted
    =========================== ======================================================================

    Boosting is scikit-learn's `HistGradientBoosting`, as in LightGBM (Ke et al. 2017), with one model per yes/no task
    or number, fitted to the labelled samples.

    Args:
        samples: maximum number of training samples (for node targets, of nodes), drawn at random; None uses all.
        seed: random seed.
    """

    _fitted: ClassVar[dict[tuple[object, ...], Answers]] = {}  # cache, for jobs of a sweep in the same process

    def __init__(self, samples: int | None = 50_000, seed: int = 0) -> None:
        if samples is not None:
            at_least(2, samples, "samples")
        self.samples, self.seed = samples, seed

    def answers(self, data: DataModule, split: str) -> Answers | None:
        """Fit to the training split and predict another; prints the reason and returns None if no model applies.

        Args:
            data: an opened data module.

        Raises:
            UserError: RDKit is not installed.
        """
        if reason := reason_against(data):
            print_line(f"no classical baseline: {reason}")
            return None
        assert isinstance(data, Stored)
        started, y = time.monotonic(), data.targets("train").numpy()
        train, evaluated = (rows(data, name) for name in ("train", split))  # in the order of the targets
        chosen = labelled = np.flatnonzero(is_labelled(data.schema, y))
        if self.samples is not None and len(labelled) > self.samples:
            chosen = np.sort(np.random.default_rng(self.seed).choice(labelled, self.samples, replace=False))
        if not len(chosen):
            print_line("no classical baseline: no training sample has a label")
            return None
        train, y = train[chosen], y[chosen]
        checksums = tuple(zlib.crc32(values.tobytes()) for values in (train, y, evaluated))
        key = (str(data.source.folder), data.schema, self.seed, *checksums)
        if key not in self._fitted:
            model, train_features, features = model_and_features(data, train, evaluated)
            print_line(f"classical baseline: {model}, fitted to {pluralise(len(train), 'training sample')}")
            fit = linear if data.source.texts_of(data.graphs) is not None else boosted
            small = train_features.shape[0] * train_features.shape[1] < LARGE
            with threadpool_limits(1 if small else None):
                prediction = fit(data.schema, y, train_features, features, self.seed)
            seconds = time.monotonic() - started
            self._fitted[key] = Answers(model, prediction, seconds, len(chosen), len(labelled))
        return self._fitted[key]


def reason_against(data: DataModule) -> str:
    """Why no classical model applies to the data; '' if one does."""
    schema = data.schema
    if schema.is_language_model:
        return "there is none for language models"
    if schema.level == "link" or not isinstance(data, Stored):
        return "there is none for links"
    if schema.pointer or schema.positions > 1 or data.source.present is not None:
        return "targets are not single classes or numbers"
    if schema.kind == "multiclass" and schema.outputs > MAX_CLASSES and data.source.texts_of(data.graphs) is None:
        return f"{schema.outputs:,} classes are more than {MAX_CLASSES}"
    return ""


def rows(data: Stored, split: str) -> np.ndarray:
    """Indices in the store of the graphs or nodes with targets in a split."""
    graphs, ids = data.graphs, np.asarray(data.graphs.splits[split], np.int64)
    if data.schema.level == "graph" or len(graphs) == 1:
        return ids
    return runs(graphs.node_ptr[ids], graphs.sizes[ids])


def model_and_features(data: Stored, train: np.ndarray, evaluated: np.ndarray) -> tuple[str, Matrix, Matrix]:
    """Choose a model and compute the features (rows, features) of the training and the evaluation rows."""
    graphs, source = data.graphs, data.source
    if (texts := source.texts_of(graphs)) is not None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        # without words, as in texts of emoji only, single characters are the tokens
        pattern = r"\b\w+\b" if any(re.search(r"\w", texts[row]) for row in train) else r"\S"
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=pattern)
        train_features = vectorizer.fit_transform([texts[row] for row in train])
        return "words and logistic regression", train_features, vectorizer.transform([texts[row] for row in evaluated])
    if (smiles := source.smiles_of(graphs)) is not None:
        train_features, features = (fingerprints([smiles[row] for row in part]) for part in (train, evaluated))
        return "Morgan fingerprints and gradient boosting", train_features, features
    if data.schema.level == "graph":
        surroundings = Surroundings(graphs, train)
        return "features of graphs and gradient boosting", surroundings.whole(train), surroundings.whole(evaluated)
    surroundings = Surroundings(graphs, np.unique(np.searchsorted(graphs.node_ptr, train, side="right") - 1))
    return "features of neighbours and gradient boosting", surroundings.nodes(train), surroundings.nodes(evaluated)
