"""scikit-learn models for every kind of target, with predictions in a network's format."""

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from scipy import sparse
from torch import Tensor

from gt.losses import constant_prediction
from gt.schema import UNLABELLED, Schema

Matrix: TypeAlias = "np.ndarray | sparse.csr_array"
ROUNDS = (50, 200)  # minimum and maximum boosting rounds
MAX_TREES = 2000  # as a round grows a tree per class
CHUNK_ROWS = 10_000  # rows predicted at once, which scikit-learn copies as float64
SHRINKAGE = 10.0  # L2 penalty of leaves, none better in validation on BBBP, ESOL and Lipophilicity
MIN_PROBABILITY = 1e-6


def is_labelled(schema: Schema, y: np.ndarray) -> np.ndarray:
    """(rows,) which targets have at least one label."""
    if schema.kind == "multiclass":
        return y != UNLABELLED
    return ~np.isnan(y.reshape(len(y), -1)).all(1)


def linear(schema: Schema, y: np.ndarray, train: Matrix, features: Matrix, seed: int) -> Tensor:
    """Logistic regression of classes; arguments and result as in `boosted`."""
    from sklearn.linear_model import LogisticRegression

    return _fit_classifier(schema, y, train, features, LogisticRegression(C=10.0, max_iter=1000, random_state=seed))


def boosted(schema: Schema, y: np.ndarray, train: Matrix, features: Matrix, seed: int) -> Tensor:
    """Gradient boosting, with one model per task or number, fitted to the labelled rows.

    Args:
        schema: defines the kind of target, and the loss of numbers.
        y: (rows,) classes or (rows, outputs), see `gt.schema.Schema.kind`.
        train: (rows, features) training features.
        features: (predicted rows, features).
        seed: random seed.

    Returns:
        (predicted rows, outputs) log-odds, or numbers in the data's units; outputs with fewer than two distinct
        training labels get the best constant.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    rounds = int(np.clip(MAX_TREES // schema.outputs, *ROUNDS))
    options: dict[str, Any] = {"max_iter": rounds, "learning_rate": 10 / rounds, "early_stopping": False}
    options["min_samples_leaf"] = int(np.clip(len(y) // 50, 2, 20))  # scikit-learn's default is 20
    options |= {"l2_regularization": SHRINKAGE, "random_state": seed}
    if schema.kind == "multiclass":
        return _fit_classifier(schema, y, train, features, HistGradientBoostingClassifier(**options))
    y = y.reshape(len(y), schema.outputs)
    predictions = constant_prediction(schema, torch.from_numpy(y)).expand(features.shape[0], -1).clone()
    loss = "squared_error" if schema.squared else "absolute_error"
    with Progress(
        SpinnerColumn(), TextColumn("boosting {task.completed:.0f} of {task.total:.0f}"), TimeElapsedColumn()
    ) as bar:
        for output in bar.track(range(schema.outputs)):
            labelled = ~np.isnan(y[:, output])
            target = y[labelled, output]
            if len(np.unique(target)) < 2:
                continue
            if schema.kind == "binary":
                model = HistGradientBoostingClassifier(**options).fit(train[labelled], target)
                predictions[:, output] = _in_chunks(model.decision_function, features)
            else:
                model = HistGradientBoostingRegressor(loss=loss, **options)
                model.fit(train[labelled], np.log(target) if schema.log else target)
                numbers = _in_chunks(model.predict, features)
                predictions[:, output] = numbers.exp() if schema.log else numbers
    return predictions


def _fit_classifier(schema: Schema, y: np.ndarray, train: Matrix, features: Matrix, model: Any) -> Tensor:
    """(predicted rows, classes) log-probabilities; that of `MIN_PROBABILITY` for classes missing in training."""
    if len(np.unique(y)) < 2:
        return constant_prediction(schema, torch.from_numpy(y)).expand(features.shape[0], -1)
    with Progress(SpinnerColumn(), TextColumn("fitting"), TimeElapsedColumn()) as bar:
        bar.add_task("", total=None)
        model.fit(train, y)
    log_probabilities = torch.full((features.shape[0], schema.outputs), math.log(MIN_PROBABILITY))
    log_probabilities[:, model.classes_] = _in_chunks(model.predict_proba, features).clamp(min=MIN_PROBABILITY).log()
    return log_probabilities


def _in_chunks(function: Any, rows: Matrix) -> Tensor:
    parts = [function(rows[start : start + CHUNK_ROWS]) for start in range(0, rows.shape[0], CHUNK_ROWS)]
    return torch.from_numpy(np.concatenate(parts)).float()
