"""The folder of a run, single or part of a sweep: its lock, log, result and failure."""

import errno
import fcntl
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from gt.data.files import discard, write_bytes
from gt.errors import UserError, reason
from gt.train.launch import rank_outside
from gt.train.paths import anchor
from gt.train.processes import is_child
from gt.train.transcript import transcript

RESULT = "result.json"  # of a finished job
FAILURE = "failure.json"  # of a failed job: the reason
PRUNED = "pruned.json"  # of a pruned trial: the reason
PREPARED = "prepared.json"  # of stage=prepare: the criterion of runs on the data
SWEEP = "sweep.json"  # of a sweep: the arguments with which it resumes
CLAIMS = ".trials"  # of a sweep of trials: byte n + 1 of this file is locked while a process works on trial n
PLAN = "spectrum.json"  # of a map: its axes
LOCK = ".lock"  # held while a process works in the folder


class Pruned(BaseException):
    """A run was pruned, for the given reason. Not an ``Exception``, so that error handling does not catch it."""


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_bytes(path, json.dumps(value, indent=1).encode())


def read_json(path: Path) -> Any:
    """Read a file written by `write_json`.

    Raises:
        UserError: it is incomplete, for example because a copy of its folder was interrupted.
    """
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise UserError(f"{path} is truncated or damaged: copy it again, or remove it") from None


def overrides() -> list[str]:
    """This job's overrides; if it resumes a run, those with which that began, updated by the new ones."""
    hydra = HydraConfig.get()
    lines = [line for line in hydra.overrides.task if not line.startswith("resume=")]
    initial = Path(hydra.runtime.output_dir) / ".hydra" / "overrides.yaml"
    if len(lines) == len(hydra.overrides.task) or not initial.is_file():
        return lines
    lines = [*map(str, OmegaConf.load(initial)), *lines]
    return list({line.partition("=")[0].lstrip("+"): line for line in lines}.values())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder of a run for this process and those it starts; the system releases the lock when it ends.

    Raises:
        UserError: another process works there.
    """
    if is_child() or rank_outside():
        yield
        return
    # a record lock, which a forked process that briefly outlives this one does not inherit
    with open(folder / LOCK, "w") as file:
        if not _try_lock(file):
            raise UserError(f"another process is working in {folder}: wait until it ends, or choose another folder")
        yield


def in_use(folder: Path) -> bool:
    """Whether a process of another command works in the folder of a run."""
    if rank_outside():  # rank 0 of this command checks, and may hold the lock already
        return False
    try:
        with open(folder / LOCK, "r+") as file:
            return not _try_lock(file)
    except OSError:  # there is no lock file, or it is not writable
        return False


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)  # other errors: the file system does not support locks
    return True


def in_sweep(folder: Path) -> bool:
    """Whether a folder belongs to a trial of a sweep or a cell of a map."""
    return any((parent / SWEEP).is_file() for parent in folder.resolve().parents[:2])


def discard_if_empty(folder: Path) -> None:
    """Remove the folder of a run that only holds its configuration and its log."""
    hydra = HydraConfig.get()
    disposable = {str(hydra.output_subdir), LOCK, f"{hydra.job.name}.log"}
    if not (is_child() or rank_outside()) and {path.name for path in folder.iterdir()} <= disposable:
        discard(folder)


def resumes_sweep() -> bool:
    """Whether this job belongs to a resumed sweep, see `gt.cli.sweep.Ranking`."""
    hydra = HydraConfig.get()
    return hydra.mode == RunMode.MULTIRUN and bool((hydra.callbacks.get("ranking") or {}).get("resumes"))


def previous_score() -> float | None:
    """The score of this job if it belongs to a resumed sweep and has already finished; else None."""
    path = Path(HydraConfig.get().runtime.output_dir) / RESULT
    if not resumes_sweep() or not path.exists():
        return None
    result = read_json(path)
    best = result["best_valid"]
    return float(result["scores"][result["criterion"]] if best is None else best)


@contextmanager
def job(cfg: DictConfig) -> Iterator[None]:
    """Context manager of one run: logs its output to its folder, and reports an error in one line.

    An error ends the program if this is a single run; a command that is refused before anything started leaves no
    folder. The failure is recorded in the folder; in a sweep it is ranked, and the other jobs run.
    A job of a resumed sweep resumes from its last checkpoint, if any.
    """
    hydra = HydraConfig.get()
    folder, in_multirun = Path(hydra.runtime.output_dir), hydra.mode == RunMode.MULTIRUN
    if in_multirun:
        (folder / FAILURE).unlink(missing_ok=True)  # a resumed sweep retries the job
    started = False
    log = folder / f"{hydra.job.name}.log"
    with transcript(log):
        try:
            anchor(cfg.data)
            with locked(folder):
                if resumes_sweep() and any((folder / "checkpoints").glob("*.ckpt")):
                    cfg.resume = str(folder)
                if (saved := folder / str(hydra.output_subdir) / "config.yaml").is_file():
                    write_bytes(saved, OmegaConf.to_yaml(cfg).encode())
                started = not (in_multirun or is_child() or in_sweep(folder))
                if started:
                    (folder / FAILURE).unlink(missing_ok=True)
                yield
        except Pruned as pruned:
            if not is_child():
                write_json(folder / PRUNED, {"overrides": overrides(), "reason": str(pruned)})
                print(f"pruned: {pruned}", flush=True)
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and (not in_multirun or error.code != 1):
                raise  # above 128: this process was asked to stop
            message = f"a process of the run was lost, see {log}"  # details have been printed already
            line = message if isinstance(error, SystemExit) else reason(error, log)
            print(f"error: {line}", file=sys.stderr)
            if not in_multirun:
                if isinstance(error, UserError | OSError) and not (cfg.get("stage") == "fit" and in_sweep(folder)):
                    discard_if_empty(folder)
                if started and folder.is_dir():
                    with suppress(OSError):  # the error may be that the folder is not writable
                        write_json(folder / FAILURE, {"overrides": overrides(), "reason": line})
                raise SystemExit(1) from None
            write_json(folder / FAILURE, {"overrides": overrides(), "reason": line})
