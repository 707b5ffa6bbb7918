"""Runs stopped by a signal at random moments and gone on with: ``python -m tests.random_signals FOLDER COUNT SEED``.

Several signals take turns, or are all that a fourth word names: ``SIGKILL``. A line for each run: when it was stopped
and where, how long it took to end, and ``same`` where weights, averages, the optimiser's state, the choice of the best
and the scores are those of a run that was never stopped, bit by bit. Each run is a process of its own, forked
from one that has imported everything. Every other one keeps its run folder in another filesystem where there is one.
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

# an average of the weights, masks that change and early stopping go on, too; a state is saved every few batches
OPTIONS = ("trainer.log_every_n_steps=5", "trainer.max_epochs=4", "callbacks=[default,ema]", "callbacks.last.keep=3",
           "callbacks.last.minutes=0.001", "mask.schedule=[1,2,null]", "model.block.dropout=0.1")  # fmt: skip
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM, signal.SIGKILL)
MEMORY = Path("/dev/shm")
PLACES = (  # of a stopped run, by the functions it was in: the first that fits
    ("report", {"write_report", "summary"}),
    ("test", {"_test_impl"}),
    ("validation", {"on_advance_end", "on_validation_start"}),
    ("training", {"_fit_impl"}),
)


def begin(folder: Path, data: list[str], *options: str, resume: bool = False) -> int:
    """Start a run in a process, the first of a group of its own; returns its number."""
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
        with one_line():  # as the program: what comes before the run is its own
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


def ended(pid: int, seconds: float = 60.0) -> int | None:
    """The exit code of a process, or minus the signal that ended it; None where it had to be killed after a time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def kept(folder: Path, name: str) -> dict[str, Any]:
    """All that a checkpoint of a run keeps but its settings and counters: weights, averages, scores, the optimiser."""
    saved = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    facts = settings({key: value for key, value in saved.items() if key not in ("hyper_parameters", "loops")})
    return {
        key.replace(str(folder), ""): value.replace(str(folder), "") if isinstance(value, str) else value
        for key, value in facts
        if not key.endswith(".current_score")  # which Lightning writes, and neither reads nor uses
    }


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


def differences(folder: Path, whole: Path) -> list[str]:
    """What a run has come to that is not, bit by bit, what another has."""
    found = []
    for name in ("last", "best"):
        one, other = kept(folder, name), kept(whole, name)
        found += [f"{name} {key}" for key in one.keys() | other.keys() if not equal(one.get(key), other.get(key))]
    results = [json.loads((each / "result.json").read_text()) for each in (folder, whole)]
    return found + [key for key in ("scores", "best_valid") if results[0][key] != results[1][key]]


def place_of(folder: Path) -> str:
    """Where a run was that was killed, by what it left."""
    if list((folder / "checkpoints").glob(".*.part")):
        return "amid a checkpoint"
    if not (last := folder / "checkpoints" / "last.ckpt").exists():
        return "before the first checkpoint"
    saved = torch.load(last, weights_only=True)
    progress = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    return f"after step {saved['global_step']}, {'between epochs' if progress['is_last_batch'] else 'amid an epoch'}"


def stopped_and_gone_on_with(
    folder: Path, data: list[str], options: list[str], signum: int, all_of_it: bool, after: float
) -> str | None:
    """What came of a run that got a signal; None where it had ended, or not begun."""
    pid = begin(folder, data, *options)
    time.sleep(after)
    if signum == signal.SIGKILL and all_of_it:  # amid a checkpoint, where one is still to come
        until = time.monotonic() + 0.5
        while time.monotonic() < until and not list((folder / "checkpoints").glob(".*.part")):
            pass
    with suppress(ProcessLookupError):
        (os.killpg if all_of_it else os.kill)(pid, signum)
    sent = time.monotonic()
    code = ended(pid)
    took = time.monotonic() - sent
    said = (folder / "said.txt").read_text()
    if code == 0 or (code == -signum != -signal.SIGKILL and not said):  # it had ended, or only read its configuration
        return None
    place = folder / "stopped_in.txt"
    where = place.read_text() if place.exists() else place_of(folder)
    right = -signum if signum == signal.SIGKILL else 128 + signum
    if code != right:
        return f"{where}: exit code {code} instead of {right}"
    saved = any((folder / "checkpoints").glob("*.ckpt"))
    if signum != signal.SIGKILL and saved != (f"python train.py resume={folder}" in said):
        return f"{where}: checkpoints {saved}, said {said[-300:]!r}"
    code = ended(begin(folder, data, *options, resume=saved))
    if code != 0:
        return f"{where}: going on ended with exit code {code}: {(folder / 'said.txt').read_text()[-600:]!r}"
    return f"{where}: ended after {took:.2f} s; "


def main(folder: Path, count: int, seed: int, signals: Sequence[signal.Signals] = SIGNALS) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    data = [line for line in write_graphs(folder, 300, 300, 120) if not line.startswith("data.source.root")]
    begun = time.monotonic()
    if ended(begin(folder / "whole", [*data, f"data.source.root={folder / 'whole'}"])) != 0:
        print((folder / "whole" / "said.txt").read_text())
        return False
    seconds = time.monotonic() - begun
    print(f"a whole run takes {seconds:.1f} s", flush=True)
    fine = done = 0
    elsewhere = MEMORY / f"gt-signals-{os.getpid()}" if os.access(MEMORY, os.W_OK) else folder
    try:
        while done < count:
            signum = signals[done % len(signals)]
            run = (folder, elsewhere)[done % 2] / f"run{done}"
            options = [f"data.workers={done % 3 == 0:d}"]
            after, group = draw.uniform(0, seconds), draw.random() < 0.5
            line = stopped_and_gone_on_with(run, [*data, f"data.source.root={run}"], options, signum, group, after)
            if line is not None:
                wrong = differences(run, folder / "whole") if line.endswith("; ") else ["not compared"]
                done, fine = done + 1, fine + (not wrong)
                when = f"{signal.Signals(signum).name} at {after:.2f} s {options[0]}"
                print(f"{done} {when} {line}{', '.join(wrong) or 'same'}", flush=True)
            shutil.rmtree(run)
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)
    print(f"{fine} of {count} the same")
    return fine == count


if __name__ == "__main__":
    named = [signal.Signals[name] for name in sys.argv[4:]]
    sys.exit(not main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), named or SIGNALS))
