"""What is around each step of the optimiser: its random numbers, clipping, and leaving out one that went wrong."""

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch import Tensor, nn

from gt.errors import UserError
from gt.graph import GraphBatch
from gt.train.not_finite import Origin, Place, all_finite, described, last_gradient
from gt.train.optim import Optimisation
from gt.train.resume import moved_by_validations

NOTED = "training_step.train/loss"  # where Lightning keeps what was logged last


class Steps(pl.LightningModule):
    """Steps that are repeated to the same numbers, and left out, as far as ``optim.skip`` allows, where not finite.

    Args:
        net: what is trained.
        optim: the optimiser and its schedule; None for a task that is only used.
        seed: what the randomness of each training step is drawn from.
    """

    def __init__(self, net: nn.Module, optim: Optimisation | None, seed: int) -> None:
        super().__init__()
        self.net, self.optim, self.seed = net, optim, seed
        self._left_out, self._void = 0, False  # steps that were, and whether this one is to be

    def on_train_batch_start(self, batch: GraphBatch, batch_idx: int) -> None:
        trainer: Any = self.trainer
        rolled_back = trainer.accumulate_grad_batches > 1 or self._may_leave_out
        if rolled_back and batch_idx % trainer.accumulate_grad_batches == 0:
            self._step_buffers = {name: buffer.clone() for name, buffer in self._persistent_buffers()}
            if trainer.accumulate_grad_batches > 1:  # else no validation comes between the batches of a step
                self._step_moved = moved_by_validations(trainer)
        # the randomness of a step (dropout, signs of eigenvectors) depends on which step it is and on nothing before
        # it: a run that resumes anywhere draws the same numbers as one that was never stopped
        place = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        mixed = 0
        for part in place:
            mixed = (mixed * 1_000_003 + part + 1) % (1 << 63)
        if self.device.type == "cpu":
            # torch.manual_seed notes the seed for each kind of accelerator, with a stack trace: a third of what the
            # trainer costs a step
            torch.default_generator.manual_seed(mixed)
        else:
            torch.manual_seed(mixed)
        self._place = Place(batch, self.current_epoch, batch_idx, mixed)

    def _persistent_buffers(self) -> Iterator[tuple[str, Tensor]]:
        parameters = {name for name, _ in self.net.named_parameters(remove_duplicate=False)}
        return ((f"net.{k}", v) for k, v in self.net.state_dict().items() if k not in parameters)

    @property
    def _may_leave_out(self) -> bool:
        return self.optim is not None and self.optim.skip > 0

    @property
    def _looks(self) -> bool:
        """Whether this step is looked at: that waits for a GPU, where it is done now and then, and before weights are
        validated.
        """
        trainer: Any = self.trainer
        index = self._place.index
        ends = trainer.is_last_batch or (index + 1) % trainer.val_check_batch == 0
        return self.device.type == "cpu" or self._may_leave_out or ends or index % trainer.log_every_n_steps == 0

    def _note(self, loss: Tensor, batch: GraphBatch) -> None:
        """Log the loss of this batch: a bar, a checkpoint or an end before its time may ask for that of any."""
        results: Any = self.trainer._results
        if NOTED in results:  # what `log` looks up anew at each call takes 2 % of a step of a small network
            results.update_metrics(NOTED, loss.detach(), batch.num_graphs)
        else:
            self.log("train/loss", loss, prog_bar=True, batch_size=batch.num_graphs, on_step=True, on_epoch=False)

    def _share(self, count: Tensor) -> Tensor | float:
        """What the loss of a batch weighs among those that are accumulated, where so many of its terms are known."""
        trainer: Any = self.trainer
        if trainer.accumulate_grad_batches == 1:
            return 1.0
        if self._place.index % trainer.accumulate_grad_batches == 0:
            self._first, self._known = torch.where(count > 0, count, 1.0), torch.zeros_like(count)
        self._known += count
        return count / self._first

    def _even_out(self, optimizer: torch.optim.Optimizer) -> None:
        """Make of accumulated gradients, which are a sum over as many batches, the mean over all that is known.

        The last batches of an epoch may be fewer; those that hold more targets weigh more, as they do in one batch.
        """
        trainer: Any = self.trainer
        if trainer.accumulate_grad_batches > 1 and (gradients := self._gradients(optimizer)):
            known = torch.where(self._known > 0, self._known, 1.0)  # of none there is no gradient either
            torch._foreach_mul_(gradients, trainer.accumulate_grad_batches * self._first / known)

    def _goes_wrong(self, what: str, origin: Origin) -> None:
        """Leave this step out, if one may still be, and say where it went wrong.

        Raises:
            UserError: none may be.
        """
        trainer: Any = self.trainer
        most = 0 if self.optim is None else self.optim.skip
        where = f"the {what} in epoch {self._place.epoch}, batch {self._place.index}"
        where += f": {described(self, self._place, origin)}"
        if self._left_out >= most:
            raise UserError(
                f"{where}; lower optim.lr (now {trainer.optimizers[0].param_groups[0]['lr']:.2g}) or "
                f"trainer.gradient_clip_val, or leave {'more' if most else 'some'} such steps out by optim.skip"
            )
        self._left_out, self._void = self._left_out + 1, True
        if trainer.is_global_zero:
            print(f"step left out, {self._left_out} of optim.skip={most}: {where}", flush=True)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Look at what the optimiser will step by, and clip it, under any precision and with a fused optimiser too.

        Lightning's mixed precision refuses to clip for a fused one, for it would divide by the loss scale only inside
        its step. That can be done before; and in bfloat16 nothing is scaled.
        """
        precision: Any = self.trainer.precision_plugin
        scaler = getattr(precision, "scaler", None)
        self._even_out(optimizer)
        if not self._void:
            self._look_and_clip(optimizer, scaler, gradient_clip_val, gradient_clip_algorithm)
        if self._void:
            if scaler is not None and _unscales(optimizer):  # what has no gradients, the scaler takes for a mistake
                for gradient in self._gradients(optimizer):
                    gradient.fill_(torch.inf)  # looked at in the step itself, which is then left out
            else:
                optimizer.zero_grad()  # a parameter without a gradient is not stepped
            for name, buffer in self._persistent_buffers():
                buffer.copy_(self._step_buffers[name])
            self._void = False

    def _gradients(self, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        precision: Any = self.trainer.precision_plugin
        return [p.grad for p in precision.main_params(optimizer) if p.grad is not None]

    def _look_and_clip(
        self, optimizer: torch.optim.Optimizer, scaler: Any, most: float | None, algorithm: str | None
    ) -> None:
        if most and scaler is not None and _unscales(optimizer):
            scaler.unscale_(optimizer)
        by_value = algorithm == GradClipAlgorithmType.VALUE
        looks = self._looks and scaler is None  # which has steps that overflow left out by itself
        precision: Any = self.trainer.precision_plugin
        norm = nn.utils.get_total_norm(self._gradients(optimizer)) if most and not by_value else None
        if looks and not (all_finite(self._gradients(optimizer)) if norm is None else torch.isfinite(norm)):
            self._goes_wrong("gradients are not finite", last_gradient(self.net))
        elif most and norm is not None:
            nn.utils.clip_grads_with_norm_(precision.main_params(optimizer), most, norm)
        if most and by_value:
            nn.utils.clip_grad_value_(precision.main_params(optimizer), most)


def _unscales(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimiser, a fused one, divides gradients by the loss scale itself; else they are by now."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
