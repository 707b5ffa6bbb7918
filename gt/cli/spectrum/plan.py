"""The plan of a map, saved in its folder to resume it and draw it again."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from gt.cli.arguments import parse_overrides
from gt.cli.run_folders import FOLDER_OVERRIDES
from gt.cli.spectrum.grid import AXES, QUICK, Axis, Cell, Grid
from gt.errors import UserError, shell_override
from gt.train.construct import constructing
from gt.train.job import PLAN, RESULT, read_json, write_json

CELLS = "cells"  # subfolder with a run folder for each run
SWEPT = {
    "seed": "seeds",
    "mask": "radii",
    "model.block.blend": "weights",
}  # keys that the map sets
NAMING = ("name", "dataset", "path", "task", "view")  # keys that identify the data


@dataclass(frozen=True)
class Plan:
    """A map.

    Attributes:
        data: name of the data.
        mask: the option of ``mask``, one of `AXES`, which defines the radius.
        flags, overrides: the command line.
        common: overrides of every run.
        grid: arguments of `Grid`, with defaults filled in.
    """

    data: str
    mask: str
    flags: list[str]
    overrides: list[str]
    common: list[str]
    grid: dict[str, Any]

    @property
    def cells(self) -> list[Cell]:
        """Every run."""
        return Grid(**self.grid).cells

    @property
    def axis(self) -> Axis:
        """The meaning of the radius."""
        return AXES[self.mask]

    def command(self, folder: Path, cell: Cell) -> list[str]:
        """The arguments of ``train.py`` that resume or start an unfinished cell."""
        run = folder / CELLS / cell.name
        if any((run / "checkpoints").glob("*.ckpt")):
            return [f"resume={run}"]
        return self.arguments(cell, run)

    def arguments(self, cell: Cell, run: Path) -> list[str]:
        """The arguments of ``train.py`` that start a cell in a folder."""
        (folder_override,) = shlex.split(shell_override("hydra.run.dir", str(run)))
        return [*self.flags, *self.common, *cell.overrides(self.axis), "hydra.mode=RUN", folder_override]

    def missing(self, folder: Path) -> list[Cell]:
        """The cells without a result."""
        return [cell for cell in self.cells if not (folder / CELLS / cell.name / RESULT).exists()]

    def results(self, folder: Path) -> dict[Cell, dict[str, Any]]:
        """The results of the finished cells."""
        paths = {cell: folder / CELLS / cell.name / RESULT for cell in self.cells}
        return {cell: read_json(path) for cell, path in paths.items() if path.exists()}

    def save(self, folder: Path) -> None:
        """Save the plan in the folder of the map.

        Raises:
            UserError: the folder holds another map. (More radii, weights or seeds only extend a map.)
        """
        path = folder / PLAN
        if path.exists() and (saved := read(folder)).common != self.common:
            changes = sorted({*saved.common} ^ {*self.common})
            raise UserError(f"{folder} holds a map that differs by {' '.join(changes)}: choose another hydra.sweep.dir")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))


def read(folder: Path) -> Plan:
    """Read the plan of the map in a folder.

    Raises:
        UserError: there is none.
    """
    if not (folder / PLAN).is_file():
        raise UserError(f"no map in {folder}: give the folder that was printed when the map ended")
    return Plan(**read_json(folder / PLAN))


def refuse_sweeps(overrides: Sequence[str]) -> None:
    """Check that each override of a map's command line has a single value.

    Raises:
        UserError: one has several.
    """
    for override in parse_overrides(list(overrides)):
        if override.is_sweep_override():
            raise UserError(
                f"{override.input_line} gives several values: a map only sweeps over radii, weights and seeds"
            )


def plan_map(cfg: DictConfig, flags: Sequence[str]) -> tuple[Plan, int | None]:
    """Plan the map of a composed command line; returns the plan and the number of processes, if it is set.

    Args:
        cfg: the configuration, with Hydra's own section.
        flags: the flags of the command line, with their values.

    Raises:
        UserError: it sets a key that the map sweeps over, or the model or mask does not allow a map.
    """
    overrides, common = [*cfg.hydra.overrides.task], []
    refuse_sweeps(overrides)
    data = [cfg.hydra.runtime.choices.data]
    for override in parse_overrides(overrides):
        key, line = override.key_or_group, str(override.input_line)
        for swept_key, name in SWEPT.items():
            if f"{key}.".startswith(f"{swept_key}.") and key != "mask":
                raise UserError(f"{line}: the map sweeps over this; set spectrum.{name}")
        if key not in ("mask", "spectrum") and not key.startswith("spectrum."):
            common.append(line)
        if key.startswith("data.") and key.rpartition(".")[2] in NAMING:
            data.append(Path(str(override.value())).stem)
    mask = cfg.hydra.runtime.choices.mask
    if mask not in AXES:
        raise UserError(f"a map sweeps over the radius of a mask, but mask={mask} has none: choose {', '.join(AXES)}")
    if not all(OmegaConf.select(cfg, f"model.block.{branch}._target_") for branch in ("local", "attention")):
        raise UserError("a map blends a local branch with attention: choose a model with both, such as model=gps")
    with constructing(OmegaConf.masked_copy(cfg, ["spectrum"])):
        grid: Grid = instantiate(cfg.spectrum)
    excluded = ("hydra.mode", *FOLDER_OVERRIDES)
    hydra_lines = [line for line in cfg.hydra.overrides.hydra if not line.startswith(excluded)]
    common = [*hydra_lines, *(QUICK if grid.quick else ()), *common]
    grid_arguments = {"radii": grid.radii, "weights": grid.weights, "seeds": grid.seeds}
    return Plan(" ".join(data), mask, [*flags], overrides, common, grid_arguments), grid.processes
