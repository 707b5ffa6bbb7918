"""Metadata of a run: everything needed to tell it from others, to group by, and to repeat it."""

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
from gt.data.machine import has_gpu
from gt.data.store import fingerprint
from gt.keys import full_key
from gt.train.job import overrides

# keys of the metadata besides those of the configuration
METADATA_KEYS = ("command", "commit", "versions", "machine", "dataset", "parameters", "trained_parameters")
PACKAGES = ("torch", "pytorch-lightning", "torch-geometric", "hydra-core", "ogb", "numpy")


def run_metadata(cfg: DictConfig, data: DataModule, net: nn.Module) -> dict[str, Any]:
    """The whole configuration together with the metadata of the run, as plain values for loggers.

    ``command`` repeats the run; ``commit`` is that of the working directory or else of this package, with a ``+`` if
    there are uncommitted changes; ``dataset`` includes a fingerprint of what the data were made from.
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
    """The command line that repeats this job from the start; in a sweep, this job alone."""
    program = [os.path.relpath(sys.argv[0])] if sys.argv[0].endswith(".py") else ["train.py"]
    return shlex.join(["python", *program, *overrides()])


def commit(folder: Path) -> str | None:
    """The git commit of a folder, with a ``+`` if tracked files differ from it; None if it cannot be determined."""
    try:
        outputs = [
            subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, timeout=5, check=True).stdout
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return outputs[0].strip() + ("+" if outputs[1].strip() else "")


def machine() -> dict[str, Any]:
    """The hardware and operating system."""
    info = {"system": platform.platform(), "processor": processor(), "threads": torch.get_num_threads()}
    if has_gpu():
        gpu = torch.cuda.get_device_properties(0)
        info |= {"gpu": gpu.name, "gpus": torch.cuda.device_count(), "gpu_memory_gib": gpu.total_memory / 2**30}
    return info


def dataset(data: DataModule) -> dict[str, Any]:
    """Name of the data, number of samples in each split, and a fingerprint of what they were made from."""
    source = getattr(data, "source", None)
    info: dict[str, Any] = {
        "samples": {split: len(data.dataset(split)) for split in ("train", "valid", "test") if data.has(split)}
    }
    if source is not None:
        info |= {"name": getattr(source, "name", type(source).__name__), "fingerprint": fingerprint(full_key(source))}
    return info
