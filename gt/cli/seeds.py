"""Two words of the command line that are no keys: ``seeds=5`` repeats runs, ``against=...`` says what to compare with.

``seeds=N`` makes a sweep of any command: each of its settings runs with N seeds, counted up from ``seed``.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Glob, Override

from gt.cli.arguments import alternatives, arranged, parsed
from gt.errors import UserError, nearest, shell_override
from gt.train.job import RESULT

REPEATED = ("seed", "data.source.split_seed", "data.source.fold")  # what tells the runs of one setting apart


def key_of(override: Override) -> str:
    """The key of an override in full, as far as can be told without the data."""
    return str(override.key_or_group).replace("data.source.", "data.", 1)


def is_repetition(line: str) -> bool:
    """Whether an override repeats a run, by another seed or fold, rather than changing what is run."""
    return line.lstrip("+").partition("=")[0] in REPEATED


def taken_out(overrides: Sequence[str]) -> tuple[list[str], int, str]:
    """The other overrides, and what ``seeds`` and ``against`` say; 0 and nothing where they are not there.

    Raises:
        UserError: no number of seeds.
    """
    words: dict[str, str] = {}
    others = []
    for line in overrides:
        key, _, value = line.partition("=")
        if key in ("seeds", "against"):
            words[key] = value
        else:
            others.append(line)
    seeds = words.get("seeds")
    if seeds is not None and not (seeds.isdecimal() and int(seeds)):
        raise UserError(f"seeds={seeds}: it must be a whole number above 0")
    return others, int(seeds or 0), words.get("against", "")


def repeated(arguments: Sequence[str], seeds: int, first: int) -> list[str]:
    """The arguments of a sweep over so many seeds.

    Seeds come first, so that a sweep that is stopped has run every setting with those that it came to.

    Args:
        first: the seed where no override sets one.

    Raises:
        UserError: the overrides sweep over seeds already, or there are not so many.
    """
    flags, overrides = arranged(arguments)
    own = [override for override in parsed(overrides) if override.key_or_group == "seed"]
    if any(override.is_sweep_override() for override in own):
        raise UserError(f"seeds={seeds} counts up from one seed, and {own[-1].input_line} gives several: leave one out")
    first = int(str(own[-1].value())) if own else first
    if first + seeds > 1 << 32:
        raise UserError(f"seeds={seeds} from seed={first}: seeds must be below 2^32")
    taken = {override.input_line for override in own}
    return [*flags, f"seed=range({first},{first + seeds})", *(line for line in overrides if line not in taken)]


def check_against(against: str, overrides: Sequence[str]) -> str:
    """Whether there will be something to compare with; returns an override that tells Hydra's callback.

    Args:
        against: the folder of a finished sweep, or overrides that choose one setting of this one.
        overrides: of the sweep.

    Raises:
        UserError: no such folder or setting, or more than one.
    """
    told = shlex.split(shell_override("++hydra.callbacks.ranking.against", against))
    folder = Path(against)
    if folder.is_dir():
        if not any(folder.glob(f"*/{RESULT}")):
            what = "is one run" if (folder / RESULT).exists() else "holds no finished job"
            raise UserError(f"against={against} {what}: give the folder of a sweep, such as one of seeds=5")
        return told[0]
    if "=" not in against:
        raise UserError(f"against={against}: there is no such folder, and it is no override (key=value)")
    choices = {key_of(override): override for override in parsed(list(overrides))}
    chosen = parsed(shlex.split(against))
    for override in chosen:
        line, key = override.input_line, key_of(override)
        if key not in choices:
            raise UserError(f"against={line}: this command sets no '{key}': {nearest(key, choices)}")
        among = choices[key]
        if isinstance(among.value(), Glob):
            continue
        lines = alternatives(among)
        if override.value() not in [each.value() for each in parsed(lines)]:
            raise UserError(f"against={line}: no run has it; there are {', '.join(lines)}")
    swept = {key for key, each in choices.items() if each.is_sweep_override() and each.key_or_group not in REPEATED}
    if more := sorted(swept - {key_of(override) for override in chosen}):
        words = " ".join([against, *(f"{key}=VALUE" for key in more)])
        raise UserError(f"against={against} is more than one setting: choose one, against='{words}'")
    return told[0]
