"""``python -m gt.doctor``: report on this machine: versions, devices, kernels, folders, and what is missing."""

import argparse
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gt.cli.program import importing, quick_exit
from gt.errors import Parser, one_line

GIB = 2**30
LOW_SPACE = 2 * GIB  # free disk space that is worth a warning
# what a package is for and how to install it; '': a dependency of this package
PACKAGES = {
    "torch": "",
    "pytorch-lightning": "",
    "torch-geometric": "",
    "hydra-core": "",
    "ogb": "",
    "wandb": "",
    "rdkit": 'molecules: pip install -e ".[molecules]"',
    "pyarrow": 'Parquet tables: pip install -e ".[molecules]"',
    "tokenizers": 'byte pairs (data.tokens=bpe): pip install -e ".[text]"',
    "triton": "Triton attention kernels on a GPU; comes with torch for CUDA",
}


def packages() -> Iterator[tuple[str, str]]:
    """Versions of packages, and what missing ones are for."""
    for name, purpose in PACKAGES.items():
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, f"not installed; for {purpose}"


def devices() -> Iterator[tuple[str, str]]:
    """The processor and the GPUs."""
    import torch

    from gt.attention.costs import processor
    from gt.data.machine import gpu_problem, has_gpu, memory

    yield "processor", f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used"
    yield "memory", f"{memory() / GIB:.1f} GiB"
    for number in range(torch.cuda.device_count() if has_gpu() else 0):
        card = torch.cuda.get_device_properties(number)
        yield f"GPU {number}", f"{card.name}, {card.total_memory / GIB:.0f} GiB, capability {card.major}.{card.minor}"
    if not has_gpu():
        reason = "" if (problem := gpu_problem()) is None else f": {problem}"
        none_usable = f"none that torch (for CUDA {torch.version.cuda}) can use{reason}"
        yield "GPU", "none" if torch.version.cuda is None else none_usable


def kernels() -> Iterator[tuple[str, str]]:
    """Which backends can compute plain attention here, and the source of the cost tables that select one."""
    from gt.attention.costs import Demand, cost_table, table_path
    from gt.attention.dispatch import BACKENDS
    from gt.data.machine import has_gpu
    from gt.native.library import obstacle

    yield "kernels in C", "yes" if obstacle() is None else f"no: {obstacle()}"
    for device in ("cpu", *(["cuda"] if has_gpu() else [])):
        demand = Demand(device=device, half=device == "cuda")
        for name, backend in BACKENDS.items():
            reason = backend.obstacle(demand) or backend.drawback(demand)
            yield f"{name} on {device}", "yes" if reason is None else f"no: {reason}"
        source = cost_table(device, demand.half).source
        is_own = table_path(device, demand.half).exists()
        origin = ", ".join(str(source[key]) for key in ("device", "torch", "date") if key in source)
        yield f"costs on {device}", origin if is_own else f"{origin}; to measure this machine: python -m gt.lottery"


def folders() -> Iterator[tuple[str, str]]:
    """Folders of data and runs, their free space, and whether they are writable."""
    for name in ("data", "runs"):
        folder = Path(name).resolve()
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        status = f"{folder}, {free / GIB:.1f} GiB free"
        if not os.access(existing, os.W_OK):
            status += "; not writable"
        elif free < LOW_SPACE:
            status += "; low on space"
        yield name, status


def dashboards() -> Iterator[tuple[str, str]]:
    """Whether runs are logged to W&B."""
    from gt.train.logging import disabled, has_key, online

    if disabled():
        yield "W&B", "off, by WANDB_MODE"
    else:
        yield "W&B", "online" if online() else "offline, by WANDB_MODE" if has_key() else "offline: wandb login"


def arguments() -> argparse.Namespace:
    return Parser(prog="python -m gt.doctor", description=__doc__).parse_args()


def main() -> None:
    arguments()
    with importing():
        import torch  # noqa: F401  late, so that --help is answered at once
        from rich.console import Console
        from rich.table import Table

        import gt
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("gt", f"{gt.__version__} in {Path(gt.__file__).parent}")
    table.add_row("python", f"{platform.python_version()}, {platform.platform()}")
    for part in (packages, devices, kernels, folders, dashboards):
        table.add_section()
        for row in part():
            table.add_row(*row)
    Console(markup=False).print(table)


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
