"""Training whose state is shared out: each process keeps a part of the weights, gradients and optimiser state."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.strategies import ModelParallelStrategy, ParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Muon

from gt.errors import UserError
from gt.layers import attention_layers
from gt.train.optim import Joint
from gt.train.resume import size


class Sharded(ModelParallelStrategy):
    """Fully sharded data parallelism (Rajbhandari et al. 2020, Zhao et al. 2023), as ``torch.distributed.fsdp`` has it.

    A block's weights are put together just before it computes, forward and backward, and let go after that. Batches,
    steps and losses are those of ``ddp``. In evaluation every process holds all weights: processes may have different
    numbers of batches, and the first one alone writes the report.

    Checkpoints are whole: the first process puts the parts together, one tensor after the other, and writes what a run
    of any other strategy would. It keeps a whole network on its CPU, which takes the place of the shared out one once
    that has been tested.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(save_distributed_checkpoint=False, process_group_backend=process_group_backend)
        self._scalars: dict[str, nn.Parameter] = {}  # of those that `shard` widened, by their names in the state

    def setup_environment(self) -> None:
        self._check()  # before callbacks are set up, for an average copies the network then
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def _check(self) -> None:
        task: Any = self.lightning_module
        if any(isinstance(callback, WeightAveraging) for callback in task.trainer.callbacks):
            raise UserError(
                "trainer=fsdp keeps no average of the weights: leave ema and swa out of callbacks, or take trainer=ddp"
            )
        if task.loss is not None and any(True for _ in task.loss.parameters()):
            raise UserError("trainer=fsdp trains the network alone, and this loss has parameters: take trainer=ddp")
        if task.objectives:
            raise UserError("trainer=fsdp trains the network alone, and an objective has parameters: take trainer=ddp")

    def setup_optimizers(self, trainer: pl.Trainer) -> None:
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            if isinstance(optimizer, torch.optim.SGD | torch.optim.Adagrad) and optimizer.defaults["fused"]:
                raise UserError(
                    f"a fused {type(optimizer).__name__} cannot step weights that are shared out: set "
                    "optim.optimizer.fused=false"
                )
            for part in optimizer.parts if isinstance(optimizer, Joint) else ():
                if isinstance(part, Muon):
                    part.step = partial(step_whole, part)  # type: ignore[method-assign]

    def shard(self, net: nn.Module) -> None:
        """Keep a part of each parameter of a network, block by block; nothing where that is done.

        A single number is made a vector of one, for no other can be shared out; checkpoints have it as it was.
        """
        if isinstance(net, FSDPModule):
            return
        self._whole: Any = copy.deepcopy(net) if self.is_global_zero else None
        scalars = [name for name, parameter in net.named_parameters(remove_duplicate=False) if not parameter.dim()]
        for name in scalars:
            place, _, own = name.rpartition(".")
            parameter = net.get_parameter(name)
            setattr(net.get_submodule(place), own, nn.Parameter(parameter.detach()[None], parameter.requires_grad))
        for part in (*getattr(net, "blocks", ()), net):
            fully_shard(part, mesh=self.device_mesh["data_parallel"])
        self._scalars = {f"net.{name}": net.get_parameter(name) for name in scalars}

    def on_validation_start(self) -> None:
        self._hold(whole=True)

    def on_validation_end(self) -> None:
        assert self.lightning_module is not None
        if self.lightning_module.trainer.state.fn == "fit":
            self._hold(whole=False)
        else:
            self.on_test_end()

    def on_test_start(self) -> None:
        self._hold(whole=True)

    def on_test_end(self) -> None:
        task: Any = self.lightning_module
        state = self.lightning_module_state_dict()
        if self._whole is None:
            return
        net, task.net = task.net, self._whole.to(self.root_device).eval()
        task.load_state_dict(state)
        if hasattr(net, "progress"):
            task.net.set_progress(net.progress)
        for (_, layer), (_, used) in zip(attention_layers(task.net), attention_layers(net), strict=True):
            layer.used = used.used

    def _hold(self, whole: bool) -> None:
        assert self.lightning_module is not None
        for module in self.lightning_module.modules():
            if isinstance(module, FSDPModule):
                module.set_reshard_after_forward(not whole, recurse=False)
                module.unshard() if whole else module.reshard()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        state = self._together(self.lightning_module.state_dict())
        return state | {name: state[name].squeeze() for name in self._scalars.keys() & state.keys()}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        whole = self._together(optimizer.state_dict())
        of, state = _parameters(optimizer), whole.get("state", {})
        for number in state:
            if any(of[number] is scalar for scalar in self._scalars.values()):
                state[number] = apply_to_collection(state[number], Tensor, torch.squeeze)
        return whole

    def _together(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state with its tensors whole; empty but in the first process."""

        def whole(part: DTensor) -> Tensor:
            value = part.full_tensor()  # by all processes
            return value.cpu() if self.is_global_zero else value.new_empty(0)

        state = apply_to_collection(state, DTensor, whole)
        return state if self.is_global_zero else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        ParallelStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(Path(checkpoint_path))

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        assert self.lightning_module is not None
        own, saved = self.lightning_module.state_dict(), checkpoint["state_dict"]
        parts = {name: _part(value, own[name]) if name in own else value for name, value in saved.items()}
        self.lightning_module.load_state_dict(parts, strict=strict)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            of = dict(zip(numbers, _parameters(optimizer), strict=True))
            # what is one number for larger ones too, such as the count of steps, is no part of a parameter
            counts = {k for n, values in saved["state"].items() if of[n].numel() > 1 for k in _scalars_in(values)}
            state = {
                n: {k: v if k in counts else _part(v, of[n]) for k, v in values.items()}
                for n, values in saved["state"].items()
            }
            optimizer.load_state_dict(saved | {"state": state})


@torch.no_grad()
def step_whole(muon: Muon) -> None:
    """A step of Muon on matrices that are shared out: each is put together, one at a time, for that step alone.

    What Muon makes of a gradient is a function of the whole matrix, which every process works out.
    """
    for group in muon.param_groups:
        settings = {name: value for name, value in group.items() if name != "params"}
        for parameter in (each for each in group["params"] if each.grad is not None):
            whole = nn.Parameter(parameter.full_tensor())
            whole.grad = parameter.grad.full_tensor()
            alone = Muon([whole])
            alone.param_groups[0].update(settings)
            alone.state[whole] = {name: value.full_tensor() for name, value in muon.state[parameter].items()}
            alone.step()
            parameter.copy_(_part(whole.detach(), parameter))
            muon.state[parameter] = {name: _part(value, parameter) for name, value in alone.state[whole].items()}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Those that an optimiser steps, by the numbers that its state has them under."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _scalars_in(values: dict[str, Any]) -> set[str]:
    """The keys of single numbers in an optimiser's state of one parameter."""
    return {key for key, value in values.items() if isinstance(value, Tensor) and not value.dim()}


def _part(value: Any, like: Tensor) -> Any:
    """This process's part of a whole tensor that belongs to a parameter, or is the parameter; else the value as it is.

    Args:
        value: of the parameter's shape; a single number where the parameter is one that was made a vector.
        like: the parameter, of which this process holds a part.
    """
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or size(value) != like.shape:
        return value
    whole = value.reshape(like.shape).to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
