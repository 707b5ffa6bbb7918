"""The runs below a folder: their settings, states and scores."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from gt.errors import UserError, nearest
from gt.schema import format_list
from gt.train.job import FAILURE, PRUNED, RESULT, in_use, read_json
from gt.train.resume import format_value, settings

CONFIG = Path(".hydra") / "config.yaml"
MAX_LISTED_VALUES = 8  # in a message
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times as fast


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        folder: the run folder.
        state: ``finished``, ``running``, ``failed``, ``pruned`` or ``stopped``; the ``stage`` of a run that does not
            train.
        settings: every dotted key of the configuration, and the option of each group, such as ``data``.
        result: the content of its result file; empty before it ends.
        begun: start time.
    """

    folder: Path
    state: str
    settings: Mapping[str, str]
    result: Mapping[str, Any]
    begun: datetime

    @property
    def score(self) -> float | None:
        """The score of the split that was scored last, by the criterion."""
        return self.result.get("scores", {}).get(self.result.get("criterion"))


def read(folder: Path) -> Run:
    """Read a run from its folder.

    Raises:
        UserError: its configuration or its result is damaged.
    """
    config = folder / CONFIG
    try:
        values = {key: format_value(value) for key, value in settings(yaml.load(config.read_text(), Loader) or {})}
    except yaml.YAMLError:
        raise UserError(f"{config} is truncated or damaged: copy it again, or remove its run") from None
    hydra = folder / ".hydra" / "hydra.yaml"
    if hydra.is_file():
        saved = yaml.load(hydra.read_text(), Loader) or {}  # empty if the run was killed as it started
        choices = saved.get("hydra", {}).get("runtime", {}).get("choices", {})
        values |= {group: str(option) for group, option in choices.items() if not group.startswith("hydra/")}
    result = read_json(folder / RESULT) if (folder / RESULT).is_file() else {}
    state = "stopped" if values.get("stage", "fit") == "fit" else values["stage"]
    if result:
        state = "finished"
    elif in_use(folder):
        state = "running"
    elif (folder / PRUNED).is_file():
        state = "pruned"
    elif (folder / FAILURE).is_file():
        state = "failed"
    values |= {"state": state}
    return Run(folder, state, values, result, datetime.fromtimestamp(config.stat().st_mtime))


def runs_below(folder: Path) -> Iterator[Run]:
    """All runs below a folder, including those of sweeps, the latest first.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    configs = sorted(folder.rglob(str(CONFIG)), key=lambda path: path.stat().st_mtime, reverse=True)
    return (read(path.parent.parent) for path in configs)


def matching(runs: Sequence[Run], filters: Sequence[str]) -> list[Run]:
    """The runs that match every ``KEY=PATTERN``, with shell-style wildcards.

    Raises:
        UserError: no run has such a key.
    """
    for condition in filters:
        key, is_filter, pattern = condition.partition("=")
        if not is_filter:
            raise UserError(f"'{condition}' is neither a folder nor KEY=PATTERN, such as data=text or optim.lr=1e-3")
        check_key(runs, key)
        runs = [run for run in runs if fits(run.settings.get(key, ""), pattern)]
    return list(runs)


def available_values(runs: Sequence[Run], filters: Sequence[str]) -> str:
    """The values of the key of the first filter that leaves no run, for a message; empty if there is none."""
    for number, condition in enumerate(filters):
        key, before = condition.partition("=")[0], matching(runs, filters[:number])
        if before and not matching(before, [condition]):
            values = sorted({run.settings[key] for run in before if key in run.settings})
            return f": {key} is {format_list(values, MAX_LISTED_VALUES)}"
    return ""


def check_key(runs: Sequence[Run], key: str) -> None:
    """Check that at least one run has a setting.

    Raises:
        UserError: none has.
    """
    keys = {name for run in runs for name in run.settings}
    if runs and key not in keys:
        raise UserError(f"no run has a setting '{key}': {nearest(key, keys)}")


def fits(value: str, pattern: str) -> bool:
    """Whether a value matches a pattern; numbers are compared by value."""
    try:
        return float(value) == float(pattern)
    except ValueError:
        return fnmatch.fnmatchcase(value, pattern)
