"""What constructors ask of the numbers that they are given; each raises a ValueError that names the argument."""

import math


def at_least(least: int, value: float, name: str) -> None:
    """``least`` or more."""
    if not least <= value < math.inf:
        raise ValueError(f"{name} must be {least} or more, not {value}")


def positive(value: float, name: str) -> None:
    """Above 0, and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0, not {value}")


def below_one(value: float, name: str) -> None:
    """0 or more and below 1, such as a probability of dropping something."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be 0 or more and below 1, not {value}")
