"""The settings and the search space of a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from gt.cli.arguments import ANSWERED, alternatives, flag_value, parse_overrides
from gt.cli.config_files import CONFIGS, Files, search_folder
from gt.cli.seeds import is_repetition
from gt.errors import UserError
from gt.train.study import check_installed, import_optuna

SWEEP_ONLY = ("hydra.mode", "hydra.sweep", "hydra.callbacks.ranking")  # keys of the sweep, not of its runs
DIGITS = 6  # significant digits of sampled numbers


@dataclass(frozen=True)
class Search:
    """The section ``sweep``.

    Args:
        sampler: the section of one of Optuna's samplers, or of `gt.cli.trials.grid.Grid`.
        trials: number of trials, including pruned and failed ones; None for all of a grid.
        seeds: runs of each trial, whose scores are averaged; seeds count up from ``seed``.
        workers: parallel trials, which share the CPU cores.
        storage: the file that stores the trials: ``sqlite``, or ``journal`` if several machines share a disk.
        cost: a number of a run's result to minimise as a second objective; None for the score alone.
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
    """Turn a command line with ``sweep=NAME`` into a sweep over the search space of that option.

    Keys set on the command line are left out of the search space; ``seeds=3`` is short for ``sweep.seeds=3``.

    Returns:
        The flags, overrides, seeds and ``against``; unchanged if there is no such sweep.

    Raises:
        UserError: Optuna is not installed.
    """
    chosen = [line.partition("=")[2] for line in overrides if line.startswith("sweep=") and line != "sweep=null"]
    if not chosen or any(flag in ("-r", "--run", "-c", "--cfg", *ANSWERED) for flag in flags):
        return flags, overrides, seeds, against
    check_installed()
    config_dir = flag_value(flags, "-cd", "--config-dir")
    files = Files(CONFIGS, *(search_folder(folder) for folder in (config_dir,) if folder))
    section = (files.read(f"sweep/{chosen[-1]}").get("sweep") or {}) if chosen[-1] in files.groups["sweep"] else {}
    set_keys = {override.key_or_group for override in parse_overrides(overrides)}
    space = [line for line in section.get("space", ()) if parse_overrides([line])[0].key_or_group not in set_keys]
    repeats = [f"sweep.seeds={seeds}"] if seeds else []
    flags = flags if {"-m", "--multirun"} & {*flags} else [*flags, "-m"]
    return flags, [*overrides, *space, *repeats], 0, against


def split(overrides: Sequence[str]) -> tuple[list[str], list[Override]]:
    """Split overrides into those that all runs share and those that the sweep searches.

    Raises:
        UserError: there is nothing to search, or the sweep searches over seeds.
    """
    common, swept = [], []
    for override in parse_overrides(list(overrides)):
        line = str(override.input_line)
        if override.is_sweep_override():
            if is_repetition(line):
                raise UserError(f"{line}: a trial is the mean over its seeds; give sweep.seeds=3 instead")
            swept.append(override)
        elif not override.key_or_group.startswith(("sweep.", "sweep/", *SWEEP_ONLY)):
            common.append(line)
    if not swept:
        hint = "optim.lr='tag(log, interval(1e-4, 1e-2))' or model.depth=2,4,8"
        raise UserError(f"a sweep needs a search space: give a key several values, such as {hint}")
    return common, swept


def distribution(override: Override, options: Sequence[str]) -> Any:
    """The Optuna distribution of the values of an override.

    Args:
        options: the options that a ``glob`` matches against.

    Raises:
        UserError: the interval is invalid, such as a logarithmic one from 0, or the range is empty.
    """
    optuna, value = import_optuna(), override.value()
    if isinstance(value, IntervalSweep):
        kind = "IntDistribution" if isinstance(value.start, int) else "FloatDistribution"
        try:
            return getattr(optuna.distributions, kind)(value.start, value.end, log="log" in value.tags)
        except ValueError as error:
            raise UserError(f"{override.input_line}: {error}") from None
    if isinstance(value, RangeSweep) and isinstance(value.step, int) and isinstance(value.start, int):
        values = range(value.start, int(value.stop), value.step)  # type: ignore[arg-type]
        if not values:
            raise UserError(f"{override.input_line}: the range is empty")
        return optuna.distributions.IntDistribution(min(values), max(values), step=abs(value.step))
    lines = alternatives(override, options)
    return optuna.distributions.CategoricalDistribution([line.partition("=")[2] for line in lines])


def lines(swept: Sequence[Override], values: Mapping[str, Any]) -> list[str]:
    """The overrides of a trial, given its values by key."""
    texts = {key: f"{value:.{DIGITS}g}" if isinstance(value, float) else value for key, value in values.items()}
    return [f"{override.get_key_element()}={texts[override.key_or_group]}" for override in swept]
