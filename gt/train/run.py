"""One run, top to bottom: data, network, fit, test, report."""

import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from gt import parallel
from gt.allocation import keep_freed_memory
from gt.data.datamodule import DataModule, Sized
from gt.data.graphs import GraphData
from gt.data.large.sampling import Neighbours
from gt.data.notices import notices
from gt.errors import UserError
from gt.inference.causal import check_causal
from gt.losses import undefined_reason
from gt.masks import Complete
from gt.model import GraphTransformer
from gt.schema import pluralise
from gt.train.baseline import (
    Evaluated,
    baseline,
    classical_baseline,
    defined_criterion,
    losing_metric,
    reasons,
    show_baselines,
)
from gt.train.breakdown import Breakdown
from gt.train.callbacks import LastValidation, Loading
from gt.train.checkpoint_files import newest
from gt.train.compile import Trainer, compile_network
from gt.train.construct import constructing
from gt.train.context_parallel import ContextParallel
from gt.train.ending import backends_used, summary
from gt.train.extremes import extremes
from gt.train.failures import explained
from gt.train.feed import Feed
from gt.train.init import Init
from gt.train.interrupts import resumable
from gt.train.job import PREPARED, RESULT, Pruned, in_sweep, overrides, write_json
from gt.train.length import stopping_option
from gt.train.logging import finish as finish_logging
from gt.train.logging import quiet
from gt.train.metadata import run_metadata
from gt.train.network import build, encodings_of, network_config, rehearse
from gt.train.objective import measures_of, named_metrics, objectives_of, try_out
from gt.train.plan import on_single_device, show_plan
from gt.train.processes import check_devices, ending_together, has_unused_parameters
from gt.train.report import answers, history, write_report
from gt.train.resume import data_key
from gt.train.task import Task
from gt.train.trainer import instances, make_trainer
from gt.train.wandb_run import Introduction, record


