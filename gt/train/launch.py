"""Who starts the processes of a run: Lightning, or torchrun, SLURM or a hand, each of them by the whole command."""

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

SHELLS = ("bash", "interactive")  # names of SLURM's jobs in which commands are typed
RANKS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")  # what Lightning tells processes
TRAIN = Path(gt.__path__[0]).parent / "train.py"


def started_outside() -> bool:
    """Whether torchrun, SLURM's srun or a hand starts this run's processes, each by the whole command.

    Lightning then starts none, or only those of its own machine. An interactive shell of SLURM does not count.
    """
    environment = os.environ
    slurm = int(environment.get("SLURM_NTASKS", "1")) > 1 and environment.get("SLURM_JOB_NAME") not in SHELLS
    by_hand = "NODE_RANK" in environment and "LOCAL_RANK" not in environment
    return slurm or by_hand or "TORCHELASTIC_RUN_ID" in environment


def rank_outside() -> int:
    """Which of the processes that were started outside this is; 0 where Lightning starts them."""
    names = ("RANK", "SLURM_PROCID", "NODE_RANK") if started_outside() else ()
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def started() -> int | None:
    """How many processes of this run were started outside; None where nobody says."""
    of_slurm = {} if os.environ.get("SLURM_JOB_NAME") in SHELLS else {"SLURM_NTASKS"}
    return next((int(os.environ[name]) for name in ("WORLD_SIZE", *of_slurm) if name in os.environ), None)


def check_started(devices: int, nodes: int) -> None:
    """Whether as many processes were started outside as are to train on ``devices`` of each of ``nodes`` machines.

    Raises:
        UserError: they would not meet: each would train by itself, or wait for the others for ever.
    """
    count = started()
    if count is None and nodes > 1 and not started_outside():
        raise UserError(
            f"trainer.num_nodes={nodes}: start the command on every machine, by torchrun, by srun, or with "
            "MASTER_ADDR, MASTER_PORT and NODE_RANK set"
        )
    if count not in (None, devices * nodes):
        raise UserError(
            f"{'1 process was' if count == 1 else f'{count} processes were'} started and trainer.devices={devices} "
            f"trainer.num_nodes={nodes} asks for {devices * nodes}: choose trainer=ddp trainer.devices={count}, or "
            f"start {devices} on each machine, by torchrun --nproc-per-node or srun --ntasks-per-node"
        )


def check_alone(stage: str) -> None:
    """Refuse several processes that were started outside where one does what there is to do.

    Raises:
        UserError: there are several.
    """
    if started_outside() and (started() or 1) > 1:
        raise UserError(f"stage={stage} takes one process: leave torchrun out, and start it by srun --ntasks=1")


def one_of_several(arguments: list[str]) -> list[str]:
    """The arguments of a command, for a process that torchrun or the like starts with others: all work in one folder.

    Raises:
        UserError: the command says not in which, or is that of a sweep.
    """
    if not started_outside():
        return arguments
    if {"-m", "--multirun"} & {*arguments}:
        raise UserError("a sweep starts its processes itself: leave torchrun or srun out, or start one run")
    if not any(argument.startswith("hydra.run.dir=") for argument in arguments):
        raise UserError("give hydra.run.dir=FOLDER: each process started by torchrun or srun would choose its own")
    if not (rank := rank_outside()):
        return arguments
    return [*arguments, "hydra.output_subdir=null", f"hydra.job.name=train_ddp_process_{rank}"]


@contextmanager
def one_job(folder: Path) -> Iterator[None]:
    """Around the training of a job of a sweep: the processes that Lightning starts run this job and no other.

    They are started by the command of this process, which is the sweep's: here it is one for the configuration that
    the job keeps in its folder. What they were told is forgotten afterwards, for the next job's are others.
    """
    hydra: Any = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None or hydra.mode != RunMode.MULTIRUN:
        yield
        return
    import torch.distributed  # late: it takes a second

    argv, spec, main = sys.argv, sys.modules["__main__"].__spec__, sys.modules["__main__"]
    told = {name: os.environ[name] for name in RANKS if name in os.environ}
    sys.argv = [
        str(TRAIN),
        "--config-path",
        str((folder / str(hydra.output_subdir)).resolve()),
        "--config-name",
        "config",
    ]
    main.__spec__ = None  # Lightning would start it as a module where it was one, as a launcher's process is
    with read_write(hydra):
        hydra.run.dir = str(folder)
    try:
        yield
    finally:
        sys.argv, main.__spec__ = argv, spec
        for name in RANKS:
            os.environ.pop(name, None)
        os.environ.update(told)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
