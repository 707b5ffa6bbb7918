"""A Lightning module that combines a network with its loss, metrics and optimiser."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from gt import losses, parallel
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference.whole_graph import is_whole_graph, predict
from gt.losses import Criterion
from gt.masks import Schedule
from gt.metrics import MeanLosses
from gt.objectives import Objective, run_objectives
from gt.schema import Schema
from gt.train.callbacks.frozen import FrozenNorms
from gt.train.callbacks.masks import MaskSchedule
from gt.train.length import all_steps, counts_epochs, epoch_steps
from gt.train.not_finite import first_layer
from gt.train.optim import Optimisation
from gt.train.resume import DATA, PENDING, PROCESSES, check_data, check_network, prepare_resume
from gt.train.sharding import Sharded
from gt.train.steps import Steps

SKIPPED = "left_out"  # checkpoint key: number of skipped steps
PROGRESS = "progress"  # checkpoint key: fraction of the training completed, as last passed to the network


class Task(Steps):
    """Trains and evaluates a network.

    Args:
        net: maps a `GraphBatch` to predictions, such as `gt.model.GraphTransformer`.
        schema: describes the targets.
        measures: metrics, each updated with (prediction, target).
        criterion: the metric that selects the best checkpoint.
        optim: the optimiser and its schedule; None for inference only.
        config: plain containers from which `gt.load` rebuilds the network; stored in every checkpoint.
        seed: base seed of each training step's random numbers.
        loss: mean loss of predictions and targets, see `gt.losses.total_loss`; any parameters it has are trained and
            saved as well. None selects the default for the kind of target.
        objectives: label-free losses by name, already built; trained and saved with the network.
        supervised: weight of the supervised loss relative to the objectives; at 0 targets are ignored and the
            reported loss is that of the objectives.

    Attributes:
        data_key: identifies the training data, see `gt.train.resume.data_key`.
    """

    data_key: str | None = None

    def __init__(
        self,
        net: nn.Module,
        schema: Schema,
        measures: MetricCollection,
        criterion: Criterion,
        optim: Optimisation | None = None,
        config: dict[str, Any] | None = None,
        seed: int = 0,
        loss: losses.Loss | None = None,
        objectives: Mapping[str, Objective] | None = None,
        supervised: float = 1.0,
    ) -> None:
        super().__init__(net, optim, seed)
        hyper_parameters = {"config": config or {}, "schema": schema.to_dict(), "supervised": supervised}
        self.save_hyperparameters(hyper_parameters, logger=False)
        self.schema, self.criterion, self.loss, self.supervised = schema, criterion, loss, supervised
        self.objectives: Any = nn.ModuleDict(objectives or {})
        self.has_trained = False
        self.measures: Any = nn.ModuleDict({stage: measures.clone(prefix=f"{stage}/") for stage in ("valid", "test")})
        names = ["loss"] * bool(supervised) + list(self.objectives)
        self.losses: Any = nn.ModuleDict({stage: MeanLosses(names) for stage in ("valid", "test")})

    def forward(self, batch: GraphBatch) -> Tensor:
        net: Any = self.net
        return parallel.forward(net, batch) if isinstance(batch, parallel.Share) else predict(net, batch)

    def configure_model(self) -> None:
        strategy: Any = self.trainer.strategy
        if isinstance(strategy, Sharded):
            strategy.shard(self.net)

    def on_train_start(self) -> None:
        self.has_trained = True
        self._lengths = (
            epoch_steps(self.trainer) if counts_epochs(self.trainer) else 0,
            max(1, all_steps(self.trainer)),
        )
        trainer: Any = self.trainer
        # log at least once per epoch, even if the epoch is shorter than the logging interval
        accumulation = trainer.accumulate_grad_batches
        interval = int(min(trainer.num_training_batches, trainer.log_every_n_steps * accumulation))
        trainer.log_every_n_steps = max(1, interval // accumulation)
        if trainer.global_step and trainer.is_global_zero:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            print(f"resuming at step {trainer.global_step} of {self._lengths[1]}, learning rate {rate:.3g}", flush=True)

    def progress(self) -> float:
        """Fraction of the training completed, from 0 to 1; in epoch-based training, as of the start of this epoch."""
        position = self.current_epoch * self._lengths[0] if counts_epochs(self.trainer) else self.trainer.global_step
        return position / self._lengths[1]

    def configure_callbacks(self) -> list[pl.Callback]:
        scheduled = any(isinstance(mask, Schedule) for mask in getattr(self.net, "scheduled", ()))
        frozen = not all(parameter.requires_grad for parameter in self.parameters())
        return [MaskSchedule()] * scheduled + [FrozenNorms()] * frozen

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[PROGRESS] = getattr(self.net, "progress", 0.0)
        checkpoint[DATA] = self.data_key
        checkpoint[SKIPPED] = self._skipped - self._skips_step  # an unfinished step is repeated on resuming
        trainer: Any = self._trainer
        if trainer is None:
            return
        checkpoint[PROCESSES] = trainer.world_size
        progress = trainer.fit_loop.epoch_loop.batch_progress
        pending = progress.current.processed % trainer.accumulate_grad_batches
        if pending and not progress.is_last_batch:
            checkpoint[PENDING] = {"batches": pending, "buffers": self._step_buffers, "moved": self._step_state}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Validate a checkpoint against this task before its weights are loaded; current settings take precedence.

        Raises:
            UserError: the checkpoint belongs to a different network, or is already past the end of this training.
        """
        check_network(self, checkpoint)
        net: Any = self.net
        if hasattr(net, "progress"):
            net.set_progress(checkpoint.get(PROGRESS, 0.0))
        self._skipped = checkpoint.get(SKIPPED, 0)
        trainer = self._trainer
        saved_key = checkpoint.get(DATA)
        if trainer is not None and trainer.state.fn == "fit":
            check_data(saved_key, self.data_key, "or start a new run")
            prepare_resume(trainer, checkpoint)
        self.data_key = self.data_key or saved_key

    def training_step(self, batch: GraphBatch, batch_idx: int) -> Tensor:
        trainer: Any = self.trainer
        parts = self.parts(batch)
        # gradients are averaged over ranks: each rank scales its parts so that the result is the mean over all labels
        local = torch.stack([torch.stack([total.detach().float(), count.float()]) for _, total, count in parts])
        if trainer.world_size > 1:  # Lightning's reduce would begin with a barrier, at which NCCL blocks the CPU
            torch.distributed.all_reduce(local)
        reduced = local.unbind()
        counts = [count.clamp(min=1e-30) for _, count in reduced]
        loss = sum(weight * (sums[0] / count) for (weight, *_), sums, count in zip(parts, reduced, counts, strict=True))
        if self._checks_step:
            limit = torch.inf if self.optim is None or self.optim.loss_limit is None else self.optim.loss_limit
            if not self._skips_step and not (torch.isfinite(loss) and loss <= limit):
                self._skip_or_raise(f"loss is {float(loss):.4g}", first_layer(self, self._context))
        self._log_loss(loss, batch)
        active = [count for (weight, *_), (_, count) in zip(parts, reduced, strict=True) if weight]
        # with several losses the numbers of terms may differ widely: batches are then weighted equally
        scale = trainer.world_size * self._batch_weight(active[0] if len(active) == 1 else torch.ones_like(active[0]))
        terms = zip(parts, counts, strict=True)
        return sum(weight * (total * (scale / count)) for (weight, total, _), count in terms)

    def parts(self, batch: GraphBatch) -> list[tuple[float, Tensor, Tensor]]:
        """The weight of each loss, its sum over a batch, and the total weight of its terms."""
        if self.objectives:
            seed = int(torch.randint(1 << 62, (1,)))
            prediction, unsupervised = run_objectives(self.net, batch, self.objectives.values(), seed)
        else:
            prediction, unsupervised = self(batch), []
        is_empty = batch.y is None and self._trainer is not None and self._trainer.world_size > 1
        if is_empty or not self.supervised:  # this rank has no part of the batch, or labels are ignored
            supervised = losses.zero_loss(prediction, self.loss), prediction.new_zeros(())
        else:
            supervised = losses.total_loss(self.schema, prediction, self._target(batch), self.loss)
        factor = float(not is_empty)
        weights = [self.supervised, *(objective.weight for objective in self.objectives.values())]
        sums = [supervised, *((factor * total, factor * count) for total, count in unsupervised)]
        return [(weight, *pair) for weight, pair in zip(weights, sums, strict=True)]

    def _target(self, batch: GraphBatch) -> Tensor:
        if batch.y is None:
            raise ValueError("this batch has no targets")
        return batch.y

    def _evaluate(self, stage: str, batch: GraphBatch, batch_idx: int) -> Tensor | None:
        # also for an empty share of a batch: other ranks may read its nodes
        prediction = self(batch) if self.supervised else None
        if batch.y is None and self.trainer.world_size > 1:
            return prediction
        sums = {}
        if prediction is not None:
            target = self._target(batch)
            sums["loss"] = losses.total_loss(self.schema, prediction, target, self.loss)
            self.measures[stage].update(prediction, target)
        if self.objectives:
            if is_whole_graph(batch):
                raise UserError(
                    "objective: it needs the whole graph in one pass: raise data.chunk, or set data.evaluate=sampled"
                )
            unsupervised = run_objectives(self.net, batch, self.objectives.values(), batch_idx)[1]
            sums |= zip(self.objectives, unsupervised, strict=True)
        self.losses[stage].add(sums)
        return prediction

    def _reset_metrics(self, stage: str) -> None:
        # bf16-true has cast these to 16 bits, where a running sum stops growing after a few hundred samples
        self.losses[stage].to(torch.float32)
        self.measures[stage].to(torch.float32)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for buffer in self.net.buffers():  # batch-norm statistics: rank 0's are kept
                if buffer.is_floating_point():
                    torch.distributed.broadcast(buffer, 0)

    def _log_metrics(self, stage: str) -> None:
        means = self.losses[stage].means()
        if not self.supervised:
            means["loss"] = sum(objective.weight * means[name] for name, objective in self.objectives.items())
        values = {f"{stage}/{name}": value for name, value in means.items()} | self.measures[stage].compute()
        self.measures[stage].reset()
        monitored = f"{stage}/{self.criterion.name}"
        for name, value in values.items():
            self.log(name, value, prog_bar=name == monitored, rank_zero_only=True)
        trainer: Any = self.trainer
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            for config in trainer.lr_scheduler_configs:
                if config.reduce_on_plateau:
                    config.scheduler.step(values[config.monitor])

    def on_validation_epoch_start(self) -> None:
        self._reset_metrics("valid")

    def validation_step(self, batch: GraphBatch, batch_idx: int) -> Tensor | None:
        return self._evaluate("valid", batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("valid")
        for layer, weight in enumerate(getattr(self.net, "blend_weights", list)()):
            self.log(f"blend/layer_{layer}", weight, rank_zero_only=True)

    def on_test_epoch_start(self) -> None:
        self._reset_metrics("test")

    def test_step(self, batch: GraphBatch, batch_idx: int) -> Tensor | None:
        return self._evaluate("test", batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def configure_optimizers(self) -> Any:
        if self.optim is None:
            raise ValueError("a task without an optimiser cannot be trained")
        trainer: Any = self.trainer
        return self.optim.scaled(trainer).configure(self, all_steps(trainer), self.criterion)
