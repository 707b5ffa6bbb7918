"""The trials of a sweep, from the first to the last: each is one run of ``train.py`` in a process of its own, or more.

What a trial has come to is read off the folders of its runs, so that a sweep goes on from wherever it was stopped. As
many commands as like may work on one: each takes up a trial that none is at work on.
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

from gt.cli.arguments import arranged
from gt.cli.config_files import CONFIGS, groups
from gt.cli.settings import decisive
from gt.cli.spectrum.pool import LOOK, TRAIN, Run, start, stop, termination
from gt.cli.trials.grid import Grid
from gt.cli.trials.search import Search, distribution, lines, split
from gt.data.machine import cpus
from gt.errors import UserError, shell_override
from gt.schema import number as shown
from gt.train.construct import constructing, imported
from gt.train.job import CLAIMS, FAILURE, PREPARED, PRUNED, RESULT, read_json, write_json
from gt.train.study import FILES, STUDY, library, load, storage

PREPARE = "prepare"  # the folder of the run that builds the data
OPENED = "opened"  # of a study: how often a command has begun it or joined


@dataclass
class Trial:
    """One that this process is at work on.

    Attributes:
        overrides: of all its runs.
        run: that is running.
    """

    number: int
    overrides: list[str]
    run: Run | None = None
    started: float = field(default_factory=time.monotonic)


class Sweep:
    """A sweep in a folder.

    Args:
        flags, common: of the command line, for every run.
        swept: the overrides that it goes over.
        seed: of the first run of a trial, and of what the sampler draws.
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
        self.claims = open(folder / CLAIMS, "w")  # noqa: SIM115  open, and so locked, until this process ends
        with self.alone():
            self.study = self.opened(folder / FILES[search.storage])
        self.mode = "max" if self.study.directions[0].name == "MAXIMIZE" else "min"

    def arguments(self, overrides: Sequence[str], run: Path) -> list[str]:
        """Those of a run that begins in a folder."""
        place = shlex.split(shell_override("hydra.run.dir", str(run)))
        return [*self.flags, "--run", *self.common, *overrides, *place]

    def prepared(self) -> str:
        """Build the data, before several runs would wait for one another to do it.

        Returns:
            ``min`` or ``max``: what the score by which runs are judged is to be.

        Raises:
            SystemExit: they cannot be built, as was said.
        """
        run = self.folder / PREPARE
        first = {key: each.choices[0] if hasattr(each, "choices") else each.low for key, each in self.space.items()}
        words = self.arguments([*lines(self.swept, first), "stage=prepare"], run)
        if code := subprocess.run([sys.executable, str(TRAIN), *words], check=False).returncode:
            raise SystemExit(code if code > 0 else 128 - code)
        return str(read_json(run / PREPARED)["mode"])

    def opened(self, path: Path) -> Any:
        """The study of a file; its sampler draws other numbers than those of the commands that opened it before."""
        try:
            study = load(path) if path.exists() else None
        except KeyError:  # the process that made the file was killed before there was a study in it
            study = None
        if study is None:
            directions = [f"{self.prepared()}imize", *["minimize"] * bool(self.search.cost)]
            library().create_study(study_name=STUDY, storage=storage(path), directions=directions)
            study = load(path)
        before = study.user_attrs.get(OPENED, 0)  # several may have opened it, and none begun a trial
        study.set_user_attr(OPENED, before + 1)
        seed = self.seed + before + len(study.get_trials(deepcopy=False))
        study.sampler = instantiate(self.search.sampler, seed=seed)
        if isinstance(study.sampler, Grid):
            for point in study.sampler.points(self.space):
                study.enqueue_trial(point, skip_if_exists=True)
        return study

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Only one process of the sweep at a time is within."""
        fcntl.lockf(self.claims, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self.claims, fcntl.LOCK_UN, 1, 0)

    def claimed(self, number: int) -> bool:
        """Whether this process may work on a trial: from now on no other one does."""
        try:
            fcntl.lockf(self.claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number + 1)
        except OSError:
            return False
        return True

    @property
    def total(self) -> float:
        """How many trials there are to be in the end."""
        points = [len(self.study.sampler.points(self.space))] if isinstance(self.study.sampler, Grid) else []
        return min([*points, self.search.trials or math.inf])

    def finished(self) -> int:
        """How many there are, pruned and failed ones among them."""
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    def next(self) -> Trial | None:
        """A trial that was stopped, or a new one; None where there is nothing left to begin.

        One that the sampler has drawn before has its answer: it would come to the same numbers.
        """
        states, own = library().trial.TrialState, {trial.number for trial in self.active}
        with self.alone():
            trials = self.study.get_trials(deepcopy=False)
            for each in trials:
                if each.state == states.RUNNING and each.number not in own and self.claimed(each.number):
                    return Trial(each.number, lines(self.swept, self.drawn(each)))
            while sum(each.state != states.WAITING for each in trials) < self.total:
                asked = self.study.ask(self.space)
                overrides = lines(self.swept, asked.params)
                done = (each for each in trials if each.state == states.COMPLETE)
                known = next((each for each in done if lines(self.swept, each.params) == overrides), None)
                if known is None:
                    self.claimed(asked.number)
                    return Trial(asked.number, overrides)
                self.study.tell(asked.number, known.values)
                print(f"trial {asked.number}  as trial {known.number}: {' '.join(overrides)}", flush=True)
                trials = self.study.get_trials(deepcopy=False)
            return None

    def drawn(self, trial: Any) -> dict[str, Any]:
        """The values of a trial of the study; those that a process was killed before it had drawn are drawn now."""
        if trial.params.keys() < self.space.keys():
            trial = library().trial.Trial(self.study, trial._trial_id)
            for key, values in self.space.items():
                trial._suggest(key, values)  # as `Study.ask` does; what is drawn stays
        return dict(trial.params)

    def runs(self, trial: Trial) -> dict[Path, list[str]]:
        """The folders of a trial's runs, and their overrides."""
        if self.search.seeds == 1:
            return {self.folder / str(trial.number): trial.overrides}
        return {
            self.folder / f"{trial.number}-{which}": [*trial.overrides, f"seed={self.seed + which}"]
            for which in range(self.search.seeds)
        }

    def go_on(self, trial: Trial) -> str | None:
        """Start the next run of a trial; where there is none, tell the study, and return what it came to in words."""
        results = []
        for folder, overrides in self.runs(trial).items():
            if (folder / FAILURE).exists():
                return self.tell(trial, "FAIL", read_json(folder / FAILURE)["reason"])
            if (folder / PRUNED).exists():
                return self.tell(trial, "PRUNED", read_json(folder / PRUNED)["reason"])
            if not (folder / RESULT).exists():
                begun = any((folder / "checkpoints").glob("*.ckpt"))
                words = [f"resume={folder}"] if begun else self.arguments(overrides, folder)
                trial.run = start(str(folder), words, max(1, cpus() // self.search.workers))
                return None
            results.append(read_json(folder / RESULT))
        values = [fmean(decisive(result) if result["mode"] == self.mode else math.nan for result in results)]
        if self.search.cost:
            values.append(fmean(result[self.search.cost] or math.nan for result in results))
        if not all(map(math.isfinite, values)):
            names = ("score", self.search.cost)
            wrong = next(place for place, value in enumerate(values) if not math.isfinite(value))
            return self.tell(trial, "FAIL", f"its {names[wrong]} is {values[wrong]}")
        return self.tell(trial, "COMPLETE", shown(values[0]), values)

    def tell(self, trial: Trial, state: str, words: str, values: Sequence[float] | None = None) -> str:
        """Tell the study how a trial ended; returns that in words."""
        self.study.tell(trial.number, values, state=library().trial.TrialState[state])
        return {"FAIL": "failed: ", "PRUNED": "pruned: ", "COMPLETE": ""}[state] + words

    def fill(self) -> None:
        """Run what is missing."""
        columns = (TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(), auto_refresh=False, disable=not sys.stdout.isatty()) as progress:
            bar = progress.add_task("trials", total=self.total, completed=self.finished())
            try:
                while self._begin():
                    time.sleep(LOOK)
                    for trial in [trial for trial in self.active if trial.run is not None and trial.run.look()]:
                        self._ended(trial)
                        if (words := self.go_on(trial)) is not None:
                            self.active.remove(trial)
                            progress.update(bar, completed=self.finished())
                            seconds = f"{time.monotonic() - trial.started:.0f} s"
                            done = f"{self.finished()}/{self.total}"
                            line = f"{done}  trial {trial.number}  {words}  {seconds}  {' '.join(trial.overrides)}"
                            progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
                    progress.refresh()
            finally:
                stop([trial.run for trial in self.active if trial.run is not None])

    def _begin(self) -> bool:
        """Begin trials until all workers have one; returns whether any is at work."""
        while len(self.active) < self.search.workers and (trial := self.next()) is not None:
            if self.go_on(trial) is None:
                self.active.append(trial)
        return bool(self.active)

    def _ended(self, trial: Trial) -> None:
        """Keep what was wrong with the run of a trial, for the ranking."""
        assert trial.run is not None
        folder = Path(trial.run.name)
        if trial.run.error:
            folder.mkdir(exist_ok=True)
            overrides = self.runs(trial)[folder]
            write_json(folder / FAILURE, {"overrides": [*self.common, *overrides], "reason": trial.run.error})


def sweep(cfg: DictConfig, arguments: Sequence[str]) -> None:
    """Run what is missing of a sweep.

    Args:
        cfg: composed, with Hydra's own section.
        arguments: of the command line that it was composed from.

    Raises:
        UserError: what was asked for is no sweep, see `split`.
    """
    flags, overrides = arranged(arguments)
    flags = [flag for flag in flags if flag not in ("-m", "--multirun")]
    common, swept = split(overrides)
    with constructing(OmegaConf.masked_copy(cfg, ["sweep"])):
        search: Search = instantiate(cfg.sweep)
    if search.trials is None and imported(search.sampler["_target_"]) is not Grid:
        raise UserError("sweep.trials=null runs all that a grid has: give a number, or choose sweep/sampler=grid")
    folder = Path(cfg.hydra.sweep.dir)
    if search.seeds > 1:
        common = [line for line in common if not line.startswith("seed=")]
    with termination():
        every = Sweep(folder, search, flags, common, swept, cfg.seed)
        print(f"{every.finished()} of {every.total} trials are finished, in {every.folder}", flush=True)
        every.fill()
