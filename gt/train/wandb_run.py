"""What Weights & Biases is shown of a run: names with a summary, scores beside baselines, figures, charts, tables."""

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
from gt.train.figures import MOST_TARGETS

FIGURES = ("curves", "predictions", "blend", "reach", "distance")  # of the report
POINTS = 5_000  # of a chart
CLASSES = 30  # of a chart by class
BINS = 10  # of confidence


class Introduction(Callback):
    """Tells loggers what a run is, once, before it trains.

    And W&B what its summary of a run is to hold: the best of what decides, the least of losses, the mean of speeds.

    Args:
        facts: plain values by name, see `gt.train.facts.run_facts`.
        criterion: the metric that decides.
    """

    def __init__(self, facts: dict[str, Any], criterion: Criterion) -> None:
        self.facts = facts
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
            logger.log_hyperparams(self.facts)
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
    """Show what a run came to.

    Args:
        folder: of the run, with the figures of its report.
        rows: labelled predictions and targets, see `gt.train.report.answers`; None where there are none.
        worst_best: see `gt.train.extremes.extremes`.
        backends: what computed attention, a line for each run of layers.
    """
    import wandb

    run = logger.experiment
    summary = {f"result/{name}": value for name, value in result["scores"].items()}
    summary |= {f"baseline/{name}": value for name, value in result["baseline"].items()}
    summary |= {f"classical/{name}": value for name, value in (result["classical"] or {}).items() if _plain(value)}
    summary |= {"attention": "; ".join(backends) or None}
    summary |= {"best_valid": result["best_valid"], "seconds_per_batch": result["seconds_per_batch"]}
    run.summary.update({name: value for name, value in summary.items() if value is not None})
    if result["best_valid"] is not None:  # of a run that went on, W&B knows what it was told since
        run.summary[f"valid/{result['criterion']}"] = {result["mode"]: result["best_valid"]}
    shown: dict[str, Any] = {
        f"report/{name}": wandb.Image(str(folder / f"{name}.png"))
        for name in FIGURES
        if (folder / f"{name}.png").exists()
    }
    shown |= charts(schema, *rows) if rows else {}
    for name, samples in zip(("worst", "best"), worst_best or (), strict=False):
        shown[f"predictions/{name}"] = table(samples)
    run.log(shown)


def _plain(value: Any) -> bool:
    return isinstance(value, int | float | str)


def charts(schema: Schema, prediction: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """W&B's own charts of labelled rows: confusion, ROC and precision-recall; true against predicted; calibration."""
    import wandb

    if not len(target) or schema.pointer:
        return {}
    if len(target) > POINTS:
        chosen = np.random.default_rng(0).choice(len(target), POINTS, replace=False)
        prediction, target = prediction[chosen], target[chosen]
    if schema.kind == "regression":
        return parity(schema, prediction, target.reshape(prediction.shape))
    if schema.kind == "binary":
        if schema.outputs > 1:
            return {}
        yes = 1 / (1 + np.exp(-prediction.reshape(-1)))
        probability, truth, names = np.stack([1 - yes, yes], axis=1), target.reshape(-1).astype(int), ["no", "yes"]
    else:
        if schema.outputs > CLASSES:
            return {}
        raised = np.exp(prediction - prediction.max(1, keepdims=True))
        probability, truth = raised / raised.sum(1, keepdims=True), target
        names = [str(name) for name in schema.names] or [str(n) for n in range(schema.outputs)]
    several = len(np.unique(truth)) > 1
    drawn = {
        "charts/confusion": wandb.plot.confusion_matrix(
            y_true=truth.tolist(), preds=probability.argmax(1).tolist(), class_names=names
        ),
        "charts/calibration": calibration(probability, truth),
    }
    if several:
        drawn |= {
            "charts/roc": wandb.plot.roc_curve(truth.tolist(), probability.tolist(), labels=names),
            "charts/precision_recall": wandb.plot.pr_curve(truth.tolist(), probability.tolist(), labels=names),
        }
    return drawn


def parity(schema: Schema, prediction: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """True against predicted numbers (rows, outputs): each of several targets, whose unit is its own, has a chart."""
    import wandb

    drawn: dict[str, Any] = {}
    for n, (said, truth) in enumerate(zip(prediction.T, target.T, strict=True)):
        pairs = np.stack([truth, said], axis=1)[~np.isnan(truth)]
        end, of_target = ("", "") if schema.outputs == 1 else (f"_{n}", f" of {schema.names[n] if schema.names else n}")
        if len(pairs) and len(drawn) < MOST_TARGETS:
            shown = wandb.Table(["true", "predicted"], pairs)
            drawn[f"charts/parity{end}"] = wandb.plot.scatter(shown, "true", "predicted", f"Parity{of_target}")
    return drawn


def calibration(probability: np.ndarray, truth: np.ndarray) -> Any:
    """How often the likeliest class (rows, classes) is right, by how likely it is said to be (Guo et al. 2017)."""
    import wandb

    said, right = probability.max(1), probability.argmax(1) == truth
    place = np.minimum((said * BINS).astype(int), BINS - 1)
    points = np.array([[values[place == n].mean() for values in (said, right)] for n in np.unique(place)])
    return wandb.plot.line(wandb.Table(["said", "right"], points), "said", "right", title="Calibration")


def table(samples: Sequence[Sample]) -> Any:
    """A row for each sample, molecules drawn."""
    import wandb
    from PIL import Image

    out = wandb.Table(["sample", "text", "picture", "prediction", "target", "loss"])
    for each in samples:
        picture = None if each.picture is None else wandb.Image(Image.open(io.BytesIO(each.picture)))
        out.add_data(each.name, each.text, picture, each.prediction, each.target, each.loss)
    return out
