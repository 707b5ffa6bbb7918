"""Run folders: whether a run may start in one, and which run to resume."""

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

RESUMED = "resumed"  # subfolder of .hydra for the configuration of the last resumption
FOLDER_OVERRIDES = (
    "hydra.sweep.dir=",
    "++hydra.callbacks.ranking.resumes=",
)  # overrides that a resumed sweep sets anew
INTERPOLATION = re.compile(r"\$\{[^{}]*\}")


def configuration_of(run: Path) -> Path:
    """The folder of the ``config.yaml`` under which a run was last resumed, or else started."""
    first = run / ".hydra"
    return first / RESUMED if (first / RESUMED / "config.yaml").is_file() else first


def runs_in(path: Path) -> list[Path]:
    """The runs in the folder of a sweep, in order; any other path by itself."""
    if not path.is_dir() or (path / "checkpoints").is_dir():
        return [path]
    runs = [folder.parent for folder in path.glob("*/checkpoints") if any(folder.glob("*.ckpt"))]
    return sorted(runs, key=lambda run: (len(run.name), run.name)) or [path]


def check_new(folder: Path) -> None:
    """Check that a run may start in a folder.

    Raises:
        UserError: it already holds a run with a checkpoint or a result.
    """
    if any((folder / "checkpoints").glob("*.ckpt")) or (folder / RESULT).exists():
        raise UserError(
            f"{folder} already holds a run: continue it with resume={folder}, or choose another hydra.run.dir"
        )


def unquoted(override: str) -> str:
    """Strip the quotes that Hydra's grammar needs for a path with a space from ``resume="FOLDER"``."""
    if re.fullmatch(r"""resume=(["']).*\1""", override):
        with suppress(HydraException):  # the folder name itself has a quote
            folder = OverridesParser.create().parse_override(override).value()
            return f"resume={folder}" if isinstance(folder, str) else override
    return override


def resume_sweep(overrides: Sequence[str]) -> list[str] | None:
    """The arguments that resume a sweep, skipping its finished jobs; None if the command resumes no sweep.

    Args:
        overrides: those of the command line, among them ``resume=FOLDER`` with the folder of a sweep.

    Raises:
        UserError: another override would change the jobs.
    """
    folder = Path(["", *(o.removeprefix("resume=") for o in overrides if o.startswith("resume="))][-1])
    if folder == Path() or not (folder / SWEEP).is_file():
        return None
    changes = [word for word in overrides if not word.startswith("resume=")]
    for word in changes:
        if not word.startswith(("sweep.trials=", "sweep.workers=", "hydra.launcher.", "hydra/launcher=")):
            raise UserError(f"{word}: a resumed sweep keeps its settings; leave this out, or start a new sweep")
    changed_keys = {word.partition("=")[0] for word in changes}
    saved = read_json(folder / SWEEP)["arguments"]
    saved = [word for word in saved if word.partition("=")[0] not in changed_keys]
    folder_override = shlex.split(shell_override("hydra.sweep.dir", str(folder)))
    return [*saved, *changes, *folder_override, f"{FOLDER_OVERRIDES[1]}true"]


def start_or_resume_sweep(arguments: Sequence[str]) -> list[str]:
    """The arguments that start a sweep, or resume it if its folder holds a sweep of the same arguments.

    Raises:
        UserError: they set no folder for it, or the folder holds a sweep of other arguments.
    """
    folders = [word.removeprefix(FOLDER_OVERRIDES[0]) for word in arguments if word.startswith(FOLDER_OVERRIDES[0])]
    if not folders or INTERPOLATION.search(folders[-1]):
        raise UserError("resume=auto identifies a sweep by its folder: add hydra.sweep.dir=FOLDER")
    record = Path(folders[-1]) / SWEEP
    settings = [word for word in arguments if not word.startswith(FOLDER_OVERRIDES)]
    if record.is_file() and sorted(read_json(record)["arguments"]) != sorted(settings):
        raise UserError(f"{folders[-1]} holds a sweep of other settings: continue it with resume={folders[-1]}")
    return [*arguments, f"{FOLDER_OVERRIDES[1]}true"]


def unfinished_run(run_dir: str, command: Sequence[str]) -> Path | None:
    """The unfinished run, with a checkpoint and no process at work in it, that trained last.

    If ``run_dir`` has no interpolations, it is the run's own folder, and a finished run counts too: a job that is
    started once too often then has nothing left to do.

    Args:
        run_dir: ``hydra.run.dir``; its interpolations match anything.
        command: the overrides that the run was started with, in any order; empty to accept any.
    """
    parts, ages = INTERPOLATION.split(run_dir), {}
    for folder in map(Path, glob.glob("*".join(map(glob.escape, parts)))):
        begun_by = folder / ".hydra" / "overrides.yaml"
        saved = [path.stat().st_mtime for path in (folder / "checkpoints").glob("*.ckpt")]
        finished = len(parts) > 1 and (folder / RESULT).exists()
        if not saved or finished or not begun_by.is_file() or in_use(folder):
            continue
        if not command or sorted(command) == sorted(map(str, OmegaConf.load(begun_by))):
            ages[folder] = max(saved)
    return max(ages, key=lambda folder: ages[folder], default=None)
