"""scikit-learn's models for every kind of target; their answers are what a network's would be."""

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
ROUNDS = (50, 200)  # of boosting, at least and at most
TREES = 2000  # at most, where a round grows a tree for each class
ROWS = 10_000  # that are predicted together: scikit-learn copies them as float64
SHRINKAGE = 10.0  # of leaves: on BBBP, ESOL and Lipophilicity as good in validation as any other, or better
SMALLEST = 1e-6  # probability that is answered


def is_labelled(schema: Schema, y: np.ndarray) -> np.ndarray:
    """(rows,) which targets have a label, or one at least."""
    if schema.kind == "multiclass":
        return y != UNLABELLED
    return ~np.isnan(y.reshape(len(y), -1)).all(1)


def linear(schema: Schema, y: np.ndarray, known: Matrix, others: Matrix, seed: int) -> Tensor:
    """Logistic regression of classes; arguments and result as of `boosted`."""
    from sklearn.linear_model import LogisticRegression

    return _classes(schema, y, known, others, LogisticRegression(C=10.0, max_iter=1000, random_state=seed))


def boosted(schema: Schema, y: np.ndarray, known: Matrix, others: Matrix, seed: int) -> Tensor:
    """Gradient boosting, a model for each task or number, fitted to the rows that have a label.

    Args:
        schema: says what the targets are, and which error of numbers is the loss.
        y: (rows,) classes or (rows, outputs), as of `gt.schema.Schema.kind`.
        known: (rows, features) of training.
        others: (asked, features).
        seed: what features are drawn from.

    Returns:
        (asked, outputs) log-odds, or numbers in the data's unit; what no training row has a label for, or only one, is
        answered with the best constant.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    rounds = int(np.clip(TREES // schema.outputs, *ROUNDS))
    options: dict[str, Any] = {"max_iter": rounds, "learning_rate": 10 / rounds, "early_stopping": False}
    options["min_samples_leaf"] = int(np.clip(len(y) // 50, 2, 20))  # 20 is scikit-learn's
    options |= {"l2_regularization": SHRINKAGE, "random_state": seed}
    if schema.kind == "multiclass":
        return _classes(schema, y, known, others, HistGradientBoostingClassifier(**options))
    y = y.reshape(len(y), schema.outputs)
    answers = constant_prediction(schema, torch.from_numpy(y)).expand(others.shape[0], -1).clone()
    error = "squared_error" if schema.squared else "absolute_error"
    with Progress(
        SpinnerColumn(), TextColumn("boosting {task.completed:.0f} of {task.total:.0f}"), TimeElapsedColumn()
    ) as bar:
        for output in bar.track(range(schema.outputs)):
            rows = ~np.isnan(y[:, output])
            target = y[rows, output]
            if len(np.unique(target)) < 2:
                continue
            if schema.kind == "binary":
                model = HistGradientBoostingClassifier(**options).fit(known[rows], target)
                answers[:, output] = _by_parts(model.decision_function, others)
            else:
                model = HistGradientBoostingRegressor(loss=error, **options)
                model.fit(known[rows], np.log(target) if schema.log else target)
                numbers = _by_parts(model.predict, others)
                answers[:, output] = numbers.exp() if schema.log else numbers
    return answers


def _classes(schema: Schema, y: np.ndarray, known: Matrix, others: Matrix, model: Any) -> Tensor:
    """(asked, classes) log-probabilities; of a class that training lacks the smallest there is."""
    if len(np.unique(y)) < 2:
        return constant_prediction(schema, torch.from_numpy(y)).expand(others.shape[0], -1)
    with Progress(SpinnerColumn(), TextColumn("fitting"), TimeElapsedColumn()) as bar:
        bar.add_task("", total=None)
        model.fit(known, y)
    answers = torch.full((others.shape[0], schema.outputs), math.log(SMALLEST))
    answers[:, model.classes_] = _by_parts(model.predict_proba, others).clamp(min=SMALLEST).log()
    return answers


def _by_parts(function: Any, rows: Matrix) -> Tensor:
    parts = [function(rows[start : start + ROWS]) for start in range(0, rows.shape[0], ROWS)]
    return torch.from_numpy(np.concatenate(parts)).float()
