"""Masks that change during training."""

from collections.abc import Sequence
from dataclasses import dataclass

from gt.masks.base import Mask


@dataclass(frozen=True)
class Schedule:
    """A sequence of masks, each active for an equal share of the training; the first one before it begins.

    A model accepts it in place of a mask; `gt.train.callbacks.MaskSchedule` advances it.

    Attributes:
        masks: in order, such as ``(Hops(1), Hops(2), Complete())`` from local to complete.
    """

    masks: Sequence[Mask]

    def __post_init__(self) -> None:
        if not self.masks:
            raise ValueError("a schedule needs at least one mask")
        object.__setattr__(self, "masks", tuple(self.masks))  # a list from a configuration is not hashable

    def at(self, progress: float) -> Mask:
        """The active mask at a ``progress`` from 0 to 1 of the training."""
        index = int(progress * len(self.masks) + 1e-9)  # 0.29 * 100 is below 29
        return self.masks[min(index, len(self.masks) - 1)]
