"""The numbers that arguments may be: of this program's constructors, and of Lightning's.

The functions are for constructors; each raises a ValueError that names the argument.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

Limits = dict[str, tuple[Callable[[float], bool], str]]  # of each argument: whether it allows a number, and in words


def _batches(count: float) -> bool:
    """Whether Lightning takes it for some batches of an epoch, or for a share of it."""
    return count > 0 and (isinstance(count, int) or count <= 1)


BATCHES = "a whole number of batches, or a share of them above 0 and up to 1.0; null for all"

# Lightning's classes take others without a word, to train nothing by them or to fail in the middle
LIMITS: dict[str, Limits] = {
    "gt.train.compile.Trainer": {
        "max_epochs": (lambda n: n >= 1 or n == -1, "1 or more, or -1 for no end"),
        "max_steps": (lambda n: n >= 1 or n == -1, "1 or more, or -1 for no end"),
        "limit_train_batches": (_batches, BATCHES),
        "limit_val_batches": (_batches, f"{BATCHES}: validation says which checkpoint is best"),
        "limit_test_batches": (_batches, BATCHES),
        "accumulate_grad_batches": (lambda n: n >= 1, "1 or more"),
        "gradient_clip_val": (lambda n: n >= 0, "0 or more, or null not to clip"),
        "val_check_interval": (_batches, "a whole number of batches, or a share of an epoch above 0 and up to 1.0"),
        "check_val_every_n_epoch": (lambda n: n >= 1, "1 or more"),
        "log_every_n_steps": (lambda n: n >= 1, "1 or more"),
        "num_sanity_val_steps": (lambda n: n >= -1, "0 or more, or -1 for all"),
        "num_nodes": (lambda n: n >= 1, "1 or more"),
        "overfit_batches": (lambda n: n == 0, "left out: debug=overfit learns two batches by heart"),
        "devices": (lambda n: n >= 1 or n == -1, "1 or more, or -1 for all that there are"),
    },
    "pytorch_lightning.callbacks.EarlyStopping": {"patience": (lambda n: n >= 0, "0 or more")},
    "pytorch_lightning.callbacks.ModelCheckpoint": {"save_top_k": (lambda n: n >= -1, "0 or more, or -1 for all")},
}


def at_least(least: int, value: float, name: str) -> None:
    """``least`` or more."""
    if not least <= value < math.inf:
        raise ValueError(f"{name} must be {least} or more, not {value}")


def divides(heads: int, width: int) -> None:
    """So many heads, 1 or more, share a width evenly."""
    at_least(1, heads, "heads")
    if width % heads:
        raise ValueError(f"{heads} heads do not divide a width of {width}")


def positive(value: float, name: str) -> None:
    """Above 0, and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0, not {value}")


def below_one(value: float, name: str) -> None:
    """0 or more and below 1, such as a probability of dropping something."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be 0 or more and below 1, not {value}")


def up_to_one(value: float, name: str) -> None:
    """From 0 to 1, both included."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {value}")


def beyond_limits(section: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first key of a section whose number is beyond its limits, and what it should be; None where all are right."""
    for key, (allowed, words) in LIMITS.get(section.get("_target_", ""), {}).items():
        value = section.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and not allowed(value):
            return key, words
    return None
