"""Two arguments that are not configuration keys: ``seeds=5`` repeats runs, ``against=...`` chooses a reference.

``seeds=N`` turns any command into a sweep: each of its settings runs with N seeds, counted up from ``seed``.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Glob, Override

from gt.cli.arguments import alternatives, parse_overrides, split_flags
from gt.errors import UserError, nearest, shell_override
from gt.train.job import RESULT

REPETITION_KEYS = ("seed", "data.source.split_seed", "data.source.fold")  # in which the runs of one setting differ


def key_of(override: Override) -> str:
    """The key of an override, with ``data.source.`` abbreviated to ``data.``."""
    return str(override.key_or_group).replace("data.source.", "data.", 1)


def is_repetition(line: str) -> bool:
    """Whether an override sets a seed or fold, which repeats a run rather than changing it."""
    return line.lstrip("+").partition("=")[0] in REPETITION_KEYS


def split_off_seeds(overrides: Sequence[str]) -> tuple[list[str], int, str]:
    """Split off ``seeds`` and ``against``: the other overrides and these two values, 0 and "" by default.

    Raises:
        UserError: ``seeds`` is not a positive number.
    """
    values: dict[str, str] = {}
    rest = []
    for line in overrides:
        key, _, value = line.partition("=")
        if key in ("seeds", "against"):
            values[key] = value
        else:
            rest.append(line)
    seeds = values.get("seeds")
    if seeds is not None and not (seeds.isdecimal() and int(seeds)):
        raise UserError(f"seeds={seeds}: it must be a whole number above 0")
    return rest, int(seeds or 0), values.get("against", "")


def with_seeds(arguments: Sequence[str], seeds: int, first: int) -> list[str]:
    """The arguments of a sweep over a number of seeds.

    Seeds come first, so that a stopped sweep has run every setting with the seeds it reached.

    Args:
        first: the first seed, unless an override sets it.

    Raises:
        UserError: the overrides already sweep over seeds, or the seeds would exceed their range.
    """
    flags, overrides = split_flags(arguments)
    seed_overrides = [override for override in parse_overrides(overrides) if override.key_or_group == "seed"]
    if any(override.is_sweep_override() for override in seed_overrides):
        raise UserError(
            f"seeds={seeds} counts up from one seed, and {seed_overrides[-1].input_line} gives several: leave one out"
        )
    first = int(str(seed_overrides[-1].value())) if seed_overrides else first
    if first + seeds > 1 << 32:
        raise UserError(f"seeds={seeds} from seed={first}: seeds must be below 2^32")
    seed_lines = {override.input_line for override in seed_overrides}
    return [*flags, f"seed=range({first},{first + seeds})", *(line for line in overrides if line not in seed_lines)]


def check_against(against: str, overrides: Sequence[str]) -> str:
    """Check that ``against`` names one setting; returns the override that passes it to Hydra's callback.

    Args:
        against: the folder of a finished sweep, or overrides that choose one setting of this sweep.
        overrides: those of this sweep.

    Raises:
        UserError: there is no such folder or setting, or more than one setting matches.
    """
    callback_override = shlex.split(shell_override("++hydra.callbacks.ranking.against", against))
    folder = Path(against)
    if folder.is_dir():
        if not any(folder.glob(f"*/{RESULT}")):
            problem = "is one run" if (folder / RESULT).exists() else "holds no finished job"
            raise UserError(f"against={against} {problem}: give the folder of a sweep, such as one with seeds=5")
        return callback_override[0]
    if "=" not in against:
        raise UserError(f"against={against}: there is no such folder, and it is not an override (key=value)")
    choices = {key_of(override): override for override in parse_overrides(list(overrides))}
    chosen = parse_overrides(shlex.split(against))
    for override in chosen:
        line, key = override.input_line, key_of(override)
        if key not in choices:
            raise UserError(f"against={line}: this command does not set '{key}': {nearest(key, choices)}")
        available = choices[key]
        if isinstance(available.value(), Glob):
            continue
        lines = alternatives(available)
        if override.value() not in [candidate.value() for candidate in parse_overrides(lines)]:
            raise UserError(f"against={line}: no run has it; choose among {', '.join(lines)}")
    swept = {
        key
        for key, candidate in choices.items()
        if candidate.is_sweep_override() and candidate.key_or_group not in REPETITION_KEYS
    }
    if missing := sorted(swept - {key_of(override) for override in chosen}):
        example = " ".join([against, *(f"{key}=VALUE" for key in missing)])
        raise UserError(f"against={against} matches several settings: choose one, such as against='{example}'")
    return callback_override[0]
