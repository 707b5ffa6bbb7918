"""A run that goes on: what of it may have changed since it began, and how its checkpoint is taken up.

What a run *is* stays as it was: the network, the data, and how many samples make a step and an epoch. How it *goes on*
may change: the optimiser's numbers, the length, the precision, callbacks and loggers. A checkpoint then says where
training stands, and the configuration all else.
"""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from gt.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

WAITING = "waiting"  # where a checkpoint keeps the batches whose gradients no optimiser step has used yet
PROCESSES = "processes"  # where it keeps how many trained
DATA = "data"  # where it keeps what the data were made from
DEALT = "data.fold"  # of that: the folds, and which of them is for the test
MAKERS = ("version", "rdkit", "python", "name")  # of that: what programs made them by, and what a file is called
NETWORK = "it defines the network, whose weights are kept"
SAMPLES = "it says which samples are learned, and how many make a step and an epoch"
REACTED = "its schedule has moved the learning rate by what it saw of the validation"
FIXED = {
    "model": NETWORK,
    "mask": NETWORK,
    "encoding": NETWORK,
    "init": "it says what training began with, and which weights it leaves alone",
    "objective": "it says what is learned",
    "loss": "it says what is learned",
    "supervised": "it says what is learned",
    "seed": SAMPLES,
    "data": SAMPLES,
    "criterion": "by it, or the first of the metrics, the best checkpoint so far was chosen",
    "stage": "a run that trains goes on training",
    "optim._target_": "another optimiser has no use for the state of this one",
    "optim.optimizer._target_": "another optimiser has no use for the state of this one",
    "optim.schedule._target_": "another schedule cannot tell from the state of this one where it stands",
    "optim.decayed": "it says which weights each part of the optimiser's state belongs to",
    "optim.layer_decay": "it says which weights each part of the optimiser's state belongs to",
    "trainer.strategy._target_": "the state of the optimiser is kept in another form there",
    "trainer.devices": SAMPLES,
    "trainer.num_nodes": SAMPLES,
    "trainer.accumulate_grad_batches": SAMPLES,
    "trainer.limit_train_batches": SAMPLES,
    "trainer.fast_dev_run": SAMPLES,
}
SAME = {"torch.nn.RMSNorm": "gt.norms.RMSNorm"}  # what earlier versions named, with the weights and results of another
FREE = ("data.source.root", "data.workers", "data.eval_batch_size")  # where samples lie and who reads them


def settings(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys of plain containers with their single values."""
    parts: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if not parts:
        yield key, SAME.get(value, value) if isinstance(value, str) else value
        return
    for name, part in parts:
        yield from settings(part, f"{key}.{name}" if key else str(name))


def changes(before: DictConfig, after: DictConfig) -> list[str]:
    """What differs between the configuration of a run and that under which it is to go on, a line each.

    Raises:
        UserError: naming the first key that may not change, and why.
    """
    # not resolved: what a value is said to follow changes with it, and only that one was given
    old, new = (dict(settings(OmegaConf.to_container(cfg, resolve=False))) for cfg in (before, after))
    plateau = str(old.get("optim.schedule._target_", "")).endswith("ReduceLROnPlateau")
    decides = f"metrics.{old['criterion']}" if old.get("criterion") else "metrics"  # else the first of them
    fixed_here = FIXED | {decides: FIXED["criterion"]} | ({"optim": REACTED} if plateau else {})
    lines = []
    for key in [*(key for key in new if key not in old), *old]:
        if old.get(key) == new.get(key) or key == "resume":
            continue
        change = f"{key}={shown(new[key])}" if key in new else f"no {key}"
        change += f", was {shown(old[key])}" if key in old else ""
        if "auto" in (old.get(key), new.get(key)):  # how many devices that is, the checkpoint knows
            lines.append(change)
            continue
        for fixed, why in fixed_here.items():
            if f"{key}.".startswith(f"{fixed}.") and key not in FREE:
                raise UserError(f"{change}: a run cannot go on with it, for {why}; start a new run")
        lines.append(change)
    return lines


def shown(value: Any) -> str:
    """A value as the command line has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def data_key(data: Any) -> str | None:
    """What the data of a module were made from, as a checkpoint keeps it; None where they have no source."""
    if data.source is None:
        return None
    folds = getattr(data.source, "folds", None)  # which one store serves all of
    return json.dumps(data.source.key() | ({DEALT: asdict(folds)} if folds else {}), sort_keys=True)


def check_data(kept: str | None, now: str | None, advice: str) -> None:
    """Hold what data were made from against what those of a checkpoint were; see `data_key`.

    Raises:
        UserError: they are other data; ends with the advice.
    """
    before, after = (json.loads(key or "{}") for key in (kept, now))
    for facts in (before, after):
        if isinstance(files := facts.get("files"), dict):
            facts["files"] = list(files.values())  # in their order, whatever they are called
    if not before or not after:  # a checkpoint of an earlier version does not say
        return
    after = {key: value for key, value in after.items() if key != DEALT or key in before}
    differ = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k) and k not in MAKERS)
    if differ:
        raise UserError(
            f"the data have changed since this run was trained on them ({', '.join(differ)}): put them back, {advice}"
        )