def run(cfg: DictConfig) -> float:
    """Train, test and report as configured; returns the best validation value of the dataset's criterion.

    Other stages train nothing and return 0: ``stage=prepare`` builds the data and its encodings, ``stage=baseline``
    scores the baselines, and ``stage=plan`` measures a few steps.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    with resumable(folder):
        failed = True
        try:
            score = train(on_single_device(cfg) if cfg.get("stage") in ("plan", "prepare") else cfg, folder)
            failed = False
            return score
        except Pruned:
            failed = False
            raise
        finally:
            finish_logging(failed)


def train(cfg: DictConfig, folder: Path) -> float:
    """See `run`."""
    check_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    quiet()
    keep_freed_memory()
    pl.seed_everything(cfg.seed, verbose=False)
    with constructing(cfg):
        data: DataModule = instantiate(cfg.data)
        optim, encodings = instantiate(cfg.optim, _convert_="all"), encodings_of(cfg)
        loss, _ = instantiate(cfg.get("loss"), _convert_="all"), named_metrics(cfg)
        reference = instantiate(cfg.get("baseline"), _convert_="all")
        objectives, supervised = objectives_of(cfg), cfg.get("supervised", 1.0)
        init = instantiate(cfg.get("init"), _convert_="all") or Init()
        data.spread = isinstance(make_trainer(cfg.trainer, [], [], folder).strategy, ContextParallel)
    dry_net = rehearse(network_config(cfg))  # building the data may take hours: report invalid models before
    if not cfg.resume:
        check_mask(dry_net, folder)
    if cfg.trainer.get("compile") and isinstance(data, GraphData):
        data.go_by_shapes(True)
    started = time.monotonic()
    data.open(encodings)
    rank_zero_only(print)("\n".join([data.schema.task(), *notices(data)]), flush=True)
    if cfg.get("stage") == "prepare":
        print(f"{data.holds()}\nready after {time.monotonic() - started:.1f} s", flush=True)
        _, requested = measures_of(cfg, data)
        write_json(folder / PREPARED, {"criterion": requested.name, "mode": requested.mode})
        return 0.0
    measures, requested = measures_of(cfg, data)
    if cfg.get("loss") or cfg.get("metrics"):
        try_out(loss, measures, data)
    criterion = defined_criterion(requested, Evaluated(data, "valid", cfg.trainer.get("limit_val_batches")))
    if criterion != requested:
        rank_zero_only(print)(f"{requested.name} is undefined on the validation split: the loss selects the checkpoint")

    config = network_config(cfg)
    net = build(config, data.schema)
    if data.spread:
        parallel.check(net)
        if cfg.trainer.get("compile"):
            raise UserError("trainer=context_parallel runs the network in parts: set trainer.compile=false")
    if isinstance(net, GraphTransformer) and not cfg.resume:
        with constructing(cfg):
            net.set_degrees(data.loader("train"))
    if message := init.begin(net, data.schema, config, folder, bool(cfg.resume)):
        rank_zero_only(print)(message, flush=True)
    if data.schema.is_language_model:
        check_causal(net, data.schema.max_nodes)
    for name, objective in objectives.items():
        if data.spread or not isinstance(net, GraphTransformer):
            raise UserError(f"objective.{name}: it needs a gt.model.GraphTransformer that is not split over devices")
        objective.build(net, data.schema)
    task = Task(net, data.schema, measures, criterion, optim, config, cfg.seed, loss, objectives, supervised)
    task.data_key = data_key(data)

    if reference and not supervised:
        raise UserError("supervised=0 learns no targets to compare a baseline with: leave baseline out")
    classical = classical_baseline(reference, data, task) if reference else None
    if cfg.get("stage") == "baseline":
        show_baselines(data, task, classical)
        return 0.0
    if cfg.get("stage") == "plan":
        show_plan(task, data, make_trainer(cfg.trainer, [], [], folder))
        return 0.0

    defaults = {
        "monitor": f"valid/{criterion.name}",
        "mode": criterion.mode,
        "dirpath": str(folder / "checkpoints"),
        "save_dir": str(folder),
        "name": cfg.name or folder.name,
    }
    with constructing(cfg):
        callbacks, loggers = instances(cfg.get("callbacks"), defaults), instances(cfg.get("logger"), defaults)
        callbacks.append(Introduction(metadata := run_metadata(cfg, data, net), criterion))
        callbacks.append(breakdown := Breakdown(data.schema, by_size=isinstance(data, Sized)))
        callbacks.append(LastValidation())
        trainer = make_trainer(cfg.trainer, callbacks, loggers, folder)
    if isinstance(net, GraphTransformer):
        device, half = trainer.strategy.root_device.type, "16" in str(trainer.precision)
        data.readings = partial(net.readings, device, half)
    if isinstance(trainer.strategy, DDPStrategy) and not data.spread:
        # on the CPU, hence before the network is compiled for its device
        unused = has_unused_parameters(net, next(iter(data.loader("train"))))
        trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", unused)
    if isinstance(trainer, Trainer) and trainer.compile:
        say(trainer, compile_network(trainer, net, data, folder))
    if notice := depth_notice(data, net):
        say(trainer, notice)
    say(
        trainer,
        f"{sum(p.numel() for p in net.parameters()):,} parameters, {len(data.dataset('train')):,} training samples",
    )

    last = newest(folder / "checkpoints") if cfg.resume else None
    with ending_together(trainer.strategy.launcher, folder), explained(data):
        with constructing(cfg, MisconfigurationException):  # Lightning checks some settings only now
            trainer.fit(task, datamodule=Feed(data), ckpt_path=last)
        if trainer.global_step and not task.has_trained:
            say(trainer, f"nothing left to train: all {trainer.global_step} steps are done; only testing")
        return finish(trainer, task, data, folder, loggers, classical, metadata, breakdown)


def depth_notice(data: DataModule, net: torch.nn.Module) -> str:
    """A notice if the sampler draws neighbours of fewer hops than the network has layers; else an empty string."""
    sampler, layers = getattr(data, "sampler", None), len(getattr(net, "blocks", ()))
    if not isinstance(sampler, Neighbours) or len(sampler.fanout) >= layers:
        return ""
    deeper = [*sampler.fanout, *[sampler.fanout[-1]] * (layers - len(sampler.fanout))]
    return (
        f"neighbours are drawn {len(sampler.fanout)} hops deep and the network has {layers} layers: outermost nodes "
        f"read nothing; data.sampler.fanout={str(deeper).replace(' ', '').replace('None', 'null')} draws as deep"
    )


def check_mask(net: torch.nn.Module | None, folder: Path) -> None:
    """Check that some layer reads the mask given on the command line, unless that is the complete one.

    In a sweep, whose other models may read it, this only prints a notice.

    Raises:
        UserError: no layer does, and the run is not part of a sweep.
    """
    mask_overrides = [line for line in overrides() if re.match(r"[+~]*mask[.=]", line)]
    if not mask_overrides or not isinstance(net, GraphTransformer) or net.masks_of_training():
        return
    if all(mask == Complete() for mask in net.scheduled):
        return
    message = f"{' '.join(mask_overrides)} has no effect, because no layer of this model reads a mask"
    if not in_sweep(folder) and HydraConfig.get().mode != RunMode.MULTIRUN:
        raise UserError(f"{message}: leave it out, or choose a model with attention, such as model=gps")
    rank_zero_only(print)(message, flush=True)


def finish(
    trainer: pl.Trainer,
    task: Task,
    data: DataModule,
    folder: Path,
    loggers: list[Logger],
    classical: dict[str, Any] | None,
    metadata: dict[str, Any],
    breakdown: Breakdown,
) -> float:
    """Test the best checkpoint, write the result and the report, and print a summary.

    Args:
        classical: scores of the classical baseline on the whole split; dropped if only part of it is tested.
        metadata: of the run, see `gt.train.metadata.run_metadata`.
        breakdown: one of the trainer's callbacks.
    """
    best = getattr(trainer.checkpoint_callback, "best_model_path", "") or None
    length = stopping_option(trainer)  # now, as loading the best checkpoint resets the state of the callbacks
    if length not in ("trainer.max_steps", "trainer.max_epochs"):
        say(trainer, f"ended early, after {pluralise(trainer.global_step, 'step')}, by {length}")
    split = data.last_split()
    evaluate = trainer.test if split == "test" else trainer.validate
    metrics = evaluate(task, datamodule=Feed(data), ckpt_path=best, verbose=False)[0]
    if not trainer.is_global_zero:
        return 0.0
    if isinstance(trainer, Trainer) and trainer.compiled is not None:
        print(trainer.compiled.summary())
        trainer.compiled.undo()  # the batches that follow may have any shape
    scores = {name.removeprefix(f"{split}/"): value for name, value in metrics.items() if name.startswith(split)}
    score = getattr(trainer.checkpoint_callback, "best_model_score", None)
    limit = trainer.limit_test_batches if split == "test" else trainer.limit_val_batches
    evaluated = Evaluated(data, split, limit, data.world)
    target = evaluated.targets()
    validates = task.supervised and data.has("valid")
    validated = Evaluated(data, "valid", trainer.limit_val_batches, data.world) if validates else None
    data.trainer = None  # the other processes are done: from here on this one reads every batch
    callbacks: list[pl.Callback] = getattr(trainer, "callbacks", [])
    paces = (callback.seconds_per_batch for callback in callbacks if isinstance(callback, Loading))
    result: dict[str, Any] = {
        "split": split,
        "criterion": task.criterion.name,
        "mode": task.criterion.mode,
        "best_valid": None if score is None else float(score),
        "scores": scores,
        "baseline": baseline(data, target, task) if task.supervised else {},
        "baseline_valid": baseline(data, validated.targets(), task) if validated and validated.batches else {},
        "classical": classical if evaluated.batches == evaluated.total else None,
        "undefined": undefined_reason(data.schema, target),  # why a score may be NaN
        "batches": [evaluated.batches, evaluated.total],  # scored, and in the split
        "checkpoint": best and os.path.relpath(best, folder.resolve()),  # relative, as folders may be moved
        "parameters": sum(p.numel() for p in task.net.parameters()),
        "seconds_per_batch": next(paces, None),
        "overrides": overrides(),
        "command": metadata["command"],
        "commit": metadata["commit"],
    }
    write_json(folder / RESULT, result)
    backends, examples, rows, worst_best = backends_used(task.net), "", None, None
    if task.supervised:  # otherwise there are no predictions to show
        examples = data.examples(task.net, split)
        rows, worst_best = answers(task, data, result), extremes(task, data, split, evaluated.batches)
    report = write_report(folder, task, data, result, rows, metadata, breakdown, worst_best, examples)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            record(logger, folder, task.schema, result, rows, worst_best, backends)
    losing = losing_metric(result, result["baseline"])
    advice = reasons(data, trainer.global_step, history(folder), length) if losing else []
    if examples:
        print(f"\n{examples}")
    print(summary(folder, result, report, loggers, backends, advice), flush=True)
    return float(score) if score is not None else scores[task.criterion.name]


def say(trainer: pl.Trainer, line: str) -> None:
    """Print on rank 0 only."""
    if trainer.is_global_zero:
        print(line, flush=True)
