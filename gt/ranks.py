"""Which of several processes this is, for what only the first one does, known without Lightning."""

import os
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only

__all__ = ["is_first", "rank_zero_only"]

VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # where launchers write it, as Lightning reads

_known: Any = rank_zero_only
if not hasattr(_known, "rank"):  # Lightning sets it when it is imported, and keeps what is there
    _known.rank = next((int(os.environ[name]) for name in VARIABLES if name in os.environ), 0)


def is_first() -> bool:
    """Whether this is the only process, or the first of several."""
    return _known.rank == 0
