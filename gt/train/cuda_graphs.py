"""Replays the training passes of a network as CUDA graphs: one launch in place of a thousand."""

from collections.abc import Hashable, Iterable
from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gt.attention import Demand
from gt.attention.dispatch import UNTRACED
from gt.errors import UserError, first_line
from gt.graph import GraphBatch
from gt.layers import Attention, attention_layers
from gt.masks import WideBatch, with_virtual_nodes
from gt.masks.pairs import Pairs
from gt.schema import pluralise
from gt.train.failures import is_memory

PAIR_LISTS = {"edges", "edge_heads", "rowptr", "by_source", "colptr", "readers"}  # attributes of `Pairs`
MAX_GRAPHS = 16  # recorded kinds of batches; passes over others run as they are

Batch = TypeVar("Batch", bound=GraphBatch)


class Replayed:
    """A network whose training passes are recorded once for each kind of batch, then replayed, until `undo`.

    Batches are of one kind if they agree in `structure` and in the shapes and dtypes of their tensors. Kernels, their
    order and their addresses are those of the recording (`torch.cuda.make_graphed_callables`), with the tensors of the
    batch copied in; random numbers are new in each pass. Passes without gradients, in evaluation or with
    a hook on some layer run as they are. Parameter names are unchanged.

    Args:
        net: a `gt.model.GraphTransformer` on a CUDA device.

    Raises:
        UserError: the network draws masks anew for each pass, which a recording cannot, or see `use_static_backends`;
            on the first pass: some layer cannot be recorded.
    """

    def __init__(self, net: nn.Module) -> None:
        if getattr(net, "redraw", 0):
            raise UserError(
                "trainer.compile=cuda-graphs would repeat the first draw of the mask: set model.redraw=0 or "
                "trainer.compile=false"
            )
        self.net, self.modules, self.layers = net, list(net.modules()), use_static_backends(net)
        demands = [demand for _, demand in getattr(net, "readings", set)()]
        self.reads_lists = any(not isinstance(demand, Demand) or demand.listed for demand in demands)
        self.recordings: dict[Hashable, Any] = {}
        self.replays, self.other_passes = 0, 0
        self.pool: Any = None
        net._compiled_call_impl = self

    def __call__(self, batch: GraphBatch) -> Tensor:
        net: Any = self.net
        if not (net.training and torch.is_grad_enabled()):
            return net._call_impl(batch)
        with_virtual_nodes(batch.finish(), getattr(net, "virtual_nodes", 0))  # the only ones to depend on the padding
        if not self.reads_lists:
            batch = without_lists(batch)
        tensors = tensors_of(batch)
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        key = (structure(batch), shapes, tuple(getattr(net, "masks", ())))
        hooked = any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in self.modules)
        if hooked or (key not in self.recordings and len(self.recordings) == MAX_GRAPHS):
            self.other_passes += 1
            return net._call_impl(batch)
        if key not in self.recordings:
            self.recordings[key] = self._record(batch)
        self.replays += 1
        return self.recordings[key](*tensors)

    def _record(self, batch: GraphBatch) -> nn.Module:
        """Record both passes over batches like this one, without effect on the network or on later random numbers."""
        device, template = batch.device, batch.apply(torch.clone)
        buffers = [(buffer, buffer.clone()) for buffer in self.net.buffers()]
        if self.pool is None:  # one for all: a step ends before the next one's graph reuses its memory
            self.pool = torch.cuda.graph_pool_handle()
        autocast = torch.autocast(
            device.type,
            torch.get_autocast_dtype(device.type),
            torch.is_autocast_enabled(device.type),
            cache_enabled=False,  # a cached cast of a weight would be recorded as a constant
        )
        try:
            with autocast, torch.random.fork_rng([device.index] if device.type == "cuda" else []):
                recorded: Any = torch.cuda.make_graphed_callables(
                    _Pass(self.net, template), tuple(tensors_of(template)), allow_unused_input=True, pool=self.pool
                )
        except RuntimeError as error:  # such as a layer that waits for the device
            if is_memory(error):
                raise
            raise UserError(
                f"trainer.compile=cuda-graphs cannot record this network: {first_line(error)}; set "
                "trainer.compile=false"
            ) from error
        for buffer, value in buffers:  # the passes that warm up change the statistics of batch norms
            buffer.copy_(value)
        return recorded

    def hold_gradients(self) -> None:
        """See `clone_gradients`."""
        clone_gradients(self.net.parameters())

    def summary(self) -> str:
        """The numbers of recorded kinds of batches and of passes so far."""
        others = f", {self.other_passes:,} as they are" if self.other_passes else ""
        recordings = pluralise(len(self.recordings), "recording")
        return f"training passes: {self.replays:,} replayed from {recordings} as CUDA graphs{others}"

    def undo(self) -> None:
        """Restore the network and free the recordings."""
        for layer in self.layers:
            layer.compiled = False
        self.net._compiled_call_impl = None
        self.recordings.clear()


def use_static_backends(net: nn.Module) -> list[Attention]:
    """Restrict the attention layers of a network, which are returned, to backends that fixed shapes determine.

    Raises:
        UserError: a layer requires another backend.
    """
    layers = attention_layers(net)
    for name, layer in layers:
        if layer.backend in UNTRACED:
            raise UserError(
                f"the backend '{layer.backend}' of {name} cannot be compiled: choose another, or set "
                "trainer.compile=false"
            )
        layer.compiled = True
    return [layer for _, layer in layers]


class _Pass(nn.Module):
    """The network as a function of tensors, the only arguments that can be recorded."""

    def __init__(self, net: nn.Module, template: GraphBatch) -> None:
        super().__init__()
        self.net, self.template = net, template

    def forward(self, *tensors: Tensor) -> Tensor:
        values = iter(tensors)
        net: Any = self.net
        # a new batch for each pass: what a layer derives from it is recorded too, rather than left over from the last
        return net._call_impl(self.template.apply(lambda _: next(values)))


def without_lists(batch: Batch) -> Batch:
    """A copy without the lists of pairs, whose lengths differ from batch to batch, of masks that are also matrices."""
    out = copy(batch)
    out.memo = {}
    for key, value in batch.memo.items():
        out.memo[key] = value
        if isinstance(value, WideBatch):
            out.memo[key] = wide = without_lists(value)
            wide.narrow = out
        elif isinstance(value, Pairs) and "dense" in vars(value):
            out.memo[key] = pairs = copy(value)
            for name in PAIR_LISTS & vars(pairs).keys():
                del vars(pairs)[name]
    return out


def tensors_of(batch: GraphBatch) -> list[Tensor]:
    """Every tensor of a batch, those in its memo included, in the order of `GraphBatch.apply`."""
    tensors: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    batch.apply(collect)
    return tensors


def structure(batch: GraphBatch) -> Hashable:
    """What a recording takes for granted of a batch, apart from the shapes and dtypes of `tensors_of` it."""
    memo: list[Hashable] = []
    for key, value in batch.memo.items():
        if isinstance(value, Pairs):
            memo.append((key, tuple(vars(value)), tuple(value.choices.items())))
        else:
            memo.append((key, structure(value) if isinstance(value, WideBatch) else type(value)))
    return batch.max_nodes, tuple(vars(batch)), tuple(batch.extras), tuple(memo)


def clone_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Copy gradients out of the memory of CUDA graphs, which their next replay overwrites.

    Gradients of further batches are then added to the copies.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = parameter.grad.clone()
