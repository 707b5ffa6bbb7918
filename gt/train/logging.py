"""Weights & Biases without surprises: online where a key is configured, else offline; never a prompt, never a hang.

``WANDB_MODE=disabled`` turns it off.

And Lightning without hints that say nothing to a user of this program.
"""

import logging
import netrc
import os
import secrets
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from pytorch_lightning.loggers import WandbLogger

from gt.data.files import say
from gt.errors import first_line

REACHED, UPLOADED = 20.0, 60.0  # seconds in which W&B must answer, and in which the rest is uploaded when a run ends


def has_key() -> bool:
    """Whether a key for W&B is in the environment or was kept by ``wandb login``."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def online() -> bool:
    """Whether W&B is meant to be reached: a key is known and WANDB_MODE does not say otherwise."""
    return os.environ.get("WANDB_MODE", "online") == "online" and has_key()


def disabled() -> bool:
    """Whether WANDB_MODE turns W&B off."""
    return os.environ.get("WANDB_MODE") == "disabled"


def wandb_logger(
    project: str,
    name: str,
    save_dir: str,
    entity: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] | None = None,
    notes: str | None = None,
    log_model: bool | Literal["all"] = False,
    init: Mapping[str, Any] | None = None,
) -> WandbLogger:
    """A logger that writes below ``save_dir``; a run that resumes in the same folder is the same run for W&B.

    Where W&B is meant to be reached and is not within `REACHED` seconds, the run is kept offline. Where it is turned
    off, nothing is kept.

    Args:
        entity, group, job_type, tags, notes: as `wandb.init` takes them.
        log_model: upload the best checkpoint as an artifact when the run ends, or ``all`` as they are saved; of a run
            that is kept offline they stay in its folder.
        init: what else it takes, by name.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # it speaks before it reads its settings
    import wandb  # takes half a second, which a run without it need not wait

    if disabled():
        return _logger("disabled", name=name, save_dir=save_dir)
    kept = Path(save_dir) / "wandb_id"
    if kept.exists():
        identity = kept.read_text().strip()
    else:
        identity = secrets.token_hex(4)
        kept.write_text(identity)
    facts = {"project": project, "name": name, "save_dir": save_dir, "id": identity}
    about = {"entity": entity, "group": group, "job_type": job_type, "tags": tags, "notes": notes} | dict(init or {})
    facts |= {key: value for key, value in about.items() if value is not None}
    if online():
        try:
            logger = _logger("online", resume="allow", log_model=log_model, **facts)
            _ = logger.experiment  # begins the run
            return logger
        except wandb.errors.Error as error:
            say(f"W&B cannot be reached, the run is kept offline: {first_line(error)}")
            wandb.teardown()  # its service would hold on to the run
    return _logger("offline", **facts)


def _logger(mode: Literal["online", "offline", "disabled"], **facts: Any) -> WandbLogger:
    import wandb

    settings = wandb.Settings(
        mode=mode, silent=True, console="off", init_timeout=REACHED, finish_timeout=UPLOADED,
        finish_timeout_raises=True,
    )  # fmt: skip
    logger = WandbLogger(offline=mode == "offline", settings=settings, **facts)
    logger._wandb_init.pop("anonymous")  # Lightning always passes it, and wandb warns of it from the second run on
    return logger


def sync_line(logger: WandbLogger) -> str | None:
    """The command that uploads an offline run later; None where the run is online or none was started.

    A run that was stopped and goes on keeps a folder for each time.
    """
    if not logger._offline or logger._experiment is None:
        return None
    last = Path(logger.experiment.dir).parent
    parts = sorted(last.parent.glob(f"offline-run-*-{logger.experiment.id}*"))  # by when they began
    return shlex.join(["wandb", "sync", *map(str, parts or [last])])


def finish(failed: bool = False) -> None:
    """End the run of W&B, where there is one: the next job of a sweep is another.

    Args:
        failed: an error or a signal ended it, as W&B is then to show.
    """
    if "wandb" not in sys.modules:
        return
    wandb = sys.modules["wandb"]
    folder = wandb.run and Path(wandb.run.dir).parent
    try:
        wandb.finish(exit_code=int(failed))
    except TimeoutError:
        say(f"W&B was not reached within {UPLOADED:.0f} s: upload with wandb sync {folder}")


def quiet() -> None:
    """Keep Lightning's hints and warnings that say nothing to a user of this program off the terminal."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r".*does not have many workers.*",  # making a batch takes under a millisecond
        r".*treespec, LeafSpec.*",
        r".*ended before the epoch ended and your dataloader is not resumable.*",  # `DataModule` resumes by itself
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*The number of training batches .* is smaller than the logging interval.*",
        r".*Sparse CSR tensor support.*",
        r".*Experiment logs directory .* exists.*",
        r".*WeightAveraging callback with a model that overrides.*",  # a sharded run refuses an average by itself
        r".*``compute`` method of metric .* was called before the ``update`` method.*",  # of samples without a label
        r".*sync_dist=True.*",  # metrics synchronise themselves, the rest is the same on every process
    ):
        warnings.filterwarnings("ignore", message)
