"""Sums whose last digits depend on which thread comes first."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

PUTS = (torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_)


class NoRaces(TorchDispatchMode):
    """Refuses what adds several rows to one place at once, as the gradient of ``table[index]`` does on a CPU.

    Its threads take turns by locks, in the order in which they come: a busy machine trains to other numbers. That of
    ``table.index_select(0, index)`` goes in the order of the index.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in PUTS and len(args) > 3 and args[3]:
            places = torch.stack(torch.broadcast_tensors(*(each for each in args[1] if each is not None))).flatten(1)
            if places.dtype != torch.bool:
                assert places.shape[1] == places.unique(dim=1).shape[1], (
                    "rows are added to one place by several threads"
                )
        return func(*args, **(kwargs or {}))
