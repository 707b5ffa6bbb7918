"""What surrounds each optimiser step: seeding, gradient clipping, and skipping steps that are not finite."""

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch import Tensor, nn

from gt.errors import UserError
from gt.graph import GraphBatch
from gt.train.not_finite import Origin, StepContext, all_finite, describe, last_gradient
from gt.train.optim import Optimisation
from gt.train.resume import validation_state

LOGGED = "training_step.train/loss"  # Lightning's key for the last logged value


class Steps(pl.LightningModule):
    """Makes training steps reproducible and skips those that are not finite, up to ``optim.skip`` of them.

    Args:
        net: the network to train.
        optim: the optimiser and its schedule; None for inference only.
        seed: base seed of each training step's random numbers.
    """

    def __init__(self, net: nn.Module, optim: Optimisation | None, seed: int) -> None:
        super().__init__()
        self.net, self.optim, self.seed = net, optim, seed
        self._skipped, self._skips_step = 0, False  # number of skipped steps, and whether to skip this one

    def on_train_batch_start(self, batch: GraphBatch, batch_idx: int) -> None:
        trainer: Any = self.trainer
        needs_rollback = trainer.accumulate_grad_batches > 1 or self._may_skip
        if needs_rollback and batch_idx % trainer.accumulate_grad_batches == 0:
            self._step_buffers = {name: buffer.clone() for name, buffer in self._persistent_buffers()}
            if trainer.accumulate_grad_batches > 1:  # otherwise no validation can fall within a step
                self._step_state = validation_state(trainer)
        # the random numbers of a step (dropout, eigenvector signs) depend only on its index, not on earlier steps, so
        # that a resumed run draws the same numbers as an uninterrupted one
        parts = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        seed = 0
        for part in parts:
            seed = (seed * 1_000_003 + part + 1) % (1 << 63)
        if self.device.type == "cpu":
            # torch.manual_seed queues the seed for every accelerator type and captures a stack trace, which makes up
            # a third of the trainer's overhead per step
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        self._context = StepContext(batch, self.current_epoch, batch_idx, seed)

    def on_after_backward(self) -> None:
        trainer: Any = self.trainer
        compiled, batches = getattr(trainer, "compiled", None), trainer.accumulate_grad_batches
        if compiled is not None and batches > 1 and self._context.index % batches == 0:
            compiled.hold_gradients()

    def _persistent_buffers(self) -> Iterator[tuple[str, Tensor]]:
        parameters = {name for name, _ in self.net.named_parameters(remove_duplicate=False)}
        return ((f"net.{k}", v) for k, v in self.net.state_dict().items() if k not in parameters)

    @property
    def _may_skip(self) -> bool:
        return self.optim is not None and self.optim.skip > 0

    @property
    def _checks_step(self) -> bool:
        """Whether to check this step for non-finite values. As that synchronises with a GPU, there it is only done
        every few steps and before validations, unless steps may be skipped.
        """
        trainer: Any = self.trainer
        index = self._context.index
        validates = trainer.is_last_batch or (index + 1) % trainer.val_check_batch == 0
        return self.device.type == "cpu" or self._may_skip or validates or index % trainer.log_every_n_steps == 0

    def _log_loss(self, loss: Tensor, batch: GraphBatch) -> None:
        """Log the loss of every batch: a progress bar, checkpoint or early stop may read any of them."""
        results: Any = self.trainer._results
        if LOGGED in results:  # the look-ups in `log` would take 2 % of a small network's step
            results.update_metrics(LOGGED, loss.detach(), batch.num_graphs)
        else:
            self.log("train/loss", loss, prog_bar=True, batch_size=batch.num_graphs, on_step=True, on_epoch=False)

    def _batch_weight(self, count: Tensor) -> Tensor | float:
        """The weight of a batch among those accumulated into a step, given its number of labelled terms."""
        trainer: Any = self.trainer
        if trainer.accumulate_grad_batches == 1:
            return 1.0
        if self._context.index % trainer.accumulate_grad_batches == 0:
            self._first_count, self._total_count = torch.where(count > 0, count, 1.0), torch.zeros_like(count)
        self._total_count += count
        return count / self._first_count

    def _rescale(self, optimizer: torch.optim.Optimizer) -> None:
        """Rescale accumulated gradients to the mean over all labelled terms of the step.

        The last step of an epoch may have fewer batches; batches with more targets weigh more, as in one large batch.
        """
        trainer: Any = self.trainer
        if trainer.accumulate_grad_batches > 1 and (gradients := self._gradients(optimizer)):
            count = torch.where(
                self._total_count > 0, self._total_count, 1.0
            )  # without labels there is no gradient either
            torch._foreach_mul_(gradients, trainer.accumulate_grad_batches * self._first_count / count)

    def _skip_or_raise(self, symptom: str, origin: Origin) -> None:
        """Skip this step if ``optim.skip`` still allows it, and report where the values stopped being finite.

        Raises:
            UserError: no further step may be skipped.
        """
        trainer: Any = self.trainer
        limit = 0 if self.optim is None else self.optim.skip
        message = f"the {symptom} in epoch {self._context.epoch}, batch {self._context.index}"
        message += f": {describe(self, self._context, origin)}"
        if self._skipped >= limit:
            raise UserError(
                f"{message}; lower optim.lr (now {trainer.optimizers[0].param_groups[0]['lr']:.2g}) or "
                f"trainer.gradient_clip_val, or skip {'more' if limit else 'such'} steps with optim.skip"
            )
        self._skipped, self._skips_step = self._skipped + 1, True
        if trainer.is_global_zero:
            print(f"step skipped, {self._skipped} of optim.skip={limit}: {message}", flush=True)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Check and clip the gradients before the step, under any precision and also for fused optimisers.

        Lightning refuses to clip for a fused optimiser in mixed precision, because such an optimiser only unscales
        gradients inside its step. They are unscaled here beforehand; in bfloat16 nothing is scaled.
        """
        precision: Any = self.trainer.precision_plugin
        scaler = getattr(precision, "scaler", None)
        self._rescale(optimizer)
        if not self._skips_step:
            self._check_and_clip(optimizer, scaler, gradient_clip_val, gradient_clip_algorithm)
        if self._skips_step:
            if scaler is not None and _unscales(optimizer):  # the scaler raises if there are no gradients
                for gradient in self._gradients(optimizer):
                    gradient.fill_(torch.inf)  # has the scaler skip the step
            else:
                optimizer.zero_grad()  # the optimiser ignores parameters without a gradient
            for name, buffer in self._persistent_buffers():
                buffer.copy_(self._step_buffers[name])
            self._skips_step = False

    def _gradients(self, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        precision: Any = self.trainer.precision_plugin
        return [p.grad for p in precision.main_params(optimizer) if p.grad is not None]

    def _check_and_clip(
        self, optimizer: torch.optim.Optimizer, scaler: Any, clip_value: float | None, algorithm: str | None
    ) -> None:
        if clip_value and scaler is not None and _unscales(optimizer):
            scaler.unscale_(optimizer)
        by_value = algorithm == GradClipAlgorithmType.VALUE
        checks = self._checks_step and scaler is None  # a loss scaler skips overflowing steps by itself
        precision: Any = self.trainer.precision_plugin
        norm = nn.utils.get_total_norm(self._gradients(optimizer)) if clip_value and not by_value else None
        if checks and not (all_finite(self._gradients(optimizer)) if norm is None else torch.isfinite(norm)):
            self._skip_or_raise("gradients are not finite", last_gradient(self.net))
        elif clip_value and norm is not None:
            nn.utils.clip_grads_with_norm_(precision.main_params(optimizer), clip_value, norm)
        if clip_value and by_value:
            nn.utils.clip_grad_value_(precision.main_params(optimizer), clip_value)


def _unscales(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimiser (a fused one) unscales gradients itself; otherwise they have been unscaled already."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
