"""Resuming a run: which settings may have changed since it began, and how its checkpoint is adapted.

What *defines* a run is fixed: the network, the data, and the number of samples per step and epoch. Everything else may
change: the optimiser's hyperparameters, the length, the precision, callbacks and loggers. The checkpoint then provides
the state of training, and the configuration everything else.
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

# keys of a checkpoint
PENDING = "waiting"  # the batches whose gradients have not been used by an optimiser step yet
PROCESSES = "processes"  # number of training processes
DATA = "data"  # the data key, see `data_key`
# parts of the data key
FOLDS = "data.fold"  # the folds, and which of them is the test fold
IGNORED_DATA_KEYS = ("version", "rdkit", "python", "name")  # versions of the software that built it, and file names
# why a setting may not change
NETWORK = "it defines the network, whose weights are in the checkpoint"
SAMPLES = "it determines the training samples, and how many make a step and an epoch"
REACTED = "its schedule has already adapted the learning rate to the validation"
FIXED = {
    "model": NETWORK,
    "mask": NETWORK,
    "encoding": NETWORK,
    "init": "it determines the initial weights, and which of them are frozen",
    "objective": "it determines what is learned",
    "loss": "it determines what is learned",
    "supervised": "it determines what is learned",
    "seed": SAMPLES,
    "data": SAMPLES,
    "criterion": "the best checkpoint so far was chosen by it, or by the first of the metrics",
    "stage": "a training run can only resume training",
    "optim._target_": "another optimiser cannot use the state of this one",
    "optim.optimizer._target_": "another optimiser cannot use the state of this one",
    "optim.schedule._target_": "another schedule cannot use the state of this one",
    "optim.decayed": "it determines which weights each part of the optimiser's state belongs to",
    "optim.layer_decay": "it determines which weights each part of the optimiser's state belongs to",
    "trainer.strategy._target_": "another strategy stores the optimiser's state in another form",
    "trainer.devices": SAMPLES,
    "trainer.num_nodes": SAMPLES,
    "trainer.accumulate_grad_batches": SAMPLES,
    "trainer.limit_train_batches": SAMPLES,
    "trainer.fast_dev_run": SAMPLES,
}
RENAMED_TARGETS = {
    "torch.nn.RMSNorm": "gt.norms.RMSNorm"
}  # targets in older configurations -> equivalent ones of today
CHANGEABLE = ("data.source.root", "data.workers", "data.eval_batch_size")  # these do not affect which samples are read


def settings(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested plain containers into dotted keys and their leaf values."""
    parts: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if not parts:
        yield key, RENAMED_TARGETS.get(value, value) if isinstance(value, str) else value
        return
    for name, part in parts:
        yield from settings(part, f"{key}.{name}" if key else str(name))


def changes(before: DictConfig, after: DictConfig) -> list[str]:
    """The differences between the configuration a run began with and the one it resumes with, a line each.

    Raises:
        UserError: names the first key that may not change, with the reason.
    """
    # not resolved: an interpolated value changes along with its source, which alone is to be reported
    old, new = (dict(settings(OmegaConf.to_container(cfg, resolve=False))) for cfg in (before, after))
    plateau = str(old.get("optim.schedule._target_", "")).endswith("ReduceLROnPlateau")
    criterion_key = f"metrics.{old['criterion']}" if old.get("criterion") else "metrics"  # default: the first of them
    fixed_keys = FIXED | {criterion_key: FIXED["criterion"]} | ({"optim": REACTED} if plateau else {})
    lines = []
    for key in [*(key for key in new if key not in old), *old]:
        if old.get(key) == new.get(key) or key == "resume":
            continue
        change = f"{key}={format_value(new[key])}" if key in new else f"no {key}"
        change += f", was {format_value(old[key])}" if key in old else ""
        if "auto" in (old.get(key), new.get(key)):  # the actual number of devices is checked against the checkpoint
            lines.append(change)
            continue
        for fixed, reason in fixed_keys.items():
            if f"{key}.".startswith(f"{fixed}.") and key not in CHANGEABLE:
                raise UserError(f"{change}: a run cannot resume with it, because {reason}; start a new run")
        lines.append(change)
    return lines


