"""Sharded training: each process holds a part of the weights, gradients and optimiser state."""

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
    """Fully sharded data parallelism (Rajbhandari et al. 2020, Zhao et al. 2023), by ``torch.distributed.fsdp``.

    The weights of a block are gathered just before its forward and backward passes, and freed afterwards. Batches,
    steps and losses are those of ``ddp``. In evaluation every process holds all weights, as processes may have
    different numbers of batches, and rank 0 alone writes the report.

    Checkpoints are not sharded: rank 0 gathers one tensor after the other, and writes the same file as under any other
    strategy. It keeps an unsharded network on its CPU, which replaces the sharded one after the test.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(save_distributed_checkpoint=False, process_group_backend=process_group_backend)
        self._scalars: dict[str, nn.Parameter] = {}  # parameters that `shard` made vectors, by name in the state dict

    def setup_environment(self) -> None:
        self._check_support()  # before callbacks are set up, as weight averaging would copy the network
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def _check_support(self) -> None:
        task: Any = self.lightning_module
        if any(isinstance(callback, WeightAveraging) for callback in task.trainer.callbacks):
            raise UserError(
                "trainer=fsdp does not support weight averaging: leave ema and swa out of callbacks, or use trainer=ddp"
            )
        if task.loss is not None and any(True for _ in task.loss.parameters()):
            raise UserError("trainer=fsdp only trains the network, but this loss has parameters: use trainer=ddp")
        if task.objectives:
            raise UserError("trainer=fsdp only trains the network, but objectives have parameters: use trainer=ddp")

    def setup_optimizers(self, trainer: pl.Trainer) -> None:
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            if isinstance(optimizer, torch.optim.SGD | torch.optim.Adagrad) and optimizer.defaults["fused"]:
                raise UserError(
                    f"a fused {type(optimizer).__name__} does not support sharded weights: set "
                    "optim.optimizer.fused=false"
                )
            for part in optimizer.parts if isinstance(optimizer, Joint) else ():
                if isinstance(part, Muon):
                    part.step = partial(step_unsharded, part)  # type: ignore[method-assign]

    def shard(self, net: nn.Module) -> None:
        """Shard the parameters of a network, block by block; does nothing if that is done.

        Scalars, which cannot be sharded, are made vectors of length 1; in checkpoints they remain scalars.
        """
        if isinstance(net, FSDPModule):
            return
        self._whole: Any = copy.deepcopy(net) if self.is_global_zero else None
        scalars = [name for name, parameter in net.named_parameters(remove_duplicate=False) if not parameter.dim()]
        for name in scalars:
            parent, _, attribute = name.rpartition(".")
            scalar = net.get_parameter(name)
            setattr(net.get_submodule(parent), attribute, nn.Parameter(scalar.detach()[None], scalar.requires_grad))
        for part in (*getattr(net, "blocks", ()), net):
            fully_shard(part, mesh=self.device_mesh["data_parallel"])
        self._scalars = {f"net.{name}": net.get_parameter(name) for name in scalars}

    def on_validation_start(self) -> None:
        self._set_sharding(whole=True)

    def on_validation_end(self) -> None:
        assert self.lightning_module is not None
        if self.lightning_module.trainer.state.fn == "fit":
            self._set_sharding(whole=False)
        else:
            self.on_test_end()

    def on_test_start(self) -> None:
        self._set_sharding(whole=True)

    def on_test_end(self) -> None:
        task: Any = self.lightning_module
        state = self.lightning_module_state_dict()
        if self._whole is None:
            return
        net, task.net = task.net, self._whole.to(self.root_device).eval()
        task.load_state_dict(state)
        if hasattr(net, "progress"):
            task.net.set_progress(net.progress)
        for (_, layer), (_, sharded) in zip(attention_layers(task.net), attention_layers(net), strict=True):
            layer.used = sharded.used

    def _set_sharding(self, whole: bool) -> None:
        assert self.lightning_module is not None
        for module in self.lightning_module.modules():
            if isinstance(module, FSDPModule):
                module.set_reshard_after_forward(not whole, recurse=False)
                module.unshard() if whole else module.reshard()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        state = self._gather(self.lightning_module.state_dict())
        return state | {name: state[name].squeeze() for name in self._scalars.keys() & state.keys()}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        whole = self._gather(optimizer.state_dict())
        parameters, state = _parameters(optimizer), whole.get("state", {})
        for index in state:
            if any(parameters[index] is scalar for scalar in self._scalars.values()):
                state[index] = apply_to_collection(state[index], Tensor, torch.squeeze)
        return whole

    def _gather(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state with its tensors gathered; empty on ranks other than 0."""

        def gather(part: DTensor) -> Tensor:
            value = part.full_tensor()  # collective
            return value.cpu() if self.is_global_zero else value.new_empty(0)

        state = apply_to_collection(state, DTensor, gather)
        return state if self.is_global_zero else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        ParallelStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(Path(checkpoint_path))

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        assert self.lightning_module is not None
        current, saved = self.lightning_module.state_dict(), checkpoint["state_dict"]
        parts = {name: _shard_of(value, current[name]) if name in current else value for name, value in saved.items()}
        self.lightning_module.load_state_dict(parts, strict=strict)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            indices = [index for group in saved["param_groups"] for index in group["params"]]
            parameters = dict(zip(indices, _parameters(optimizer), strict=True))
            # entries that are scalars for larger parameters too, such as step counts, are not sharded
            counts = {
                k for n, values in saved["state"].items() if parameters[n].numel() > 1 for k in _scalar_keys(values)
            }
            state = {
                n: {k: v if k in counts else _shard_of(v, parameters[n]) for k, v in values.items()}
                for n, values in saved["state"].items()
            }
            optimizer.load_state_dict(saved | {"state": state})


@torch.no_grad()
def step_unsharded(muon: Muon) -> None:
    """A step of Muon on sharded matrices, gathering one matrix at a time.

    Muon's update depends on the whole matrix, so every process computes it in full.
    """
    for group in muon.param_groups:
        settings = {name: value for name, value in group.items() if name != "params"}
        for parameter in (p for p in group["params"] if p.grad is not None):
            whole = nn.Parameter(parameter.full_tensor())
            whole.grad = parameter.grad.full_tensor()
            single = Muon([whole])
            single.param_groups[0].update(settings)
            single.state[whole] = {name: value.full_tensor() for name, value in muon.state[parameter].items()}
            single.step()
            parameter.copy_(_shard_of(whole.detach(), parameter))
            muon.state[parameter] = {name: _shard_of(value, parameter) for name, value in single.state[whole].items()}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters of an optimiser, by their indices in its state dict."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _scalar_keys(values: dict[str, Any]) -> set[str]:
    """The keys of scalars in an optimiser's state of a parameter."""
    return {key for key, value in values.items() if isinstance(value, Tensor) and not value.dim()}


def _shard_of(value: Any, like: Tensor) -> Any:
    """This process's shard of a tensor with the shape of a sharded parameter; other values are returned unchanged.

    Args:
        value: of the parameter's shape, or a scalar if the parameter is a scalar that was made a vector.
        like: the sharded parameter.
    """
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or size(value) != like.shape:
        return value
    whole = value.reshape(like.shape).to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