def check_network(task: Any, checkpoint: Mapping[str, Any]) -> None:
    """Hold a checkpoint against the task that is to load it.

    Raises:
        UserError: it is that of another network, or of other data.
    """
    wrong = "this checkpoint is that of another network, or of other data"
    kept, own = (dict(settings(dict(facts))) for facts in (checkpoint.get("hyper_parameters", {}), task.hparams))
    for key in own:
        if key in kept and kept[key] != own[key]:
            there, here = (f"{shown(facts[key]):.80}" for facts in (kept, own))
            raise UserError(f"{wrong}: {key.removeprefix('config.')} is {there} there and {here} here")
    theirs, ours = checkpoint["state_dict"], task.state_dict()
    for name in [*ours, *theirs]:
        there, here = (f"of {size(state[name])}" if name in state else "missing" for state in (theirs, ours))
        if there != here:
            raise UserError(f"{wrong}: {name} is {there} there and {here} here")


def size(weight: "Tensor") -> tuple[int, ...]:
    """The shape of a weight; that of a single number is a vector's of one, as which ``trainer=fsdp`` shares it out.

    Earlier versions kept it so in checkpoints, too.
    """
    return tuple(weight.shape) or (1,)


def take_up(trainer: Any, checkpoint: dict[str, Any]) -> None:
    """Make a checkpoint, in place, one from which a training goes on by the settings that it now has.

    Raises:
        UserError: other processes trained, or it is beyond where the training is to end.
    """
    check_processes(trainer, checkpoint)
    check_length(trainer, checkpoint)
    undo_accumulation(checkpoint)
    keep_patience(trainer, checkpoint)


def check_processes(trainer: Any, checkpoint: Mapping[str, Any]) -> None:
    """Refuse another number of processes than that which trained: each has its share of a batch.

    Raises:
        UserError: naming the key.
    """
    before, now = checkpoint.get(PROCESSES, trainer.world_size), trainer.world_size
    if before != now:
        raise UserError(
            f"this run was trained by {before} process{'es' * (before > 1)} and would go on by {now}, with other "
            f"batches: choose trainer.devices={before // trainer.num_nodes or 1}, or start a new run"
        )


def check_length(trainer: Any, checkpoint: Mapping[str, Any]) -> None:
    """Refuse an end of training that is behind where a checkpoint stands.

    Raises:
        UserError: naming the key.
    """
    for unit, done in (("epochs", checkpoint["epoch"]), ("steps", checkpoint["global_step"])):
        most = getattr(trainer, f"max_{unit}")
        if most is not None and 0 <= most < done:
            raise UserError(f"trainer.max_{unit}={most}: this run has trained {done} {unit} already; choose more")


def moved_by_validations(trainer: Any) -> dict[str, Any]:
    """Callbacks, schedules and learning rates as they stand, which validations move."""
    return {
        "callbacks": deepcopy({each.state_key: state for each in trainer.callbacks if (state := each.state_dict())}),
        "lr_schedulers": deepcopy([config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]),
        "rates": [[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers],
    }


def undo_accumulation(checkpoint: dict[str, Any]) -> None:
    """Turn a checkpoint from between two optimiser steps into one right after the first of them.

    The batches since then are repeated: their gradients are not kept, and they have moved the statistics of batch norm.
    So are validations between them, which early stopping and a schedule that goes by them would count twice.
    """
    if WAITING not in checkpoint:
        return
    batches = checkpoint[WAITING]["batches"]
    if "moved" in checkpoint[WAITING]:  # a checkpoint of an earlier version does not say
        moved = checkpoint[WAITING]["moved"]
        checkpoint.update(callbacks=moved["callbacks"], lr_schedulers=moved["lr_schedulers"])
        for optimizer, rates in zip(checkpoint["optimizer_states"], moved["rates"], strict=True):
            for group, rate in zip(optimizer["param_groups"], rates, strict=True):
                group["lr"] = rate
    # with an average of the weights, which only moves at steps, that is the state_dict
    checkpoint.get("current_model_state", checkpoint["state_dict"]).update(checkpoint[WAITING]["buffers"])
    loop = checkpoint["loops"]["fit_loop"]
    for counts in (loop["epoch_loop.batch_progress"][which] for which in ("current", "total")):
        done = counts["processed"] - batches
        # as Lightning has it while a batch ends, which it counts as completed when it goes on
        counts.update(ready=done, started=done, processed=done, completed=done - 1)
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # it then counts the step of that batch, too


def keep_patience(trainer: Any, checkpoint: Mapping[str, Any]) -> None:
    """Let early stopping wait as long as it is configured to, not as long as it was when the checkpoint was written."""
    for callback in trainer.early_stopping_callbacks:
        state = checkpoint.get("callbacks", {}).get(callback.state_key)
        if state is not None:
            state["patience"] = callback.patience
