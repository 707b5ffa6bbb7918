"""Weights & Biases without surprises: online where a key is configured, else offline; never a prompt, never a hang."""

import os
import secrets
from pathlib import Path

import wandb
from pytorch_lightning.loggers import WandbLogger


def online() -> bool:
    """Whether W&B is meant to be reached: a key is known and WANDB_MODE does not say otherwise."""
    mode = os.environ.get("WANDB_MODE")
    return mode == "online" or (mode is None and bool(wandb.api.api_key))


def wandb_logger(project: str, name: str, save_dir: str) -> WandbLogger:
    """A logger that writes below ``save_dir``; a run that resumes in the same folder is the same run for W&B."""
    kept = Path(save_dir) / "wandb_id"
    if kept.exists():
        identity = kept.read_text().strip()
    else:
        identity = secrets.token_hex(4)
        kept.write_text(identity)
    return WandbLogger(
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


def sync_line(logger: WandbLogger) -> str | None:
    """The command that uploads an offline run later; None where the run is online or none was started."""
    if not logger._offline or logger._experiment is None:
        return None
    return f"wandb sync {Path(logger.experiment.dir).parent}"
