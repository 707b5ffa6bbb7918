"""Stop runs by signals at random moments and resume them: ``python -m tests.random_signals FOLDER COUNT SEED``.

Several signals alternate, unless a fourth argument names one, such as ``SIGKILL``. Prints a line for each run: when and
where it was stopped, how long it took to exit, and ``same`` if weights, averages, optimiser state, the selection of the
best checkpoint and the scores are bitwise equal to those of an uninterrupted run. Each run is a process of its own,
forked from one that has imported everything. Every second one keeps its run folder in another filesystem if there is
one.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from gt.errors import one_line
from gt.train.resume import settings
from tests.small_runs import train, write_graphs

# weight averages, scheduled masks and early stopping are resumed, too; the state is saved every few batches
OPTIONS = ("trainer.log_every_n_steps=5", "trainer.max_epochs=4", "callbacks=[default,ema]", "callbacks.last.keep=3",
           "callbacks.last.minutes=0.001", "mask.schedule=[1,2,null]", "model.block.dropout=0.1")  # fmt: skip
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM, signal.SIGKILL)
MEMORY = Path("/dev/shm")
PLACES = (  # where a run was stopped, by the functions on its stack: the first match
    ("report", {"write_report", "summary"}),
    ("test", {"_test_impl"}),
    ("validation", {"on_advance_end", "on_validation_start"}),
    ("training", {"_fit_impl"}),
)


def start(folder: Path, data: list[str], *options: str, resume: bool = False) -> int:
    """Start a run in a process that leads a process group of its own; return its id."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "said.txt").touch()
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    for stream in (1, 2):
        os.dup2(os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    code = 1
    try:
        with one_line():  # as in the program, which also covers what precedes the run
            train(folder, *data, *OPTIONS, *options, resume=resume)
        code = 0
    except SystemExit as stop:
        code = stop.code
        if stop.__context__ is not None:
            names = {frame.name for frame in traceback.extract_tb(stop.__context__.__traceback__)}
            place = next((place for place, functions in PLACES if names & functions), "before training")
            (folder / "stopped_in.txt").write_text(place)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait_for(pid: int, seconds: float = 60.0) -> int | None:
    """The exit code of a process, or minus the signal that ended it; None if it had to be killed after a timeout."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        exited, status = os.waitpid(pid, os.WNOHANG)
        if exited:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def state_of(folder: Path, name: str) -> dict[str, Any]:
    """What a checkpoint holds except for settings and counters: weights, averages, scores, optimiser state."""
    saved = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    entries = settings({key: value for key, value in saved.items() if key not in ("hyper_parameters", "loops")})
    return {
        key.replace(str(folder), ""): value.replace(str(folder), "") if isinstance(value, str) else value
        for key, value in entries
        if not key.endswith(".current_score")  # which Lightning writes but never reads
    }


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def differences(folder: Path, uninterrupted: Path) -> list[str]:
    """The entries of a run's checkpoints and result that are not bitwise equal to those of the uninterrupted run."""
    found = []
    for name in ("last", "best"):
        ours, expected = state_of(folder, name), state_of(uninterrupted, name)
        found += [
            f"{name} {key}" for key in ours.keys() | expected.keys() if not equal(ours.get(key), expected.get(key))
        ]
    results = [json.loads((each / "result.json").read_text()) for each in (folder, uninterrupted)]
    return found + [key for key in ("scores", "best_valid") if results[0][key] != results[1][key]]


def killed_where(folder: Path) -> str:
    """Where a run was killed, by the files it left."""
    if list((folder / "checkpoints").glob(".*.part")):
        return "amid a checkpoint"
    if not (last := folder / "checkpoints" / "last.ckpt").exists():
        return "before the first checkpoint"
    saved = torch.load(last, weights_only=True)
    progress = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    return f"after step {saved['global_step']}, {'between epochs' if progress['is_last_batch'] else 'amid an epoch'}"


def stop_and_resume(
    folder: Path, data: list[str], options: list[str], signum: int, whole_group: bool, after: float
) -> str | None:
    """Stop a run by a signal and resume it; return what happened, None if it had finished or not started."""
    pid = start(folder, data, *options)
    time.sleep(after)
    if signum == signal.SIGKILL and whole_group:  # in the middle of writing a checkpoint, if one is still to come
        until = time.monotonic() + 0.5
        while time.monotonic() < until and not list((folder / "checkpoints").glob(".*.part")):
            pass
    with suppress(ProcessLookupError):
        (os.killpg if whole_group else os.kill)(pid, signum)
    sent = time.monotonic()
    code = wait_for(pid)
    took = time.monotonic() - sent
    output = (folder / "said.txt").read_text()
    if code == 0 or (code == -signum != -signal.SIGKILL and not output):  # finished, or still reading its configuration
        return None
    place = folder / "stopped_in.txt"
    where = place.read_text() if place.exists() else killed_where(folder)
    expected = -signum if signum == signal.SIGKILL else 128 + signum
    if code != expected:
        return f"{where}: exit code {code} instead of {expected}"
    saved = any((folder / "checkpoints").glob("*.ckpt"))
    if signum != signal.SIGKILL and saved != (f"python train.py resume={folder}" in output):
        return f"{where}: checkpoints {saved}, said {output[-300:]!r}"
    code = wait_for(start(folder, data, *options, resume=saved))
    if code != 0:
        return f"{where}: going on ended with exit code {code}: {(folder / 'said.txt').read_text()[-600:]!r}"
    return f"{where}: ended after {took:.2f} s; "


def main(folder: Path, count: int, seed: int, signals: Sequence[signal.Signals] = SIGNALS) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    data = [line for line in write_graphs(folder, 300, 300, 120) if not line.startswith("data.source.root")]
    start_time = time.monotonic()
    if wait_for(start(folder / "whole", [*data, f"data.source.root={folder / 'whole'}"])) != 0:
        print((folder / "whole" / "said.txt").read_text())
        return False
    seconds = time.monotonic() - start_time
    print(f"a whole run takes {seconds:.1f} s", flush=True)
    passed = done = 0
    other_filesystem = MEMORY / f"gt-signals-{os.getpid()}" if os.access(MEMORY, os.W_OK) else folder
    try:
        while done < count:
            signum = signals[done % len(signals)]
            run = (folder, other_filesystem)[done % 2] / f"run{done}"
            options = [f"data.workers={done % 3 == 0:d}"]
            after, group = rng.uniform(0, seconds), rng.random() < 0.5
            line = stop_and_resume(run, [*data, f"data.source.root={run}"], options, signum, group, after)
            if line is not None:
                failures = differences(run, folder / "whole") if line.endswith("; ") else ["not compared"]
                done, passed = done + 1, passed + (not failures)
                moment = f"{signal.Signals(signum).name} at {after:.2f} s {options[0]}"
                print(f"{done} {moment} {line}{', '.join(failures) or 'same'}", flush=True)
            shutil.rmtree(run)
    finally:
        shutil.rmtree(other_filesystem, ignore_errors=True)
    print(f"{passed} of {count} the same")
    return passed == count


if __name__ == "__main__":
    named = [signal.Signals[name] for name in sys.argv[4:]]
    sys.exit(not main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), named or SIGNALS))
