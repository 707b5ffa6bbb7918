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
from gt.losses import undefined
from gt.masks import Complete
from gt.model import GraphTransformer
from gt.schema import many
from gt.train.baseline import (
    Evaluated,
    baseline,
    beaten,
    classical_baseline,
    decidable,
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
from gt.train.facts import run_facts
from gt.train.failures import explained
from gt.train.feed import Feed
from gt.train.init import Init
from gt.train.interrupts import resumable
from gt.train.job import PREPARED, RESULT, Pruned, in_sweep, overrides, write_json
from gt.train.length import decides
from gt.train.logging import finish as finish_logging
from gt.train.logging import quiet
from gt.train.network import build, encodings_of, network_config, rehearse
from gt.train.objective import measures_of, named_metrics, objectives_of, try_out
from gt.train.plan import on_one, show_plan
from gt.train.processes import check_devices, some_are_unread, together
from gt.train.report import answers, history, write_report
from gt.train.resume import data_key
from gt.train.task import Task
from gt.train.trainer import instances, make_trainer
from gt.train.wandb_run import Introduction, record


def run(cfg: DictConfig) -> float:
    """Train, test and report as configured; returns the best validation value of the dataset's criterion.

    With ``stage=prepare`` nothing is trained: the data and its encodings are built, and the value returned is 0. With
    ``stage=baseline`` the baselines alone are scored, with ``stage=plan`` a few steps are measured.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    with resumable(folder):
        failed = True
        try:
            score = train(on_one(cfg) if cfg.get("stage") in ("plan", "prepare") else cfg, folder)
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
    rehearsed = rehearse(network_config(cfg))  # building the data may take hours: what cannot be trained is said before
    if not cfg.resume:
        check_mask(rehearsed, folder)
    if cfg.trainer.get("compile") and isinstance(data, GraphData):
        data.go_by_shapes(True)
    started = time.monotonic()
    data.open(encodings)
    rank_zero_only(print)("\n".join([data.schema.task(), *notices(data)]), flush=True)
    if cfg.get("stage") == "prepare":
        print(f"{data.holds()}\nready after {time.monotonic() - started:.1f} s", flush=True)
        _, judged = measures_of(cfg, data)
        write_json(folder / PREPARED, {"criterion": judged.name, "mode": judged.mode})
        return 0.0
    measures, wanted = measures_of(cfg, data)
    if cfg.get("loss") or cfg.get("metrics"):
        try_out(loss, measures, data)
    criterion = decidable(wanted, Evaluated(data, "valid", cfg.trainer.get("limit_val_batches")))
    if criterion != wanted:
        rank_zero_only(print)(f"validation leaves {wanted.name} undefined: the loss says which checkpoint is best")

    config = network_config(cfg)
    net = build(config, data.schema)
    if data.spread:
        parallel.check(net)
        if cfg.trainer.get("compile"):
            raise UserError("trainer=context_parallel runs a network in parts: choose trainer.compile=false")
    if isinstance(net, GraphTransformer) and not cfg.resume:
        with constructing(cfg):
            net.set_degrees(data.loader("train"))
    if begun := init.begin(net, data.schema, config, folder, bool(cfg.resume)):
        rank_zero_only(print)(begun, flush=True)
    if data.schema.is_language_model:
        check_causal(net, data.schema.max_nodes)
    for name, objective in objectives.items():
        if data.spread or not isinstance(net, GraphTransformer):
            raise UserError(f"objective.{name}: it asks a gt.model.GraphTransformer, which runs as a whole")
        objective.build(net, data.schema)
    task = Task(net, data.schema, measures, criterion, optim, config, cfg.seed, loss, objectives, supervised)
    task.data_key = data_key(data)

    if reference and not supervised:
        raise UserError("supervised=0 learns no answers, which a baseline could be held against: leave baseline out")
    classical = classical_baseline(reference, data, task) if reference else None
    if cfg.get("stage") == "baseline":
        show_baselines(data, task, classical)
        return 0.0
    if cfg.get("stage") == "plan":
        show_plan(task, data, make_trainer(cfg.trainer, [], [], folder))
        return 0.0

    known = {
        "monitor": f"valid/{criterion.name}",
        "mode": criterion.mode,
        "dirpath": str(folder / "checkpoints"),
        "save_dir": str(folder),
        "name": cfg.name or folder.name,
    }
    with constructing(cfg):
        callbacks, loggers = instances(cfg.get("callbacks"), known), instances(cfg.get("logger"), known)
        callbacks.append(Introduction(facts := run_facts(cfg, data, net), criterion))
        callbacks.append(breakdown := Breakdown(data.schema, by_size=isinstance(data, Sized)))
        callbacks.append(LastValidation())
        trainer = make_trainer(cfg.trainer, callbacks, loggers, folder)
    if isinstance(net, GraphTransformer):
        device, half = trainer.strategy.root_device.type, "16" in str(trainer.precision)
        data.readings = partial(net.readings, device, half)
    if isinstance(trainer, Trainer) and trainer.compile:
        say(trainer, compile_network(trainer, net, data, folder))
    if drawn := short_of_depth(data, net):
        say(trainer, drawn)
    if isinstance(trainer.strategy, DDPStrategy) and not data.spread:
        unread = some_are_unread(net, next(iter(data.loader("train"))))
        trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", unread)
    say(
        trainer,
        f"{sum(p.numel() for p in net.parameters()):,} parameters, {len(data.dataset('train')):,} training samples",
    )

    last = newest(folder / "checkpoints") if cfg.resume else None
    with together(trainer.strategy.launcher, folder), explained(data):
        with constructing(cfg, MisconfigurationException):  # what Lightning looks at only now
            trainer.fit(task, datamodule=Feed(data), ckpt_path=last)
        if trainer.global_step and not task.has_trained:
            say(trainer, f"nothing left to train: all {trainer.global_step} steps are done; what follows is the test")
        return finish(trainer, task, data, folder, loggers, classical, facts, breakdown)


def short_of_depth(data: DataModule, net: torch.nn.Module) -> str:
    """A line where steps draw neighbours of fewer hops than the network has layers that read them; else nothing."""
    sampler, layers = getattr(data, "sampler", None), len(getattr(net, "blocks", ()))
    if not isinstance(sampler, Neighbours) or len(sampler.fanout) >= layers:
        return ""
    further = [*sampler.fanout, *[sampler.fanout[-1]] * (layers - len(sampler.fanout))]
    return (
        f"neighbours are drawn {len(sampler.fanout)} hops deep and the network has {layers} layers: those at the rim "
        f"read nothing; data.sampler.fanout={str(further).replace(' ', '').replace('None', 'null')} draws as deep"
    )


def check_mask(net: torch.nn.Module | None, folder: Path) -> None:
    """Whether some layer reads the mask that the command line sets, where that is not of all nodes.

    A line says so if none does and other models of the same sweep may.

    Raises:
        UserError: none does, and the run stands alone.
    """
    told = [line for line in overrides() if re.match(r"[+~]*mask[.=]", line)]
    if not told or not isinstance(net, GraphTransformer) or net.masks_of_training():
        return
    if all(mask == Complete() for mask in net.scheduled):
        return
    useless = f"{' '.join(told)} changes nothing, for no layer of this model reads a mask"
    if not in_sweep(folder) and HydraConfig.get().mode != RunMode.MULTIRUN:
        raise UserError(f"{useless}: leave it out, or choose a model with attention, such as model=gps")
    rank_zero_only(print)(useless, flush=True)


def finish(
    trainer: pl.Trainer,
    task: Task,
    data: DataModule,
    folder: Path,
    loggers: list[Logger],
    classical: dict[str, Any] | None,
    facts: dict[str, Any],
    breakdown: Breakdown,
) -> float:
    """Test the best checkpoint, write result and report, and say where everything is.

    Args:
        classical: of the whole split; left out where only a part of it is scored.
        facts: of the run, see `gt.train.facts.run_facts`.
        breakdown: one of the trainer's callbacks.
    """
    best = getattr(trainer.checkpoint_callback, "best_model_path", "") or None
    length = decides(trainer)  # the best checkpoint has its callbacks be as they were then
    if length not in ("trainer.max_steps", "trainer.max_epochs"):
        say(trainer, f"ended early, after {many(trainer.global_step, 'step')}, by {length}")
    split = data.last_split()
    evaluate = trainer.test if split == "test" else trainer.validate
    measured = evaluate(task, datamodule=Feed(data), ckpt_path=best, verbose=False)[0]
    if not trainer.is_global_zero:
        return 0.0
    if isinstance(trainer, Trainer) and trainer.compiled is not None:
        print(trainer.compiled.summary())
        trainer.compiled.undo()  # what follows looks at batches of any shape
    scores = {name.removeprefix(f"{split}/"): value for name, value in measured.items() if name.startswith(split)}
    score = getattr(trainer.checkpoint_callback, "best_model_score", None)
    limit = trainer.limit_test_batches if split == "test" else trainer.limit_val_batches
    evaluated = Evaluated(data, split, limit, data.world)
    target = evaluated.targets()
    validates = task.supervised and data.has("valid")
    validated = Evaluated(data, "valid", trainer.limit_val_batches, data.world) if validates else None
    data.trainer = None  # the other processes are done: from here on every batch is this one's
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
        "undefined": undefined(data.schema, target),  # why a score may be NaN
        "batches": [evaluated.batches, evaluated.total],  # of the split that were scored, and that there are
        "checkpoint": best and os.path.relpath(best, folder.resolve()),  # folders are moved
        "parameters": sum(p.numel() for p in task.net.parameters()),
        "seconds_per_batch": next(paces, None),
        "overrides": overrides(),
        "command": facts["command"],
        "commit": facts["commit"],
    }
    write_json(folder / RESULT, result)
    backends, examples, rows, worst_best = backends_used(task.net), "", None, None
    if task.supervised:  # else there are no answers to show
        examples = data.examples(task.net, split)
        rows, worst_best = answers(task, data, result), extremes(task, data, split, evaluated.batches)
    report = write_report(folder, task, data, result, rows, facts, breakdown, worst_best, examples)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            record(logger, folder, task.schema, result, rows, worst_best, backends)
    lost = beaten(result, result["baseline"])
    why = reasons(data, trainer.global_step, history(folder), length) if lost else []
    if examples:
        print(f"\n{examples}")
    print(summary(folder, result, report, loggers, backends, why), flush=True)
    return float(score) if score is not None else scores[task.criterion.name]


def say(trainer: pl.Trainer, line: str) -> None:
    """Print on the first process only."""
    if trainer.is_global_zero:
        print(line, flush=True)
