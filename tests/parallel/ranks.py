"""Runs a function in several gloo processes at once."""

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _run_rank(rank: int, world: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    try:
        (folder / str(rank)).write_bytes(pickle.dumps(function(rank, world, *arguments)))
    finally:
        dist.destroy_process_group()


def run_on_ranks(world: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run ``function(rank, world, *arguments)`` in ``world`` new processes; return the result of each rank."""
    multiprocessing.set_forkserver_preload(["torch_geometric.data", "gt.parallel", function.__module__])
    mp.start_processes(_run_rank, (world, folder, function, arguments), nprocs=world, start_method="forkserver")
    return [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(world)]
