"""What a sweep is asked for, and what it goes over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from gt.cli.arguments import ASKING, alternatives, parsed, value_of
from gt.cli.config_files import CONFIGS, Files, searched
from gt.cli.seeds import is_repetition
from gt.errors import UserError
from gt.train.study import check_installed, library

HYDRAS = ("hydra.mode", "hydra.sweep", "hydra.callbacks.ranking")  # of the sweep itself, and not of its runs
DIGITS = 6  # of a number that is drawn


@dataclass(frozen=True)
class Search:
    """The section ``sweep``.

    Args:
        sampler: the section of one of Optuna's samplers, or of `gt.cli.trials.grid.Grid`.
        trials: how many are finished, pruned or failed when the sweep ends; None: all that a grid has.
        seeds: runs of each trial, whose mean counts; they count up from ``seed``.
        workers: trials that run at the same time, each with its share of the CPU cores.
        storage: the file that keeps the trials: ``sqlite``, or ``journal`` where several machines share a disk.
        cost: what is to be small besides a good score, of a run's result; None: the score alone counts.
        space: overrides with several values, such as ``optim.lr=tag(log, interval(1e-4, 1e-2))``, for the keys that the
            command line does not set.
    """

    sampler: Mapping[str, Any]
    trials: int | None = 20
    seeds: int = 1
    workers: int = 1
    storage: Literal["sqlite", "journal"] = "sqlite"
    cost: Literal["seconds_per_batch", "parameters"] | None = None
    space: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("trials", "seeds", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")


def as_trials(
    flags: list[str], overrides: list[str], seeds: int, against: str
) -> tuple[list[str], list[str], int, str]:
    """The parts of a command line, where ``sweep=NAME`` makes a sweep of it that goes over the space of that option.

    A key that the command line sets is what it says there; ``seeds=3`` is short for ``sweep.seeds=3``.

    Raises:
        UserError: Optuna is not installed.
    """
    chosen = [line.partition("=")[2] for line in overrides if line.startswith("sweep=") and line != "sweep=null"]
    if not chosen or any(flag in ("-r", "--run", "-c", "--cfg", *ASKING) for flag in flags):
        return flags, overrides, seeds, against
    check_installed()
    beside = value_of(flags, "-cd", "--config-dir")
    files = Files(CONFIGS, *(searched(place) for place in (beside,) if place))
    section = (files.read(f"sweep/{chosen[-1]}").get("sweep") or {}) if chosen[-1] in files.groups["sweep"] else {}
    own = {override.key_or_group for override in parsed(overrides)}
    space = [line for line in section.get("space", ()) if parsed([line])[0].key_or_group not in own]
    repeats = [f"sweep.seeds={seeds}"] if seeds else []
    flags = flags if {"-m", "--multirun"} & {*flags} else [*flags, "-m"]
    return flags, [*overrides, *space, *repeats], 0, against


def split(overrides: Sequence[str]) -> tuple[list[str], list[Override]]:
    """The overrides that all runs share, and those that a sweep goes over.

    Raises:
        UserError: there is nothing to go over, or it goes over seeds.
    """
    common, swept = [], []
    for override in parsed(list(overrides)):
        line = str(override.input_line)
        if override.is_sweep_override():
            if is_repetition(line):
                raise UserError(f"{line}: a trial is the mean over its seeds; give sweep.seeds=3 instead")
            swept.append(override)
        elif not override.key_or_group.startswith(("sweep.", "sweep/", *HYDRAS)):
            common.append(line)
    if not swept:
        hint = "optim.lr='tag(log, interval(1e-4, 1e-2))' or model.depth=2,4,8"
        raise UserError(f"a sweep needs something to go over: give a key several values, such as {hint}")
    return common, swept


def distribution(override: Override, options: Sequence[str]) -> Any:
    """What Optuna draws the values of an override from.

    Args:
        options: what a ``glob`` chooses from.

    Raises:
        UserError: an interval from which nothing can be drawn, such as one from 0 by its logarithm.
    """
    optuna, value = library(), override.value()
    if isinstance(value, IntervalSweep):
        kind = "IntDistribution" if isinstance(value.start, int) else "FloatDistribution"
        try:
            return getattr(optuna.distributions, kind)(value.start, value.end, log="log" in value.tags)
        except ValueError as error:
            raise UserError(f"{override.input_line}: {error}") from None
    if isinstance(value, RangeSweep) and isinstance(value.step, int) and isinstance(value.start, int):
        values = range(value.start, int(value.stop), value.step)  # type: ignore[arg-type]
        if not values:
            raise UserError(f"{override.input_line}: there is no number in it")
        return optuna.distributions.IntDistribution(min(values), max(values), step=abs(value.step))
    lines = alternatives(override, options)
    return optuna.distributions.CategoricalDistribution([line.partition("=")[2] for line in lines])


def lines(swept: Sequence[Override], values: Mapping[str, Any]) -> list[str]:
    """The overrides of a trial with these values, by key."""
    shown = {key: f"{value:.{DIGITS}g}" if isinstance(value, float) else value for key, value in values.items()}
    return [f"{override.get_key_element()}={shown[override.key_or_group]}" for override in swept]
