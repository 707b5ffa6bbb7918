"""The Optuna study of a sweep, in a file of the sweep's folder that its processes share.

A run belongs to a trial by the name of its folder: ``SWEEP/7`` belongs to trial 7, ``SWEEP/7-1`` is its second run.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gt.errors import UserError

if TYPE_CHECKING:
    import optuna

STUDY = "sweep"
FILES = {"sqlite": "study.db", "journal": "study.log"}  # the journal also works on a disk that several machines share
PATIENCE = 60.0  # seconds to wait for a database lock
RUNS = 1_000_000  # Optuna's step for validation v of run r of a trial is r x RUNS + v


def import_optuna() -> Any:
    """Import Optuna and silence its messages.

    Raises:
        UserError: it is not installed.
    """
    check_installed()
    import optuna  # late: takes a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def check_installed() -> None:
    """Raise UserError if Optuna is not installed, without importing it."""
    if find_spec("optuna") is None:
        raise UserError('sweep=... needs Optuna, which is not installed: pip install -e ".[sweeps]"')


def file_in(folder: Path) -> Path | None:
    """The file of the study in a folder; None if there is none."""
    return next((path for name in FILES.values() if (path := folder / name).exists()), None)


def storage(path: Path) -> Any:
    """Optuna's storage for a file with one of the names in `FILES`."""
    optuna = import_optuna()
    if path.name == FILES["journal"]:
        from gt.train.journal import Journal  # late, like Optuna

        return optuna.storages.JournalStorage(Journal(path))
    options = {"connect_args": {"timeout": PATIENCE}}
    return optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}", engine_kwargs=options)


def load(path: Path, **parts: Any) -> "optuna.Study":
    """Load the study from a file.

    Args:
        parts: sampler and pruner, which are not stored in the file.
    """
    return import_optuna().load_study(study_name=STUDY, storage=storage(path), **parts)


def trial_of(run: Path) -> tuple[int, int] | None:
    """The number of the trial that a run's folder belongs to, and the index of the run; None if there is no trial."""
    number, _, index = run.name.partition("-")
    return (int(number), int(index or 0)) if number.isdecimal() and (index or "0").isdecimal() else None


def report(study: "optuna.Study", number: int, run: int, validation: int, best: float) -> bool:
    """Report the progress of a trial's run to the study; returns whether the pruner prunes it.

    The reported value is the mean over the trial's runs so far, each at its best up to the same validation or its last;
    it is compared with the same mean of other trials. (Successive halving and Hyperband, which keep their own records
    by trial, only judge the first run.)

    Args:
        validation: number of validations of this run so far.
        best: the best value among these.
    """
    trial = study.get_trials(deepcopy=False)[number]
    before = curve(trial, run - 1)
    if before:
        mean = before[max((v for v in before if v <= validation), default=min(before))]
        best = (run * mean + best) / (run + 1)
    stored = study._storage
    if run * RUNS + validation not in trial.intermediate_values:  # otherwise a resumed run repeats it
        stored.set_trial_intermediate_value(trial._trial_id, run * RUNS + validation, best)
    trial = stored.get_trial(trial._trial_id)
    if not run:
        return study.pruner.prune(study, trial)
    view = import_optuna().create_study(direction=study.direction)  # with only this run of each trial
    for other in study.get_trials(deepcopy=False):
        # only complete trials have a value, as Optuna requires values to be finite
        fields = {"state": other.state, "value": other.value, "intermediate_values": curve(other, run)}
        view.add_trial(import_optuna().create_trial(**fields))
    return study.pruner.prune(view, view.get_trials(deepcopy=False)[number])


def curve(trial: Any, run: int) -> dict[int, float]:
    """The values reported for one run of a trial, by the number of the validation."""
    return {step % RUNS: value for step, value in trial.intermediate_values.items() if step // RUNS == run}
