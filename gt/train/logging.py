"""Weights & Biases without prompts or hangs: online if an API key is configured, else offline.

``WANDB_MODE=disabled`` turns it off. Also silences irrelevant hints of Lightning.
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

from gt.data.files import print_line
from gt.errors import first_line

CONNECT_TIMEOUT, UPLOAD_TIMEOUT = 20.0, 60.0  # seconds, for connecting to W&B and for the final upload


def has_key() -> bool:
    """Whether an API key for W&B is set in the environment or was stored by ``wandb login``."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def online() -> bool:
    """Whether to use W&B online: there is an API key and WANDB_MODE does not rule it out."""
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
    """A logger that writes to ``save_dir``; a run resumed in the same folder continues the same W&B run.

    If W&B cannot be reached within `CONNECT_TIMEOUT` seconds, the run is logged offline. With W&B disabled, nothing is
    logged.

    Args:
        entity, group, job_type, tags, notes: as in `wandb.init`.
        log_model: upload the best checkpoint as an artifact when the run ends, or with ``all`` every checkpoint as it
            is saved; offline, they stay in the run's folder.
        init: further arguments of `wandb.init`.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # it prints before it reads its settings
    import wandb  # late: takes half a second, which a run without it need not wait for

    if disabled():
        return _logger("disabled", name=name, save_dir=save_dir)
    id_file = Path(save_dir) / "wandb_id"
    if id_file.exists():
        run_id = id_file.read_text().strip()
    else:
        run_id = secrets.token_hex(4)
        id_file.write_text(run_id)
    options = {"project": project, "name": name, "save_dir": save_dir, "id": run_id}
    extra = {"entity": entity, "group": group, "job_type": job_type, "tags": tags, "notes": notes} | dict(init or {})
    options |= {key: value for key, value in extra.items() if value is not None}
    if online():
        try:
            logger = _logger("online", resume="allow", log_model=log_model, **options)
            _ = logger.experiment  # starts the run
            return logger
        except wandb.errors.Error as error:
            print_line(f"W&B cannot be reached, the run is logged offline: {first_line(error)}")
            wandb.teardown()  # its service would keep the run open
    return _logger("offline", **options)


def _logger(mode: Literal["online", "offline", "disabled"], **options: Any) -> WandbLogger:
    import wandb

    settings = wandb.Settings(
        mode=mode, silent=True, console="off", init_timeout=CONNECT_TIMEOUT, finish_timeout=UPLOAD_TIMEOUT,
        finish_timeout_raises=True,
    )  # fmt: skip
    logger = WandbLogger(offline=mode == "offline", settings=settings, **options)
    logger._wandb_init.pop("anonymous")  # Lightning always passes it, and wandb warns about it from the second run on
    return logger


def sync_line(logger: WandbLogger) -> str | None:
    """The command that uploads an offline run later; None if the run is online or was not started.

    A resumed run has a folder for each start.
    """
    if not logger._offline or logger._experiment is None:
        return None
    last = Path(logger.experiment.dir).parent
    parts = sorted(last.parent.glob(f"offline-run-*-{logger.experiment.id}*"))  # by starting time
    return shlex.join(["wandb", "sync", *map(str, parts or [last])])


def finish(failed: bool = False) -> None:
    """End the current W&B run, if any, as the next job of a sweep is another run.

    Args:
        failed: whether W&B is to mark the run as failed.
    """
    if "wandb" not in sys.modules:
        return
    wandb = sys.modules["wandb"]
    folder = wandb.run and Path(wandb.run.dir).parent
    try:
        wandb.finish(exit_code=int(failed))
    except TimeoutError:
        print_line(f"W&B was not reached within {UPLOAD_TIMEOUT:.0f} s: upload with wandb sync {folder}")


def quiet() -> None:
    """Silence hints and warnings of Lightning that do not apply to this program."""
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
        r".*WeightAveraging callback with a model that overrides.*",  # `Sharded` itself rejects weight averaging
        r".*``compute`` method of metric .* was called before the ``update`` method.*",  # of samples without a label
        r".*sync_dist=True.*",  # metrics synchronise themselves, the rest is the same on every process
    ):
        warnings.filterwarnings("ignore", message)
