"""The folder of one run, alone or of a sweep: what it says, what it comes to, and what goes wrong."""

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

RESULT = "result.json"  # of a job that finished
FAILURE = "failure.json"  # of one that did not: what was wrong
PRUNED = "pruned.json"  # of a trial that was given up: why
PREPARED = "prepared.json"  # of stage=prepare: what runs on the data are judged by
SWEEP = "sweep.json"  # of a sweep: the arguments by which it goes on
CLAIMS = ".trials"  # of a sweep of trials: of this file the byte n + 1 is locked while a process is at work on trial n
PLAN = "spectrum.json"  # of a map: what it goes over
LOCK = ".lock"  # held while a process is at work there


class Pruned(BaseException):
    """A run is given up, which says why. No ``Exception``: nothing is wrong that might be mended."""


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_bytes(path, json.dumps(value, indent=1).encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        UserError: a part of it is missing, as where a copy of a folder was cut off.
    """
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise UserError(f"{path} is cut off or damaged: copy it again, or remove it") from None


def overrides() -> list[str]:
    """The overrides by which this job's run began and, where it goes on, those since: of each key the last."""
    hydra = HydraConfig.get()
    lines = [line for line in hydra.overrides.task if not line.startswith("resume=")]
    begun_by = Path(hydra.runtime.output_dir) / ".hydra" / "overrides.yaml"
    if len(lines) == len(hydra.overrides.task) or not begun_by.is_file():
        return lines
    lines = [*map(str, OmegaConf.load(begun_by)), *lines]
    return list({line.partition("=")[0].lstrip("+"): line for line in lines}.values())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep the folder of a run to this process and those that it starts; the system lets go when it ends, however.

    Raises:
        UserError: another process is at work there.
    """
    if is_child() or rank_outside():
        yield
        return
    # a record lock, which a forked process that outlives this one for a moment does not hold
    with open(folder / LOCK, "w") as file:
        if not _lock(file):
            raise UserError(f"another process is at work in {folder}: wait until it ends, or choose another folder")
        yield


def in_use(folder: Path) -> bool:
    """Whether a process of another command is at work in the folder of a run."""
    if rank_outside():  # the first process of this command may be there already, and has asked
        return False
    try:
        with open(folder / LOCK, "r+") as file:
            return not _lock(file)
    except OSError:  # there is none, or this user may not write there
        return False


def _lock(file: TextIO) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)  # not every file system can lock
    return True


def in_sweep(folder: Path) -> bool:
    """Whether a folder is that of one of a sweep's trials, or of a cell of a map."""
    return any((above / SWEEP).is_file() for above in folder.resolve().parents[:2])


def forget(folder: Path) -> None:
    """Remove the folder of a run that holds nothing but its configuration and what it said."""
    hydra = HydraConfig.get()
    kept = {str(hydra.output_subdir), LOCK, f"{hydra.job.name}.log"}
    if not (is_child() or rank_outside()) and {path.name for path in folder.iterdir()} <= kept:
        discard(folder)


def resumes_sweep() -> bool:
    """Whether this job is one of a sweep that goes on, see `gt.cli.sweep.Ranking`."""
    hydra = HydraConfig.get()
    return hydra.mode == RunMode.MULTIRUN and bool((hydra.callbacks.get("ranking") or {}).get("resumes"))


def kept_score() -> float | None:
    """What this job of a sweep that goes on came to before; None where it has yet to finish."""
    path = Path(HydraConfig.get().runtime.output_dir) / RESULT
    if not resumes_sweep() or not path.exists():
        return None
    result = read_json(path)
    best = result["best_valid"]
    return float(result["scores"][result["criterion"]] if best is None else best)


@contextmanager
def job(cfg: DictConfig) -> Iterator[None]:
    """Around one run: what it says is kept in its folder; what goes wrong is one line there and on the terminal.

    That ends the program where the run stands alone, and a command that is refused before anything began leaves no
    folder. The failure is kept beside what there is; of a sweep it is ranked, and the others run.
    A job of a sweep that goes on takes up its last checkpoint, where it has one.
    """
    hydra = HydraConfig.get()
    folder, of_sweep = Path(hydra.runtime.output_dir), hydra.mode == RunMode.MULTIRUN
    if of_sweep:
        (folder / FAILURE).unlink(missing_ok=True)  # of a sweep that goes on: the job is tried again
    began = False
    log = folder / f"{hydra.job.name}.log"
    with transcript(log):
        try:
            anchor(cfg.data)
            with locked(folder):
                if resumes_sweep() and any((folder / "checkpoints").glob("*.ckpt")):
                    cfg.resume = str(folder)
                if (kept := folder / str(hydra.output_subdir) / "config.yaml").is_file():
                    write_bytes(kept, OmegaConf.to_yaml(cfg).encode())
                began = not (of_sweep or is_child() or in_sweep(folder))
                if began:
                    (folder / FAILURE).unlink(missing_ok=True)
                yield
        except Pruned as end:
            if not is_child():
                write_json(folder / PRUNED, {"overrides": overrides(), "reason": str(end)})
                print(f"given up: {end}", flush=True)
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and (not of_sweep or error.code != 1):
                raise  # above 128: this process was asked to stop
            lost = f"a process of the run is gone, see {log}"  # which has been said in full
            line = lost if isinstance(error, SystemExit) else reason(error, log)
            print(f"error: {line}", file=sys.stderr)
            if not of_sweep:
                if isinstance(error, UserError | OSError) and not (cfg.get("stage") == "fit" and in_sweep(folder)):
                    forget(folder)
                if began and folder.is_dir():
                    with suppress(OSError):  # what is wrong may be that nothing can be written there
                        write_json(folder / FAILURE, {"overrides": overrides(), "reason": line})
                raise SystemExit(1) from None
            write_json(folder / FAILURE, {"overrides": overrides(), "reason": line})
