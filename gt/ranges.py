"""Valid ranges of numeric arguments, of this package's constructors and of Lightning's.

The functions are for constructors; each raises a ValueError that names the argument.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

Limits = dict[str, tuple[Callable[[float], bool], str]]  # argument to a predicate and a description of valid values


def _is_batch_limit(value: float) -> bool:
    """Whether Lightning accepts this as a positive number of batches or share of an epoch."""
    return value > 0 and (isinstance(value, int) or value <= 1)


BATCHES = "a whole number of batches, or a share of them above 0 and up to 1.0; null for all"

# Lightning accepts other values silently, and then trains nothing or fails midway
LIMITS: dict[str, Limits] = {
    "gt.train.compile.Trainer": {
        "max_epochs": (lambda n: n >= 1 or n == -1, "1 or more, or -1 for no end"),
        "max_steps": (lambda n: n >= 1 or n == -1, "1 or more, or -1 for no end"),
        "limit_train_batches": (_is_batch_limit, BATCHES),
        "limit_val_batches": (_is_batch_limit, f"{BATCHES}: validation selects the best checkpoint"),
        "limit_test_batches": (_is_batch_limit, BATCHES),
        "accumulate_grad_batches": (lambda n: n >= 1, "1 or more"),
        "gradient_clip_val": (lambda n: n >= 0, "0 or more, or null not to clip"),
        "val_check_interval": (
            _is_batch_limit,
            "a whole number of batches, or a share of an epoch above 0 and up to 1.0",
        ),
        "check_val_every_n_epoch": (lambda n: n >= 1, "1 or more"),
        "log_every_n_steps": (lambda n: n >= 1, "1 or more"),
        "num_sanity_val_steps": (lambda n: n >= -1, "0 or more, or -1 for all"),
        "num_nodes": (lambda n: n >= 1, "1 or more"),
        "overfit_batches": (lambda n: n == 0, "left out: use debug=overfit to overfit two batches"),
        "devices": (lambda n: n >= 1 or n == -1, "1 or more, or -1 for all devices"),
    },
    "pytorch_lightning.callbacks.EarlyStopping": {"patience": (lambda n: n >= 0, "0 or more")},
    "pytorch_lightning.callbacks.ModelCheckpoint": {"save_top_k": (lambda n: n >= -1, "0 or more, or -1 for all")},
}


def at_least(minimum: int, value: float, name: str) -> None:
    """Check that a value is finite and at least ``minimum``."""
    if not minimum <= value < math.inf:
        raise ValueError(f"{name} must be {minimum} or more, not {value}")


def divides(heads: int, width: int) -> None:
    """Check that the number of heads is positive and divides the width."""
    at_least(1, heads, "heads")
    if width % heads:
        raise ValueError(f"{heads} heads do not divide a width of {width}")


def positive(value: float, name: str) -> None:
    """Check that a value is finite and above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0, not {value}")


def below_one(value: float, name: str) -> None:
    """Check that a value is 0 or more and below 1, such as a dropout rate."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be 0 or more and below 1, not {value}")


def up_to_one(value: float, name: str) -> None:
    """Check that a value is from 0 to 1, both included."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {value}")


def beyond_limits(section: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first key of a section whose value is out of range, and what it should be; None if all are valid."""
    for key, (is_valid, description) in LIMITS.get(section.get("_target_", ""), {}).items():
        value = section.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and not is_valid(value):
            return key, description
    return None
