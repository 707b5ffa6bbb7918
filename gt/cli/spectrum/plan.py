"""What a map is, kept in its folder: by that it goes on and is drawn again."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from gt.cli.arguments import parsed
from gt.cli.run_folders import OF_FOLDER
from gt.cli.spectrum.grid import AXES, QUICK, Axis, Cell, Grid
from gt.errors import UserError, shell_override
from gt.train.construct import constructing
from gt.train.job import PLAN, RESULT, read_json, write_json

CELLS = "cells"  # the folder of the runs, each in one of its own
SWEPT = {"seed": "seeds", "mask": "radii", "model.block.blend": "weights"}  # what the map itself goes over
NAMING = ("name", "dataset", "path", "task", "view")  # keys that say which data are meant


@dataclass(frozen=True)
class Plan:
    """A map.

    Attributes:
        data: what the map calls the data.
        mask: the option of ``mask``, one of `AXES`: what its radius is.
        flags, overrides: the command line.
        common: overrides of every run.
        grid: what a `Grid` takes, all filled in.
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
        """Of the mask's radius."""
        return AXES[self.mask]

    def command(self, folder: Path, cell: Cell) -> list[str]:
        """The arguments of ``train.py`` for a cell that is not finished: as it goes on, or begins."""
        run = folder / CELLS / cell.name
        if any((run / "checkpoints").glob("*.ckpt")):
            return [f"resume={run}"]
        return self.arguments(cell, run)

    def arguments(self, cell: Cell, run: Path) -> list[str]:
        """Those of a cell that begins, in a folder."""
        (place,) = shlex.split(shell_override("hydra.run.dir", str(run)))
        return [*self.flags, *self.common, *cell.overrides(self.axis), "hydra.mode=RUN", place]

    def missing(self, folder: Path) -> list[Cell]:
        """The cells that have no result."""
        return [cell for cell in self.cells if not (folder / CELLS / cell.name / RESULT).exists()]

    def results(self, folder: Path) -> dict[Cell, dict[str, Any]]:
        """The results of those that have one."""
        paths = {cell: folder / CELLS / cell.name / RESULT for cell in self.cells}
        return {cell: read_json(path) for cell, path in paths.items() if path.exists()}

    def keep(self, folder: Path) -> None:
        """Write it into its folder.

        Raises:
            UserError: the folder holds another map. More radii, weights and seeds are the same map.
        """
        path = folder / PLAN
        if path.exists() and (kept := read(folder)).common != self.common:
            other = sorted({*kept.common} ^ {*self.common})
            raise UserError(f"{folder} holds a map that differs by {' '.join(other)}: choose another hydra.sweep.dir")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))


def read(folder: Path) -> Plan:
    """The map of a folder.

    Raises:
        UserError: there is none.
    """
    if not (folder / PLAN).is_file():
        raise UserError(f"no map in {folder}: it takes the folder that a map named when it ended")
    return Plan(**read_json(folder / PLAN))


def refuse_several(overrides: Sequence[str]) -> None:
    """Whether each override of a map's command line gives one value.

    Raises:
        UserError: one gives several.
    """
    for override in parsed(list(overrides)):
        if override.is_sweep_override():
            raise UserError(
                f"{override.input_line} gives several values: a map goes over radii, weights and seeds alone"
            )


def planned(cfg: DictConfig, flags: Sequence[str]) -> tuple[Plan, int | None]:
    """The map that a composed command line asks for, and how many processes it sets.

    Args:
        cfg: with Hydra's own section.
        flags: those of the command line, with their values.

    Raises:
        UserError: it sets what the map goes over, or the model or the mask is none that a map can be of.
    """
    overrides, common = [*cfg.hydra.overrides.task], []
    refuse_several(overrides)
    data = [cfg.hydra.runtime.choices.data]
    for override in parsed(overrides):
        key, line = override.key_or_group, str(override.input_line)
        for swept, name in SWEPT.items():
            if f"{key}.".startswith(f"{swept}.") and key != "mask":
                raise UserError(f"{line}: the map goes over that; set spectrum.{name}")
        if key not in ("mask", "spectrum") and not key.startswith("spectrum."):
            common.append(line)
        if key.startswith("data.") and key.rpartition(".")[2] in NAMING:
            data.append(Path(str(override.value())).stem)
    mask = cfg.hydra.runtime.choices.mask
    if mask not in AXES:
        raise UserError(f"a map goes over the radius of a mask, which mask={mask} has not: choose {', '.join(AXES)}")
    if not all(OmegaConf.select(cfg, f"model.block.{branch}._target_") for branch in ("local", "attention")):
        raise UserError("a map goes over the blend of a local branch and attention: choose a model of both, model=gps")
    with constructing(OmegaConf.masked_copy(cfg, ["spectrum"])):
        grid: Grid = instantiate(cfg.spectrum)
    of_folder = ("hydra.mode", *OF_FOLDER)
    hydras = [line for line in cfg.hydra.overrides.hydra if not line.startswith(of_folder)]
    common = [*hydras, *(QUICK if grid.quick else ()), *common]
    filled = {"radii": grid.radii, "weights": grid.weights, "seeds": grid.seeds}
    return Plan(" ".join(data), mask, [*flags], overrides, common, filled), grid.processes
