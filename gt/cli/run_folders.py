"""Folders of runs: whether one may begin there, and which one goes on."""

import glob
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from gt.errors import UserError, shell_override
from gt.train.job import RESULT, SWEEP, in_use, read_json

RESUMED = "resumed"  # folder beside a run's own configuration, for that under which it went on
OF_FOLDER = ("hydra.sweep.dir=", "++hydra.callbacks.ranking.resumes=")  # what is said anew when a sweep goes on
INTERPOLATION = re.compile(r"\$\{[^{}]*\}")


def configuration_of(run: Path) -> Path:
    """The folder of the ``config.yaml`` under which a run went on last, or began."""
    first = run / ".hydra"
    return first / RESUMED if (first / RESUMED / "config.yaml").is_file() else first


def runs_in(path: Path) -> list[Path]:
    """The runs in a folder of several, as a sweep or seeds leave it, in order; any other path alone."""
    if not path.is_dir() or (path / "checkpoints").is_dir():
        return [path]
    runs = [folder.parent for folder in path.glob("*/checkpoints") if any(folder.glob("*.ckpt"))]
    return sorted(runs, key=lambda run: (len(run.name), run.name)) or [path]


def check_new(folder: Path) -> None:
    """Whether a run may begin in a folder.

    Raises:
        UserError: it holds one already, with a checkpoint or a result.
    """
    if any((folder / "checkpoints").glob("*.ckpt")) or (folder / RESULT).exists():
        raise UserError(
            f"{folder} holds a run already: go on with that by resume={folder}, or choose another hydra.run.dir"
        )


def unquoted(override: str) -> str:
    """``resume="FOLDER"``, as Hydra's grammar has a path that holds a space, without its quotes; any other as it is."""
    if re.fullmatch(r"""resume=(["']).*\1""", override):
        with suppress(HydraException):  # of a folder whose own name has a quote
            folder = OverridesParser.create().parse_override(override).value()
            return f"resume={folder}" if isinstance(folder, str) else override
    return override


def sweep_again(overrides: Sequence[str]) -> list[str] | None:
    """The arguments by which a sweep goes on: finished jobs are kept, the others run. None where none is to.

    Args:
        overrides: of the command line, with ``resume=FOLDER``, the folder of a sweep.

    Raises:
        UserError: another one would change what its jobs are.
    """
    folder = Path(["", *(o.removeprefix("resume=") for o in overrides if o.startswith("resume="))][-1])
    if folder == Path() or not (folder / SWEEP).is_file():
        return None
    more = [word for word in overrides if not word.startswith("resume=")]
    for word in more:
        if not word.startswith(("sweep.trials=", "sweep.workers=", "hydra.launcher.", "hydra/launcher=")):
            raise UserError(f"{word}: a sweep goes on under its own settings; start a new one, or leave this out")
    again = {word.partition("=")[0] for word in more}
    kept = read_json(folder / SWEEP)["arguments"]
    kept = [word for word in kept if word.partition("=")[0] not in again]
    place = shlex.split(shell_override("hydra.sweep.dir", str(folder)))
    return [*kept, *more, *place, f"{OF_FOLDER[1]}true"]


def begun_or_resumed(arguments: Sequence[str]) -> list[str]:
    """The arguments of a sweep's command, by which it begins, or goes on where it has begun by them.

    Raises:
        UserError: they name no folder for it, or one that holds a sweep by other arguments.
    """
    given = [word.removeprefix(OF_FOLDER[0]) for word in arguments if word.startswith(OF_FOLDER[0])]
    if not given or INTERPOLATION.search(given[-1]):
        raise UserError("resume=auto tells a sweep by its folder: add hydra.sweep.dir=FOLDER")
    begun = Path(given[-1]) / SWEEP
    own = [word for word in arguments if not word.startswith(OF_FOLDER)]
    if begun.is_file() and sorted(read_json(begun)["arguments"]) != sorted(own):
        raise UserError(f"{given[-1]} holds a sweep of other settings: go on with it by resume={given[-1]}")
    return [*arguments, f"{OF_FOLDER[1]}true"]


def unfinished(run_dir: str, command: Sequence[str]) -> Path | None:
    """Of the runs that stopped before their end, with a checkpoint to go on from, that which trained last.

    One in which a process is at work is none of them. A folder without interpolations is the run's own: there it goes
    on even if it is finished, so that a job that is started once too often has nothing left to do.

    Args:
        run_dir: ``hydra.run.dir``; its interpolations stand for anything.
        command: the overrides by which the run began, in any order; without any it is that of any command.
    """
    parts, ages = INTERPOLATION.split(run_dir), {}
    for folder in map(Path, glob.glob("*".join(map(glob.escape, parts)))):
        begun_by = folder / ".hydra" / "overrides.yaml"
        saved = [path.stat().st_mtime for path in (folder / "checkpoints").glob("*.ckpt")]
        over = len(parts) > 1 and (folder / RESULT).exists()
        if not saved or over or not begun_by.is_file() or in_use(folder):
            continue
        if not command or sorted(command) == sorted(map(str, OmegaConf.load(begun_by))):
            ages[folder] = max(saved)
    return max(ages, key=lambda folder: ages[folder], default=None)
