"""Run the trials of a sweep, each as one or more runs of ``train.py`` in separate processes.

The progress of a trial is read from the folders of its runs, so a stopped sweep can be resumed at any point. Several
commands may work on one sweep: each claims trials that no other is working on.
"""

import fcntl
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gt.cli.arguments import split_flags
from gt.cli.config_files import CONFIGS, groups
from gt.cli.settings import ranking_score
from gt.cli.spectrum.pool import POLL_INTERVAL, TRAIN, Run, start, stop, termination
from gt.cli.trials.grid import Grid
from gt.cli.trials.search import Search, distribution, lines, split
from gt.data.machine import cpus
from gt.errors import UserError, shell_override
from gt.schema import format_number
from gt.train.construct import constructing, import_object
from gt.train.job import CLAIMS, FAILURE, PREPARED, PRUNED, RESULT, read_json, write_json
from gt.train.study import FILES, STUDY, import_optuna, load, storage

PREPARE = "prepare"  # folder of the run that builds the data
OPENED = "opened"  # attribute of a study: how many commands have opened it


@dataclass
class Trial:
    """A trial that this process is working on.

    Attributes:
        overrides: the overrides of all its runs.
        run: the current run.
    """

    number: int
    overrides: list[str]
    run: Run | None = None
    started: float = field(default_factory=time.monotonic)


