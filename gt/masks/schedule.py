"""Masks that change while training goes on."""

from collections.abc import Sequence
from dataclasses import dataclass

from gt.masks.base import Mask


@dataclass(frozen=True)
class Schedule:
    """Masks that take turns, each for an equal share of the training; before it begins the first one holds.

    It stands where a model takes a mask; `gt.train.callbacks.MaskSchedule` has it go on.

    Attributes:
        masks: in order, such as ``(Hops(1), Hops(2), Complete())`` from local to complete.
    """

    masks: Sequence[Mask]

    def __post_init__(self) -> None:
        if not self.masks:
            raise ValueError("a schedule needs at least one mask")
        object.__setattr__(self, "masks", tuple(self.masks))  # a list from a configuration would not hash

    def at(self, progress: float) -> Mask:
        """The mask that holds when a share ``progress``, 0 to 1, of the training is done."""
        turn = int(progress * len(self.masks) + 1e-9)  # 0.29 * 100 is below 29
        return self.masks[min(turn, len(self.masks) - 1)]
