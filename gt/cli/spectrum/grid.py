"""The cells of a map and their overrides."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from gt.ranges import at_least
from gt.schema import pluralise

Radius = int | None  # None: no limit
QUICK = (  # validate at least every hundred steps
    "trainer.limit_train_batches=100",
    "trainer.val_check_interval=1.0",
    "trainer.check_val_every_n_epoch=1",
    "trainer.max_steps=400",
)


@dataclass(frozen=True)
class Axis:
    """The meaning of the radius of a mask, and the overrides that set it.

    Attributes:
        step: name of one step; unit: axis label.
        within: which nodes a node reads with a radius, a template; everyone: the same without a limit.
        limited, unlimited: overrides with a radius, templates, and without a limit.
    """

    step: str
    unit: str
    within: str
    everyone: str
    limited: tuple[str, ...]
    unlimited: tuple[str, ...]

    def overrides(self, radius: Radius) -> list[str]:
        """The overrides for a radius."""
        return list(self.unlimited) if radius is None else [line.format(radius) for line in self.limited]

    def describe(self, radius: Radius) -> str:
        """Which nodes a node reads, in words."""
        if not radius:
            return self.everyone if radius is None else "itself alone"
        return self.within.format(pluralise(radius, self.step))


COMPLETE = ("mask=hops", "mask.hops=null")
HOPS = Axis("hop", "hops", "all within {}", "all nodes", ("mask=hops", "mask.hops={}"), COMPLETE)
BACK = Axis(
    "position",
    "positions back",
    "itself and the last {}",
    "all before",
    ("mask=causal_window", "mask.masks.0.width={}"),
    ("mask=causal",),
)
SIDES = Axis("position", "positions to each side", "{} to each side", "all", ("mask=window", "mask.width={}"), COMPLETE)
AXES = {
    "hops": HOPS,
    "one_hop": HOPS,
    "causal": BACK,
    "causal_window": BACK,
    "window": SIDES,
}  # by option of mask


class Setting(NamedTuple):
    """A cell of the map, repeated with each seed. Weight 0 has no attention, and therefore no radius."""

    weight: float
    radius: Radius


class Cell(NamedTuple):
    """One run."""

    setting: Setting
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder, free of characters that are special to a shell or Hydra."""
        weight, radius = self.setting
        radius_part = f"radius-{'all' if radius is None else radius}_" if weight else ""
        return f"{radius_part}blend-{weight:g}_seed-{self.seed}"

    def overrides(self, axis: Axis) -> list[str]:
        """The overrides of this cell.

        Weights 0 and 1 drop the unused branch, so that a GNN costs what a GNN costs.
        """
        weight, radius = self.setting
        blend = [f"model.block.blend.weight={weight:g}", "model.block.blend.learned=false"]
        corners = {0.0: ["model.block.attention=null"], 1.0: ["model.block.local=null"]}
        return [*(axis.overrides(radius) if weight else ()), *corners.get(weight, blend), f"seed={self.seed}"]


class Grid:
    """The grid of a map: each mask radius with each blend weight, repeated with several seeds.

    Args:
        radii: radii of the mask, with None for no limit; by default 0, 1, 2, 4 and no limit, with ``quick`` 0, 1 and
            no limit.
        weights: shares of attention; by default 0, 0.25, 0.5, 0.75 and 1, with ``quick`` 0, 0.5 and 1.
        seeds: runs of each cell, with seeds 0, 1, ...; by default 3, with ``quick`` 2.
        processes: parallel runs; by default one for each CPU core, at most 8, or one when training on a GPU.
        quick: fewer cells, each of at most 400 steps.

    Raises:
        ValueError: a value is out of its range.
    """

    def __init__(
        self,
        radii: Sequence[int | None] | None = None,
        weights: Sequence[float] | None = None,
        seeds: int | None = None,
        processes: int | None = None,
        quick: bool = False,
    ) -> None:
        quick_defaults = ([0, 1, None], [0.0, 0.5, 1.0], 2)
        defaults = ([0, 1, 2, 4, None], [0.0, 0.25, 0.5, 0.75, 1.0], 3)
        values = zip((radii, weights, seeds), quick_defaults if quick else defaults, strict=True)
        chosen: Any = [default if value is None else value for value, default in values]
        self.radii: list[Radius] = sorted(set(chosen[0]), key=lambda radius: (radius is None, radius))
        self.weights: list[float] = sorted(set(map(float, chosen[1])))
        self.seeds: int = chosen[2]
        self.processes, self.quick = processes, quick
        for radius in self.radii:
            at_least(0, radius or 0, "radii")
        if not all(0 <= weight <= 1 for weight in self.weights):
            raise ValueError(f"weights must be between 0 and 1, not {chosen[1]}")
        at_least(1, len(self.radii), "the number of radii")
        at_least(1, len(self.weights), "the number of weights")
        at_least(1, self.seeds, "seeds")
        at_least(1, processes or 1, "processes")

    @property
    def settings(self) -> list[Setting]:
        """Every cell, without seeds."""
        pairs = product(self.weights, self.radii)
        return list(dict.fromkeys(Setting(weight, radius if weight else None) for weight, radius in pairs))

    @property
    def cells(self) -> list[Cell]:
        """Every run, seed by seed, so that a map stopped early covers all its cells."""
        return [Cell(setting, seed) for seed in range(self.seeds) for setting in self.settings]
