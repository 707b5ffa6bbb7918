"""Detects sums whose last digits depend on the order in which threads add."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

INDEX_PUT = (torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_)


class NoRaces(TorchDispatchMode):
    """Fails if several rows are added to one row at once, as by the gradient of ``table[index]`` on a CPU.

    Its threads add in the order in which they acquire a lock, so a busy machine trains to different numbers. The
    gradient of ``table.index_select(0, index)`` adds in the order of the index.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in INDEX_PUT and len(args) > 3 and args[3]:
            targets = torch.stack(torch.broadcast_tensors(*(part for part in args[1] if part is not None))).flatten(1)
            if targets.dtype != torch.bool:
                assert targets.shape[1] == targets.unique(dim=1).shape[1], (
                    "rows are added to one place by several threads"
                )
        return func(*args, **(kwargs or {}))
