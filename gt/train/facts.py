"""What a run was: everything that one needs to tell it from others, to group by, and to run it again."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

import gt
from gt.attention.costs import processor
from gt.data.datamodule import DataModule
from gt.data.store import fingerprint
from gt.keys import full_key
from gt.train.job import overrides

# what facts hold beside the configuration
BESIDE = ("command", "commit", "versions", "machine", "dataset", "parameters", "trained_parameters")
PACKAGES = ("torch", "pytorch-lightning", "torch-geometric", "hydra-core", "ogb", "numpy")


def run_facts(cfg: DictConfig, data: DataModule, net: nn.Module) -> dict[str, Any]:
    """The whole configuration, by its own keys, and beside it what the run was made of: plain values, for loggers.

    ``command`` runs it again, ``commit`` is that of the folder it was started in, else of this package, with a ``+``
    where files were changed since; ``dataset`` holds a fingerprint of what the data were made from.
    """
    return {
        **OmegaConf.to_container(cfg, resolve=True),  # type: ignore[dict-item]
        "command": command(),
        "commit": commit(Path.cwd()) or commit(Path(__file__).parent),
        "versions": {"gt": gt.__version__, "python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "machine": machine(),
        "dataset": dataset(data),
        "parameters": sum(p.numel() for p in net.parameters()),
        "trained_parameters": sum(p.numel() for p in net.parameters() if p.requires_grad),
    }


def command() -> str:
    """The command line that runs this job again, from its beginning; of a sweep, this job alone."""
    program = [os.path.relpath(sys.argv[0])] if sys.argv[0].endswith(".py") else ["train.py"]
    return shlex.join(["python", *program, *overrides()])


def commit(folder: Path) -> str | None:
    """The git commit of a folder, with a ``+`` where tracked files differ from it; None where there is none to tell."""
    try:
        said = [
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=5, check=True).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0].strip() + ("+" if said[1].strip() else "")


def machine() -> dict[str, Any]:
    """What the run is computed on."""
    told = {"system": platform.platform(), "processor": processor(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        told |= {"gpu": card.name, "gpus": torch.cuda.device_count(), "gpu_memory_gib": card.total_memory / 2**30}
    return told


def dataset(data: DataModule) -> dict[str, Any]:
    """The data by name, with the number of samples of each split and a fingerprint that other data would change."""
    source = getattr(data, "source", None)
    told: dict[str, Any] = {
        "samples": {split: len(data.dataset(split)) for split in ("train", "valid", "test") if data.has(split)}
    }
    if source is not None:
        told |= {"name": getattr(source, "name", type(source).__name__), "fingerprint": fingerprint(full_key(source))}
    return told
