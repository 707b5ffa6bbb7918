"""One training task: a network, its loss, its metrics and its optimiser, for Lightning's trainer."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from gt import losses, parallel
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference.whole_graph import chunked, predict
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
from gt.train.resume import DATA, PROCESSES, WAITING, check_data, check_network, take_up
from gt.train.sharding import Sharded
from gt.train.steps import Steps

LEFT_OUT = "left_out"  # where a checkpoint keeps how many steps were left out
PROGRESS = "progress"  # where a checkpoint keeps the share of the training that the network was told


class Task(Steps):
    """Trains a network on batches and measures it.

    Args:
        net: maps a `GraphBatch` to predictions, such as `gt.model.GraphTransformer`.
        schema: what is predicted.
        measures: metrics, each updated with (prediction, target).
        criterion: which of them decides.
        optim: the optimiser and its schedule; None for a task that is only used.
        config: plain containers that `gt.load` needs to build the same network again; kept in every checkpoint.
        seed: what the randomness of each training step is drawn from.
        loss: of predictions and targets, a mean, see `gt.losses.total_loss`; its own parameters are trained and kept,
            too. None is that of the kind of target.
        objectives: losses that need no labels, by name, built; trained and kept beside the network.
        supervised: the weight of the loss of predictions and targets beside them; 0: it is not learned from targets,
            and the loss that is measured is that of the objectives.

    Attributes:
        data_key: what the data that it is trained on were made from, see `gt.train.resume.data_key`.
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
        facts = {"config": config or {}, "schema": schema.to_dict(), "supervised": supervised}
        self.save_hyperparameters(facts, logger=False)
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
        # an epoch of fewer steps than lie between two points of a curve has one all the same
        together = trainer.accumulate_grad_batches
        least = int(min(trainer.num_training_batches, trainer.log_every_n_steps * together))
        trainer.log_every_n_steps = max(1, least // together)
        if trainer.global_step and trainer.is_global_zero:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            print(f"goes on at step {trainer.global_step} of {self._lengths[1]}, learning rate {rate:.3g}", flush=True)

    def progress(self) -> float:
        """The share of the training that is done, 0 to 1: where epochs are counted, when this one began."""
        done = self.current_epoch * self._lengths[0] if counts_epochs(self.trainer) else self.trainer.global_step
        return done / self._lengths[1]

    def configure_callbacks(self) -> list[pl.Callback]:
        scheduled = any(isinstance(mask, Schedule) for mask in getattr(self.net, "scheduled", ()))
        frozen = not all(parameter.requires_grad for parameter in self.parameters())
        return [MaskSchedule()] * scheduled + [FrozenNorms()] * frozen

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[PROGRESS] = getattr(self.net, "progress", 0.0)
        checkpoint[DATA] = self.data_key
        checkpoint[LEFT_OUT] = self._left_out - self._void  # a step that is not over is repeated
        trainer: Any = self._trainer
        if trainer is None:
            return
        checkpoint[PROCESSES] = trainer.world_size
        seen = trainer.fit_loop.epoch_loop.batch_progress
        waiting = seen.current.processed % trainer.accumulate_grad_batches
        if waiting and not seen.is_last_batch:
            checkpoint[WAITING] = {"batches": waiting, "buffers": self._step_buffers, "moved": self._step_moved}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Hold a checkpoint against this task before its weights are loaded; a run goes on under its own settings.

        Raises:
            UserError: it is that of another network, or of a run that is already beyond where this one is to end.
        """
        check_network(self, checkpoint)
        net: Any = self.net
        if hasattr(net, "progress"):
            net.set_progress(checkpoint.get(PROGRESS, 0.0))
        self._left_out = checkpoint.get(LEFT_OUT, 0)
        trainer = self._trainer
        kept = checkpoint.get(DATA)
        if trainer is not None and trainer.state.fn == "fit":
            check_data(kept, self.data_key, "or start a new run")
            take_up(trainer, checkpoint)
        self.data_key = self.data_key or kept

    def training_step(self, batch: GraphBatch, batch_idx: int) -> Tensor:
        trainer: Any = self.trainer
        parts = self.parts(batch)
        # gradients are averaged over processes: each scales its parts so that this gives the mean over all labels
        own = torch.stack([torch.stack([total.detach().float(), count.float()]) for _, total, count in parts])
        of_all = trainer.strategy.reduce(own, reduce_op="sum").unbind()
        counts = [count.clamp(min=1e-30) for _, count in of_all]
        loss = sum(weight * (of[0] / count) for (weight, *_), of, count in zip(parts, of_all, counts, strict=True))
        if self._looks:
            limit = torch.inf if self.optim is None or self.optim.loss_limit is None else self.optim.loss_limit
            if not self._void and not (torch.isfinite(loss) and loss <= limit):
                self._goes_wrong(f"loss is {float(loss):.4g}", first_layer(self, self._place))
        self._note(loss, batch)
        learned = [count for (weight, *_), (_, count) in zip(parts, of_all, strict=True) if weight]
        # of several losses one may know of many terms where another knows of few: batches then weigh alike
        share = trainer.world_size * self._share(learned[0] if len(learned) == 1 else torch.ones_like(learned[0]))
        terms = zip(parts, counts, strict=True)
        return sum(weight * (total * (share / count)) for (weight, total, _), count in terms)

    def parts(self, batch: GraphBatch) -> list[tuple[float, Tensor, Tensor]]:
        """What is minimised: the weight of each loss, the sum of it over a batch, and what its terms weigh together."""
        if self.objectives:
            draw = int(torch.randint(1 << 62, (1,)))
            prediction, others = run_objectives(self.net, batch, self.objectives.values(), draw)
        else:
            prediction, others = self(batch), []
        left_out = batch.y is None and self._trainer is not None and self._trainer.world_size > 1
        if left_out or not self.supervised:  # nothing of this batch was left for this process, or no label is looked at
            supervised = losses.zero_loss(prediction, self.loss), prediction.new_zeros(())
        else:
            supervised = losses.total_loss(self.schema, prediction, self._target(batch), self.loss)
        share = float(not left_out)
        weights = [self.supervised, *(objective.weight for objective in self.objectives.values())]
        sums = [supervised, *((share * total, share * count) for total, count in others)]
        return [(weight, *each) for weight, each in zip(weights, sums, strict=True)]

    def _target(self, batch: GraphBatch) -> Tensor:
        if batch.y is None:
            raise ValueError("this batch has no targets")
        return batch.y

    def _evaluate(self, stage: str, batch: GraphBatch, batch_idx: int) -> Tensor | None:
        # also where nothing of a batch falls to this process: others may read its nodes
        prediction = self(batch) if self.supervised else None
        if batch.y is None and self.trainer.world_size > 1:
            return prediction
        sums = {}
        if prediction is not None:
            target = self._target(batch)
            sums["loss"] = losses.total_loss(self.schema, prediction, target, self.loss)
            self.measures[stage].update(prediction, target)
        if self.objectives:
            if chunked(batch):
                raise UserError(
                    "objective: it is asked of a graph in one pass: raise data.chunk, or set data.evaluate=sampled"
                )
            others = run_objectives(self.net, batch, self.objectives.values(), batch_idx)[1]
            sums |= zip(self.objectives, others, strict=True)
        self.losses[stage].add(sums)
        return prediction

    def _begin(self, stage: str) -> None:
        # sums in 16 bits stop growing after a few hundred samples, and a run in bf16-true turned these into such
        self.losses[stage].to(torch.float32)
        self.measures[stage].to(torch.float32)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for buffer in self.net.buffers():  # statistics of batch norm, of which the first process's are kept
                if buffer.is_floating_point():
                    torch.distributed.broadcast(buffer, 0)

    def _log(self, stage: str) -> None:
        means = self.losses[stage].means()
        if not self.supervised:
            means["loss"] = sum(objective.weight * means[name] for name, objective in self.objectives.items())
        measured = {f"{stage}/{name}": value for name, value in means.items()} | self.measures[stage].compute()
        self.measures[stage].reset()
        shown = f"{stage}/{self.criterion.name}"
        for name, value in measured.items():
            self.log(name, value, prog_bar=name == shown, rank_zero_only=True)
        trainer: Any = self.trainer
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            for config in trainer.lr_scheduler_configs:
                if config.reduce_on_plateau:
                    config.scheduler.step(measured[config.monitor])

    def on_validation_epoch_start(self) -> None:
        self._begin("valid")

    def validation_step(self, batch: GraphBatch, batch_idx: int) -> Tensor | None:
        return self._evaluate("valid", batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log("valid")
        for layer, weight in enumerate(getattr(self.net, "blend_weights", list)()):
            self.log(f"blend/layer_{layer}", weight, rank_zero_only=True)

    def on_test_epoch_start(self) -> None:
        self._begin("test")

    def test_step(self, batch: GraphBatch, batch_idx: int) -> Tensor | None:
        return self._evaluate("test", batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self._log("test")

    def configure_optimizers(self) -> Any:
        if self.optim is None:
            raise ValueError("a task without an optimiser cannot be trained")
        trainer: Any = self.trainer
        return self.optim.scaled(trainer).configure(self, all_steps(trainer), self.criterion)
