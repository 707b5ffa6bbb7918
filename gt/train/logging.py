"""Weights & Biases without surprises: online where a key is configured, else offline; never a prompt, never a hang.

And Lightning without hints that say nothing to a user of this program.
"""

import logging
import netrc
import os
import secrets
import sys
import warnings
from pathlib import Path
from urllib.parse import urlparse

from pytorch_lightning.loggers import WandbLogger


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


def wandb_logger(project: str, name: str, save_dir: str) -> WandbLogger:
    """A logger that writes below ``save_dir``; a run that resumes in the same folder is the same run for W&B."""
    os.environ.setdefault("WANDB_SILENT", "true")  # it speaks before it reads its settings
    import wandb  # takes half a second, which a run without it need not wait

    kept = Path(save_dir) / "wandb_id"
    if kept.exists():
        identity = kept.read_text().strip()
    else:
        identity = secrets.token_hex(4)
        kept.write_text(identity)
    logger = WandbLogger(
        project=project,
        name=name,
        save_dir=save_dir,
        id=identity,
        resume="allow" if online() else None,
        offline=not online(),
        settings=wandb.Settings(
            mode="online" if online() else "offline", silent=True, console="off", init_timeout=30, x_disable_stats=True
        ),
    )
    logger._wandb_init.pop("anonymous")  # Lightning always passes it, and wandb warns of it from the second run on
    return logger


def sync_line(logger: WandbLogger) -> str | None:
    """The command that uploads an offline run later; None where the run is online or none was started."""
    if not logger._offline or logger._experiment is None:
        return None
    return f"wandb sync {Path(logger.experiment.dir).parent}"


def finish() -> None:
    """End the run of W&B, where there is one: the next job of a sweep is another."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()


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
        r".*sync_dist=True.*",  # metrics synchronise themselves, the rest is the same on every process
    ):
        warnings.filterwarnings("ignore", message)
