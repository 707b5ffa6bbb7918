"""The runs below a folder: what each was, how it stands and what it scored."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from gt.errors import UserError, nearest
from gt.schema import several
from gt.train.job import FAILURE, PRUNED, RESULT, in_use, read_json
from gt.train.resume import settings, shown

CONFIG = Path(".hydra") / "config.yaml"
SHOWN = 8  # values in a line
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the former is ten times as fast


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        folder: of the run.
        state: ``finished``, ``running``, ``failed``, ``pruned`` or ``stopped``; of one that was not to train its
            ``stage``.
        about: by name: the option of each group of the configuration, such as ``data``, and every dotted key of it.
        result: what it wrote at its end, nothing before.
        begun: when.
    """

    folder: Path
    state: str
    about: Mapping[str, str]
    result: Mapping[str, Any]
    begun: datetime

    @property
    def score(self) -> float | None:
        """Of the split that was scored last, by the metric that decides."""
        return self.result.get("scores", {}).get(self.result.get("criterion"))


def read(folder: Path) -> Run:
    """A run by its folder.

    Raises:
        UserError: its configuration or its result is not whole.
    """
    config = folder / CONFIG
    try:
        about = {key: shown(value) for key, value in settings(yaml.load(config.read_text(), Loader) or {})}
    except yaml.YAMLError:
        raise UserError(f"{config} is cut off or damaged: copy it again, or remove its run") from None
    hydra = folder / ".hydra" / "hydra.yaml"
    if hydra.is_file():
        kept = yaml.load(hydra.read_text(), Loader) or {}  # nothing where a run was killed as it began
        choices = kept.get("hydra", {}).get("runtime", {}).get("choices", {})
        about |= {group: str(option) for group, option in choices.items() if not group.startswith("hydra/")}
    result = read_json(folder / RESULT) if (folder / RESULT).is_file() else {}
    state = "stopped" if about.get("stage", "fit") == "fit" else about["stage"]
    if result:
        state = "finished"
    elif in_use(folder):
        state = "running"
    elif (folder / PRUNED).is_file():
        state = "pruned"
    elif (folder / FAILURE).is_file():
        state = "failed"
    about |= {"state": state}
    return Run(folder, state, about, result, datetime.fromtimestamp(config.stat().st_mtime))


def runs_below(folder: Path) -> Iterator[Run]:
    """All runs below a folder, those of sweeps too, the last first.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    configs = sorted(folder.rglob(str(CONFIG)), key=lambda path: path.stat().st_mtime, reverse=True)
    return (read(path.parent.parent) for path in configs)


def chosen(runs: Sequence[Run], filters: Sequence[str]) -> list[Run]:
    """The runs that fit all of ``KEY=PATTERN``, patterns as of file names.

    Raises:
        UserError: no run has such a key.
    """
    for word in filters:
        key, is_filter, pattern = word.partition("=")
        if not is_filter:
            raise UserError(f"'{word}' is neither a folder nor KEY=PATTERN, such as data=text or optim.lr=1e-3")
        check_key(runs, key)
        runs = [run for run in runs if fits(run.about.get(key, ""), pattern)]
    return list(runs)


def instead(runs: Sequence[Run], filters: Sequence[str]) -> str:
    """Where no run fits all filters, the values that there are of the first that none of those before fits."""
    for number, word in enumerate(filters):
        key, before = word.partition("=")[0], chosen(runs, filters[:number])
        if before and not chosen(before, [word]):
            values = sorted({run.about[key] for run in before if key in run.about})
            return f": {key} is {several(values, SHOWN)}"
    return ""


def check_key(runs: Sequence[Run], key: str) -> None:
    """Whether any of some runs has a setting.

    Raises:
        UserError: none has.
    """
    known = {name for run in runs for name in run.about}
    if runs and key not in known:
        raise UserError(f"no run has a setting '{key}': {nearest(key, known)}")


def fits(value: str, pattern: str) -> bool:
    """Whether a value is what a pattern says, numbers by what they are worth."""
    try:
        return float(value) == float(pattern)
    except ValueError:
        return fnmatch.fnmatchcase(value, pattern)
