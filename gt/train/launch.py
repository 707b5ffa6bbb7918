"""Launching the processes of a run: by Lightning, or each by the full command through torchrun, SLURM or by hand."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import read_write

import gt
from gt.errors import UserError

SHELLS = ("bash", "interactive")  # names of interactive SLURM jobs
RANK_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")  # set by Lightning
TRAIN = Path(gt.__path__[0]).parent / "train.py"


def started_outside() -> bool:
    """Whether this run's processes are started by torchrun, srun or by hand, each with the full command.

    Lightning then starts none, or only those of its own machine. Interactive SLURM shells do not count.
    """
    environment = os.environ
    slurm = int(environment.get("SLURM_NTASKS", "1")) > 1 and environment.get("SLURM_JOB_NAME") not in SHELLS
    by_hand = "NODE_RANK" in environment and "LOCAL_RANK" not in environment
    return slurm or by_hand or "TORCHELASTIC_RUN_ID" in environment


def rank_outside() -> int:
    """The rank among externally started processes; 0 if Lightning starts them."""
    names = ("RANK", "SLURM_PROCID", "NODE_RANK") if started_outside() else ()
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def num_started() -> int | None:
    """The number of externally started processes of this run; None if unknown."""
    slurm = {} if os.environ.get("SLURM_JOB_NAME") in SHELLS else {"SLURM_NTASKS"}
    return next((int(os.environ[name]) for name in ("WORLD_SIZE", *slurm) if name in os.environ), None)


def check_started(devices: int, nodes: int) -> None:
    """Check the number of externally started processes against ``devices`` on each of ``nodes`` machines.

    Raises:
        UserError: it does not match, so that each process would train by itself or wait forever for the others.
    """
    count = num_started()
    if count is None and nodes > 1 and not started_outside():
        raise UserError(
            f"trainer.num_nodes={nodes}: start the command on every machine, by torchrun, by srun, or with "
            "MASTER_ADDR, MASTER_PORT and NODE_RANK set"
        )
    if count not in (None, devices * nodes):
        raise UserError(
            f"{'1 process was' if count == 1 else f'{count} processes were'} started and trainer.devices={devices} "
            f"trainer.num_nodes={nodes} needs {devices * nodes}: choose trainer=ddp trainer.devices={count}, or "
            f"start {devices} on each machine, by torchrun --nproc-per-node or srun --ntasks-per-node"
        )


def check_alone(stage: str) -> None:
    """Refuse several externally started processes for a stage that runs on one.

    Raises:
        UserError: there are several.
    """
    if started_outside() and (num_started() or 1) > 1:
        raise UserError(f"stage={stage} runs on one process: leave torchrun out, or start it by srun --ntasks=1")


def shared_folder_arguments(arguments: list[str]) -> list[str]:
    """The arguments of a command, adapted so that all processes started by torchrun or the like share one folder.

    Raises:
        UserError: the command does not set the folder, or starts a sweep.
    """
    if not started_outside():
        return arguments
    if {"-m", "--multirun"} & {*arguments}:
        raise UserError("a sweep starts its processes itself: leave torchrun or srun out, or start a single run")
    if not any(argument.startswith("hydra.run.dir=") for argument in arguments):
        raise UserError("give hydra.run.dir=FOLDER: each process started by torchrun or srun would choose its own")
    if not (rank := rank_outside()):
        return arguments
    return [*arguments, "hydra.output_subdir=null", f"hydra.job.name=train_ddp_process_{rank}"]


@contextmanager
def single_job(folder: Path) -> Iterator[None]:
    """Context manager for training a job of a sweep: has the processes that Lightning starts run this job only.

    Lightning starts them with the command of this process, which runs the whole sweep; it is replaced by one that uses
    the configuration saved in the job's folder. Rank variables are restored afterwards for the next job.
    """
    hydra: Any = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None or hydra.mode != RunMode.MULTIRUN:
        yield
        return
    import torch.distributed  # late: takes a second

    argv, spec, main = sys.argv, sys.modules["__main__"].__spec__, sys.modules["__main__"]
    saved = {name: os.environ[name] for name in RANK_VARIABLES if name in os.environ}
    sys.argv = [
        str(TRAIN),
        "--config-path",
        str((folder / str(hydra.output_subdir)).resolve()),
        "--config-name",
        "config",
    ]
    main.__spec__ = None  # otherwise Lightning would start it with -m if this process was started like that
    with read_write(hydra):
        hydra.run.dir = str(folder)
    try:
        yield
    finally:
        sys.argv, main.__spec__ = argv, spec
        for name in RANK_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(saved)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