class Sweep:
    """A sweep in a folder.

    Args:
        flags, common: flags and overrides of every run.
        swept: the overrides that define the search space.
        seed: the seed of the first run of a trial, and of the sampler.
    """

    def __init__(
        self, folder: Path, search: Search, flags: list[str], common: list[str], swept: list[Override], seed: int
    ) -> None:
        self.folder, self.search, self.seed = folder, search, seed
        self.flags, self.common, self.swept = flags, common, swept
        options = groups(CONFIGS)
        self.space = {each.key_or_group: distribution(each, options.get(each.key_or_group, ())) for each in swept}
        self.active: list[Trial] = []
        folder.mkdir(parents=True, exist_ok=True)
        self.claims = open(folder / CLAIMS, "w")  # noqa: SIM115  open, and its locks held, until this process ends
        with self.lock():
            self.study = self.open_study(folder / FILES[search.storage])
        self.mode = "max" if self.study.directions[0].name == "MAXIMIZE" else "min"

    def arguments(self, overrides: Sequence[str], run: Path) -> list[str]:
        """The arguments of ``train.py`` that start a run in a folder."""
        folder_override = shlex.split(shell_override("hydra.run.dir", str(run)))
        return [*self.flags, "--run", *self.common, *overrides, *folder_override]

    def prepare_data(self) -> str:
        """Build the data, so that parallel runs need not wait for each other.

        Returns:
            ``min`` or ``max``: the direction of the score.

        Raises:
            SystemExit: they cannot be built; the error has been printed.
        """
        run = self.folder / PREPARE
        first = {key: each.choices[0] if hasattr(each, "choices") else each.low for key, each in self.space.items()}
        arguments = self.arguments([*lines(self.swept, first), "stage=prepare"], run)
        if code := subprocess.run([sys.executable, str(TRAIN), *arguments], check=False).returncode:
            raise SystemExit(code if code > 0 else 128 - code)
        return str(read_json(run / PREPARED)["mode"])

    def open_study(self, path: Path) -> Any:
        """Open the study in a file, with a sampler seeded differently from those of earlier commands."""
        try:
            study = load(path) if path.exists() else None
        except KeyError:  # the process that created the file was killed before it created the study
            study = None
        if study is None:
            directions = [f"{self.prepare_data()}imize", *["minimize"] * bool(self.search.cost)]
            import_optuna().create_study(study_name=STUDY, storage=storage(path), directions=directions)
            study = load(path)
        times_opened = study.user_attrs.get(OPENED, 0)  # several may have opened it without starting a trial
        study.set_user_attr(OPENED, times_opened + 1)
        seed = self.seed + times_opened + len(study.get_trials(deepcopy=False))
        study.sampler = instantiate(self.search.sampler, seed=seed)
        if isinstance(study.sampler, Grid):
            for point in study.sampler.points(self.space):
                study.enqueue_trial(point, skip_if_exists=True)
        return study

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock out the other processes of the sweep."""
        fcntl.lockf(self.claims, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self.claims, fcntl.LOCK_UN, 1, 0)

    def claim(self, number: int) -> bool:
        """Claim a trial for this process; returns False if another process has claimed it."""
        try:
            fcntl.lockf(self.claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number + 1)
        except OSError:
            return False
        return True

    @property
    def total(self) -> float:
        """The number of trials that the sweep will have in the end."""
        points = [len(self.study.sampler.points(self.space))] if isinstance(self.study.sampler, Grid) else []
        return min([*points, self.search.trials or math.inf])

    def finished(self) -> int:
        """The number of finished trials, including pruned and failed ones."""
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    def next_trial(self) -> Trial | None:
        """A stopped trial or a new one; None if there is nothing left to start.

        A new trial with the values of a completed one gets its results without being run.
        """
        states, active = import_optuna().trial.TrialState, {trial.number for trial in self.active}
        with self.lock():
            trials = self.study.get_trials(deepcopy=False)
            for each in trials:
                if each.state == states.RUNNING and each.number not in active and self.claim(each.number):
                    return Trial(each.number, lines(self.swept, self.complete_params(each)))
            while sum(each.state != states.WAITING for each in trials) < self.total:
                candidate = self.study.ask(self.space)
                overrides = lines(self.swept, candidate.params)
                completed = (each for each in trials if each.state == states.COMPLETE)
                duplicate = next((each for each in completed if lines(self.swept, each.params) == overrides), None)
                if duplicate is None:
                    self.claim(candidate.number)
                    return Trial(candidate.number, overrides)
                self.study.tell(candidate.number, duplicate.values)
                print(f"trial {candidate.number}  as trial {duplicate.number}: {' '.join(overrides)}", flush=True)
                trials = self.study.get_trials(deepcopy=False)
            return None

    def complete_params(self, trial: Any) -> dict[str, Any]:
        """The parameters of a trial; a killed process may have left some unsampled, which are sampled now."""
        if trial.params.keys() < self.space.keys():
            trial = import_optuna().trial.Trial(self.study, trial._trial_id)
            for key, values in self.space.items():
                trial._suggest(key, values)  # as `Study.ask` does; keeps values already sampled
        return dict(trial.params)

    def runs(self, trial: Trial) -> dict[Path, list[str]]:
        """The folders of a trial's runs, and their overrides."""
        if self.search.seeds == 1:
            return {self.folder / str(trial.number): trial.overrides}
        return {
            self.folder / f"{trial.number}-{repeat}": [*trial.overrides, f"seed={self.seed + repeat}"]
            for repeat in range(self.search.seeds)
        }

    def advance(self, trial: Trial) -> str | None:
        """Start the next run of a trial; if none is left, report the trial to the study and return its outcome."""
        results = []
        for folder, overrides in self.runs(trial).items():
            if (folder / FAILURE).exists():
                return self.tell(trial, "FAIL", read_json(folder / FAILURE)["reason"])
            if (folder / PRUNED).exists():
                return self.tell(trial, "PRUNED", read_json(folder / PRUNED)["reason"])
            if not (folder / RESULT).exists():
                has_checkpoint = any((folder / "checkpoints").glob("*.ckpt"))
                arguments = [f"resume={folder}"] if has_checkpoint else self.arguments(overrides, folder)
                trial.run = start(str(folder), arguments, max(1, cpus() // self.search.workers))
                return None
            results.append(read_json(folder / RESULT))
        values = [fmean(ranking_score(result) if result["mode"] == self.mode else math.nan for result in results)]
        if self.search.cost:
            values.append(fmean(result[self.search.cost] or math.nan for result in results))
        if not all(map(math.isfinite, values)):
            names = ("score", self.search.cost)
            index = next(n for n, value in enumerate(values) if not math.isfinite(value))
            return self.tell(trial, "FAIL", f"its {names[index]} is {values[index]}")
        return self.tell(trial, "COMPLETE", format_number(values[0]), values)

    def tell(self, trial: Trial, state: str, outcome: str, values: Sequence[float] | None = None) -> str:
        """Report the outcome of a trial to the study; returns it as text."""
        self.study.tell(trial.number, values, state=import_optuna().trial.TrialState[state])
        return {"FAIL": "failed: ", "PRUNED": "pruned: ", "COMPLETE": ""}[state] + outcome

    def fill(self) -> None:
        """Run the missing trials."""
        columns = (TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(), auto_refresh=False, disable=not sys.stdout.isatty()) as progress:
            bar = progress.add_task("trials", total=self.total, completed=self.finished())
            try:
                while self._start_trials():
                    time.sleep(POLL_INTERVAL)
                    for trial in [trial for trial in self.active if trial.run is not None and trial.run.poll()]:
                        self._record_failure(trial)
                        if (outcome := self.advance(trial)) is not None:
                            self.active.remove(trial)
                            progress.update(bar, completed=self.finished())
                            seconds = f"{time.monotonic() - trial.started:.0f} s"
                            done = f"{self.finished()}/{self.total}"
                            line = f"{done}  trial {trial.number}  {outcome}  {seconds}  {' '.join(trial.overrides)}"
                            progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
                    progress.refresh()
            finally:
                stop([trial.run for trial in self.active if trial.run is not None])

    def _start_trials(self) -> bool:
        """Start trials until all workers are busy; returns whether any is."""
        while len(self.active) < self.search.workers and (trial := self.next_trial()) is not None:
            if self.advance(trial) is None:
                self.active.append(trial)
        return bool(self.active)

    def _record_failure(self, trial: Trial) -> None:
        """Record the failure of the run of a trial, if it failed, for the ranking."""
        assert trial.run is not None
        folder = Path(trial.run.name)
        if trial.run.error:
            folder.mkdir(exist_ok=True)
            overrides = self.runs(trial)[folder]
            write_json(folder / FAILURE, {"overrides": [*self.common, *overrides], "reason": trial.run.error})


def sweep(cfg: DictConfig, arguments: Sequence[str]) -> None:
    """Run the missing trials of a sweep.

    Args:
        cfg: the composed configuration, with Hydra's own section.
        arguments: the command line that it was composed from.

    Raises:
        UserError: the command does not define a valid sweep, see `split`.
    """
    flags, overrides = split_flags(arguments)
    flags = [flag for flag in flags if flag not in ("-m", "--multirun")]
    common, swept = split(overrides)
    with constructing(OmegaConf.masked_copy(cfg, ["sweep"])):
        search: Search = instantiate(cfg.sweep)
    if search.trials is None and import_object(search.sampler["_target_"]) is not Grid:
        raise UserError("sweep.trials=null runs all trials of a grid: give a number, or choose sweep/sampler=grid")
    folder = Path(cfg.hydra.sweep.dir)
    if search.seeds > 1:
        common = [line for line in common if not line.startswith("seed=")]
    with termination():
        trials = Sweep(folder, search, flags, common, swept, cfg.seed)
        print(f"{trials.finished()} of {trials.total} trials are finished, in {trials.folder}", flush=True)
        trials.fill()
