"""Results of a run in Weights & Biases: metric summaries, scores beside baselines, figures, charts, tables."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from gt.losses import Criterion
from gt.schema import Schema
from gt.train.extremes import Sample
from gt.train.figures import MAX_TARGETS

FIGURES = ("curves", "predictions", "blend", "reach", "distance")  # of the report
MAX_POINTS = 5_000  # in a chart
MAX_CLASSES = 30  # in a chart by class
BINS = 10  # of confidence


class Introduction(Callback):
    """Logs the metadata of a run before training.

    It also has W&B summarise the criterion by its best value, losses by their minimum and speeds by their mean.

    Args:
        metadata: plain values by name, see `gt.train.metadata.run_metadata`.
        criterion: the metric that selects the best checkpoint.
    """

    def __init__(self, metadata: dict[str, Any], criterion: Criterion) -> None:
        self.metadata = metadata
        self.summaries = {
            "train/loss": "min",
            "valid/loss": "min",
            f"valid/{criterion.name}": criterion.mode,
            "speed/*": "mean",
            "memory/*": "max",
        }

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for logger in trainer.loggers:
            logger.log_hyperparams(self.metadata)
            if isinstance(logger, WandbLogger):
                for name, summary in self.summaries.items():
                    logger.experiment.define_metric(name, step_metric="trainer/global_step", summary=summary)


def record(
    logger: WandbLogger,
    folder: Path,
    schema: Schema,
    result: dict[str, Any],
    rows: tuple[np.ndarray, np.ndarray] | None,
    worst_best: tuple[Sequence[Sample], Sequence[Sample]] | None,
    backends: Sequence[str],
) -> None:
    """Log the results of a run.

    Args:
        folder: of the run, with the figures of its report.
        rows: labelled predictions and targets, see `gt.train.report.answers`; None if there are none.
        worst_best: see `gt.train.extremes.extremes`.
        backends: attention backends, a line for each group of layers.
    """
    import wandb

    run = logger.experiment
    summary = {f"result/{name}": value for name, value in result["scores"].items()}
    summary |= {f"baseline/{name}": value for name, value in result["baseline"].items()}
    summary |= {f"classical/{name}": value for name, value in (result["classical"] or {}).items() if _is_scalar(value)}
    summary |= {"attention": "; ".join(backends) or None}
    summary |= {"best_valid": result["best_valid"], "seconds_per_batch": result["seconds_per_batch"]}
    run.summary.update({name: value for name, value in summary.items() if value is not None})
    if result["best_valid"] is not None:  # W&B's own summary of a resumed run may lack earlier values
        run.summary[f"valid/{result['criterion']}"] = {result["mode"]: result["best_valid"]}
    media: dict[str, Any] = {
        f"report/{name}": wandb.Image(str(folder / f"{name}.png"))
        for name in FIGURES
        if (folder / f"{name}.png").exists()
    }
    media |= charts(schema, *rows) if rows else {}
    for name, samples in zip(("worst", "best"), worst_best or (), strict=False):
        media[f"predictions/{name}"] = table(samples)
    run.log(media)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float | str)


def charts(schema: Schema, prediction: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """W&B charts of labelled rows: confusion matrix, ROC, precision-recall, calibration; or true against predicted."""
    import wandb

    if not len(target) or schema.pointer:
        return {}
    if len(target) > MAX_POINTS:
        subset = np.random.default_rng(0).choice(len(target), MAX_POINTS, replace=False)
        prediction, target = prediction[subset], target[subset]
    if schema.kind == "regression":
        return parity(schema, prediction, target.reshape(prediction.shape))
    if schema.kind == "binary":
        if schema.outputs > 1:
            return {}
        yes = 1 / (1 + np.exp(-prediction.reshape(-1)))
        probability, truth, names = np.stack([1 - yes, yes], axis=1), target.reshape(-1).astype(int), ["no", "yes"]
    else:
        if schema.outputs > MAX_CLASSES:
            return {}
        exponential = np.exp(prediction - prediction.max(1, keepdims=True))
        probability, truth = exponential / exponential.sum(1, keepdims=True), target
        names = [str(name) for name in schema.names] or [str(n) for n in range(schema.outputs)]
    has_several = len(np.unique(truth)) > 1
    plots = {
        "charts/confusion": wandb.plot.confusion_matrix(
            y_true=truth.tolist(), preds=probability.argmax(1).tolist(), class_names=names
        ),
        "charts/calibration": calibration(probability, truth),
    }
    if has_several:
        plots |= {
            "charts/roc": wandb.plot.roc_curve(truth.tolist(), probability.tolist(), labels=names),
            "charts/precision_recall": wandb.plot.pr_curve(truth.tolist(), probability.tolist(), labels=names),
        }
    return plots


def parity(schema: Schema, prediction: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """Parity plots of true against predicted numbers (rows, outputs), one for each target."""
    import wandb

    plots: dict[str, Any] = {}
    for n, (predicted, truth) in enumerate(zip(prediction.T, target.T, strict=True)):
        pairs = np.stack([truth, predicted], axis=1)[~np.isnan(truth)]
        suffix, title = ("", "") if schema.outputs == 1 else (f"_{n}", f" of {schema.names[n] if schema.names else n}")
        if len(pairs) and len(plots) < MAX_TARGETS:
            data = wandb.Table(["true", "predicted"], pairs)
            plots[f"charts/parity{suffix}"] = wandb.plot.scatter(data, "true", "predicted", f"Parity{title}")
    return plots


def calibration(probability: np.ndarray, truth: np.ndarray) -> Any:
    """Reliability diagram: accuracy of the most probable class by its probability (rows, classes) (Guo et al. 2017)."""
    import wandb

    confidence, correct = probability.max(1), probability.argmax(1) == truth
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    points = np.array([[values[bins == n].mean() for values in (confidence, correct)] for n in np.unique(bins)])
    return wandb.plot.line(wandb.Table(["said", "right"], points), "said", "right", title="Calibration")


def table(samples: Sequence[Sample]) -> Any:
    """A W&B table with a row for each sample, including drawings of molecules."""
    import wandb
    from PIL import Image

    out = wandb.Table(["sample", "text", "picture", "prediction", "target", "loss"])
    for sample in samples:
        picture = None if sample.picture is None else wandb.Image(Image.open(io.BytesIO(sample.picture)))
        out.add_data(sample.name, sample.text, picture, sample.prediction, sample.target, sample.loss)
    return out
