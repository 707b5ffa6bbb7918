"""The cells of a map: which there are, and what each asks of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from gt.ranges import at_least
from gt.schema import many

Radius = int | None  # None: no limit
QUICK = (  # validated after every hundred steps at the latest
    "trainer.limit_train_batches=100",
    "trainer.val_check_interval=1.0",
    "trainer.check_val_every_n_epoch=1",
    "trainer.max_steps=400",
)


@dataclass(frozen=True)
class Axis:
    """What a radius is under a mask, and how it is set.

    Attributes:
        step: what is counted; unit: in words for an axis.
        within: whom a radius lets a node read; everyone: whom no limit does.
        limited, unlimited: overrides; a radius stands where the braces are.
    """

    step: str
    unit: str
    within: str
    everyone: str
    limited: tuple[str, ...]
    unlimited: tuple[str, ...]

    def overrides(self, radius: Radius) -> list[str]:
        """Those of a radius."""
        return list(self.unlimited) if radius is None else [line.format(radius) for line in self.limited]

    def words(self, radius: Radius) -> str:
        """Whom a node reads."""
        if not radius:
            return self.everyone if radius is None else "itself alone"
        return self.within.format(many(radius, self.step))


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
AXES = {"hops": HOPS, "one_hop": HOPS, "causal": BACK, "causal_window": BACK, "window": SIDES}  # by the mask chosen


class Setting(NamedTuple):
    """A cell of the map, which every seed repeats. Without attention no mask is read: weight 0 has no radius."""

    weight: float
    radius: Radius


class Cell(NamedTuple):
    """One run."""

    setting: Setting
    seed: int

    @property
    def name(self) -> str:
        """Of its folder, of letters that neither a shell nor Hydra takes for anything else."""
        weight, radius = self.setting
        of_mask = f"radius-{'all' if radius is None else radius}_" if weight else ""
        return f"{of_mask}blend-{weight:g}_seed-{self.seed}"

    def overrides(self, axis: Axis) -> list[str]:
        """What makes a run this cell.

        In the corners the branch without a share is left out, so that a GNN costs what a GNN costs.
        """
        weight, radius = self.setting
        blend = [f"model.block.blend.weight={weight:g}", "model.block.blend.learned=false"]
        alone = {0.0: ["model.block.attention=null"], 1.0: ["model.block.local=null"]}
        return [*(axis.overrides(radius) if weight else ()), *alone.get(weight, blend), f"seed={self.seed}"]


class Grid:
    """What a map goes over: each mask radius with each blend weight, repeated with several seeds.

    Args:
        radii: of the mask, None for no limit; None in place of all for 0, 1, 2, 4 and no limit, quick 0, 1 and none.
        weights: shares of attention; None for 0, 0.25, 0.5, 0.75 and 1, quick for 0, 0.5 and 1.
        seeds: runs of each cell, by the seeds 0, 1, ...; None for 3, quick for 2.
        processes: runs at a time; None for one a CPU core, 8 at most, or one where a GPU trains.
        quick: fewer cells, of 400 steps at most.

    Raises:
        ValueError: a value that no map has.
    """

    def __init__(
        self,
        radii: Sequence[int | None] | None = None,
        weights: Sequence[float] | None = None,
        seeds: int | None = None,
        processes: int | None = None,
        quick: bool = False,
    ) -> None:
        few = ([0, 1, None], [0.0, 0.5, 1.0], 2)
        usual = ([0, 1, 2, 4, None], [0.0, 0.25, 0.5, 0.75, 1.0], 3)
        values = zip((radii, weights, seeds), few if quick else usual, strict=True)
        chosen: Any = [other if value is None else value for value, other in values]
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
        """Every cell once."""
        pairs = product(self.weights, self.radii)
        return list(dict.fromkeys(Setting(weight, radius if weight else None) for weight, radius in pairs))

    @property
    def cells(self) -> list[Cell]:
        """Every run, seed by seed: a map that is stopped early has all its cells once."""
        return [Cell(setting, seed) for seed in range(self.seeds) for setting in self.settings]