def format_value(value: Any) -> str:
    """A value in the syntax of the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def data_key(data: Any) -> str | None:
    """Identifies the data of a module, as stored in checkpoints; None if it has no source."""
    if data.source is None:
        return None
    folds = getattr(data.source, "folds", None)  # not part of the source's key: one store serves all folds
    return json.dumps(data.source.key() | ({FOLDS: asdict(folds)} if folds else {}), sort_keys=True)


def check_data(saved: str | None, current: str | None, advice: str) -> None:
    """Compare the current data with those of a checkpoint; see `data_key`.

    Raises:
        UserError: the data differ; the message ends with the advice.
    """
    before, after = (json.loads(key or "{}") for key in (saved, current))
    for fields in (before, after):
        if isinstance(files := fields.get("files"), dict):
            fields["files"] = list(files.values())  # compared in order, whatever their names
    if not before or not after:  # absent from checkpoints of earlier versions
        return
    after = {key: value for key, value in after.items() if key != FOLDS or key in before}
    changed = sorted(
        k for k in before.keys() | after.keys() if before.get(k) != after.get(k) and k not in IGNORED_DATA_KEYS
    )
    if changed:
        raise UserError(
            f"the data have changed since this run was trained on them ({', '.join(changed)}): restore them, {advice}"
        )


def check_network(task: Any, checkpoint: Mapping[str, Any]) -> None:
    """Check that a checkpoint matches the task that is to load it.

    Raises:
        UserError: it belongs to a different network or different data.
    """
    error = "this checkpoint belongs to a different network or different data"
    saved, current = (dict(settings(dict(values))) for values in (checkpoint.get("hyper_parameters", {}), task.hparams))
    for key in current:
        if key in saved and saved[key] != current[key]:
            there, here = (f"{format_value(values[key]):.80}" for values in (saved, current))
            raise UserError(f"{error}: {key.removeprefix('config.')} is {there} there and {here} here")
    saved_state, state_dict = checkpoint["state_dict"], task.state_dict()
    for name in [*state_dict, *saved_state]:
        there, here = (f"of {size(state[name])}" if name in state else "missing" for state in (saved_state, state_dict))
        if there != here:
            raise UserError(f"{error}: {name} is {there} there and {here} here")


def size(weight: "Tensor") -> tuple[int, ...]:
    """The shape of a weight, with scalars as vectors of length 1, the form in which ``trainer=fsdp`` shards them.

    Checkpoints of earlier versions have them in this form, too.
    """
    return tuple(weight.shape) or (1,)


def prepare_resume(trainer: Any, checkpoint: dict[str, Any]) -> None:
    """Adapt a checkpoint, in place, so that training resumes with the current settings.

    Raises:
        UserError: the number of processes has changed, or the checkpoint is past the end of the training.
    """
    check_processes(trainer, checkpoint)
    check_length(trainer, checkpoint)
    undo_accumulation(checkpoint)
    use_configured_patience(trainer, checkpoint)


def check_processes(trainer: Any, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to change the number of processes, since each trains on its share of a batch.

    Raises:
        UserError: names the key.
    """
    before, now = checkpoint.get(PROCESSES, trainer.world_size), trainer.world_size
    if before != now:
        raise UserError(
            f"this run was trained by {before} process{'es' * (before > 1)} and would resume with {now}, on other "
            f"batches: set trainer.devices={before // trainer.num_nodes or 1}, or start a new run"
        )


def check_length(trainer: Any, checkpoint: Mapping[str, Any]) -> None:
    """Refuse a training length that the checkpoint has already exceeded.

    Raises:
        UserError: names the key.
    """
    for unit, done in (("epochs", checkpoint["epoch"]), ("steps", checkpoint["global_step"])):
        limit = getattr(trainer, f"max_{unit}")
        if limit is not None and 0 <= limit < done:
            raise UserError(f"trainer.max_{unit}={limit}: this run has already trained for {done} {unit}; raise it")


def validation_state(trainer: Any) -> dict[str, Any]:
    """The current state of what validations change: callbacks, schedulers and learning rates."""
    return {
        "callbacks": deepcopy(
            {callback.state_key: state for callback in trainer.callbacks if (state := callback.state_dict())}
        ),
        "lr_schedulers": deepcopy([config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]),
        "rates": [[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers],
    }


def undo_accumulation(checkpoint: dict[str, Any]) -> None:
    """Rewind a checkpoint that was written between two optimiser steps to the end of the first.

    The batches since then are repeated, as their gradients are not saved and they have updated the batch-norm
    statistics; so are validations among them, which early stopping or a plateau schedule would otherwise count twice.
    """
    if PENDING not in checkpoint:
        return
    batches = checkpoint[PENDING]["batches"]
    if "moved" in checkpoint[PENDING]:  # absent from checkpoints of earlier versions
        state = checkpoint[PENDING]["moved"]
        checkpoint.update(callbacks=state["callbacks"], lr_schedulers=state["lr_schedulers"])
        for optimizer, rates in zip(checkpoint["optimizer_states"], state["rates"], strict=True):
            for group, rate in zip(optimizer["param_groups"], rates, strict=True):
                group["lr"] = rate
    # under weight averaging, state_dict is the average, which only changes at optimiser steps
    checkpoint.get("current_model_state", checkpoint["state_dict"]).update(checkpoint[PENDING]["buffers"])
    loop = checkpoint["loops"]["fit_loop"]
    for counts in (loop["epoch_loop.batch_progress"][scope] for scope in ("current", "total")):
        done = counts["processed"] - batches
        # Lightning's state at the end of a batch, which it marks as completed on resuming
        counts.update(ready=done, started=done, processed=done, completed=done - 1)
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # Lightning then also counts that batch's step


def use_configured_patience(trainer: Any, checkpoint: Mapping[str, Any]) -> None:
    """Have early stopping use the configured patience rather than the one in the checkpoint."""
    for callback in trainer.early_stopping_callbacks:
        state = checkpoint.get("callbacks", {}).get(callback.state_key)
        if state is not None:
            state["patience"] = callback.patience
