"""The rank of this process, determined without importing Lightning."""

import os
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only

__all__ = ["is_first", "rank_zero_only"]

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # in Lightning's order

_rank_zero_only: Any = rank_zero_only
if not hasattr(_rank_zero_only, "rank"):  # Lightning sets it on import, unless it is set already
    _rank_zero_only.rank = next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)


def is_first() -> bool:
    """Whether this process has rank 0."""
    return _rank_zero_only.rank == 0
