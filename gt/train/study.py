"""The trials of a sweep as Optuna keeps them, in a file of the sweep's folder that its processes share.

A run belongs to a trial by the name of its folder: ``SWEEP/7`` is that of trial 7, ``SWEEP/7-1`` the second of several.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gt.errors import UserError

if TYPE_CHECKING:
    import optuna

STUDY = "sweep"
FILES = {"sqlite": "study.db", "journal": "study.log"}  # the second also where several machines share a disk
PATIENCE = 60.0  # seconds for which a process waits until another one has written
RUNS = 1_000_000  # a trial's steps: validation v of its run r is step r x RUNS + v


def library() -> Any:
    """Optuna, without its remarks.

    Raises:
        UserError: it is not installed.
    """
    check_installed()
    import optuna  # late: it takes a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def check_installed() -> None:
    """Raises UserError, as `library` does, without importing it."""
    if find_spec("optuna") is None:
        raise UserError('sweep=... needs Optuna, which is not installed: pip install -e ".[sweeps]"')


def file_in(folder: Path) -> Path | None:
    """The file in which a folder keeps a study; None where it keeps none."""
    return next((path for name in FILES.values() if (path := folder / name).exists()), None)


def storage(path: Path) -> Any:
    """What Optuna keeps in a file, one of the names of `FILES`."""
    optuna = library()
    if path.name == FILES["journal"]:
        from gt.train.journal import Journal  # late, as Optuna itself

        return optuna.storages.JournalStorage(Journal(path))
    options = {"connect_args": {"timeout": PATIENCE}}
    return optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}", engine_kwargs=options)


def load(path: Path, **parts: Any) -> "optuna.Study":
    """The study of a file.

    Args:
        parts: its sampler and its pruner, which no file keeps.
    """
    return library().load_study(study_name=STUDY, storage=storage(path), **parts)


def trial_of(run: Path) -> tuple[int, int] | None:
    """The number of the trial that a run's folder is of, and which of its runs; None where it is of none."""
    number, _, which = run.name.partition("-")
    return (int(number), int(which or 0)) if number.isdecimal() and (which or "0").isdecimal() else None


def report(study: "optuna.Study", number: int, run: int, validation: int, best: float) -> bool:
    """Tell a study how far a run of a trial has come; returns whether the trial's pruner gives it up.

    What is told is the mean over the trial's runs so far, each at its best up to the same validation or its last, and
    it is held against the same mean of the other trials. (Successive halving and Hyperband, which keep notes of their
    own by trial, judge the first run alone.)

    Args:
        validation: how many this run has had, counted from 1.
        best: of these.
    """
    trial = study.get_trials(deepcopy=False)[number]
    before = curve(trial, run - 1)
    if before:
        mean = before[max((v for v in before if v <= validation), default=min(before))]
        best = (run * mean + best) / (run + 1)
    kept = study._storage
    if run * RUNS + validation not in trial.intermediate_values:  # else a run that goes on repeats it
        kept.set_trial_intermediate_value(trial._trial_id, run * RUNS + validation, best)
    trial = kept.get_trial(trial._trial_id)
    if not run:
        return study.pruner.prune(study, trial)
    view = library().create_study(direction=study.direction)  # in which there is but this run of each trial
    for each in study.get_trials(deepcopy=False):
        # without a value where it is not complete: one that has one must be finite
        facts = {"state": each.state, "value": each.value, "intermediate_values": curve(each, run)}
        view.add_trial(library().create_trial(**facts))
    return study.pruner.prune(view, view.get_trials(deepcopy=False)[number])


def curve(trial: Any, run: int) -> dict[int, float]:
    """What was reported of one run of a trial, by the number of the validation."""
    return {step % RUNS: value for step, value in trial.intermediate_values.items() if step // RUNS == run}
