"""Train and evaluate on a random graph of any size; report time and memory.

python -m tests.data.large_graph clusters 1000000 10000000 10 FOLDER  # sampler, nodes, edges, steps, folder to keep it
"""

import json
import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from gt.data.large.nodes import NodeData
from gt.data.large.sampling import Clusters, Neighbours, Partition
from gt.data.packed import Graphs, pointers
from gt.data.source import Source
from gt.layers import Attention, FeedForward, GatedGCN, ParallelBlock
from gt.masks import Hops
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.feed import Feed
from gt.train.optim import Optimisation
from gt.train.task import Task

SAMPLERS = {
    "neighbours": lambda nodes: Neighbours([10, 5], 1024),
    "partition": lambda nodes: Partition(max(1, nodes // 30_000)),
    "clusters": lambda nodes: Clusters(max(8, nodes // 4_000), 8),
}


class Random(Source):
    """A random graph of a given size, with 64 real-valued features per node."""

    name = "random"

    def __init__(self, folder: str, nodes: int, edges: int) -> None:
        self.root, self.size = Path(folder), (nodes, edges)

    def key(self) -> dict[str, Any]:
        return {"size": self.size}

    def build(self) -> Graphs:
        (nodes, edges), draw = self.size, np.random.default_rng(0)
        ends = np.sort(draw.integers(0, nodes**2, edges))
        order = draw.permutation(nodes)
        return Graphs(
            node_ptr=pointers(np.array([nodes])),
            edge_ptr=pointers(np.array([edges])),
            edge_index=np.stack([ends % nodes, ends // nodes]),
            nodes={
                "x": draw.standard_normal((nodes, 64), np.float32),
                "y": draw.integers(0, 10, nodes).astype(np.uint8),
            },
            splits={"train": order[: nodes // 2], "valid": order[nodes // 2 : nodes // 4 * 3]},
            schema=Schema(node_floats=64, level="node", outputs=10, max_nodes=nodes),
        )


def peak() -> float:
    """The peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Clock(pl.Callback):
    """Records the end of each training step, the duration of validation and the peak memory of training."""

    def __init__(self) -> None:
        self.steps = [time.time()]
        self.nodes: list[int] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps.append(time.time())
        self.nodes.append(batch.num_nodes)

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        self.validation, self.peak = time.time(), peak()

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.validation = time.time() - self.validation


def main(sampler: str, nodes: int, edges: int, steps: int, folder: str) -> dict[str, Any]:
    """Train GPS (3 blocks of width 64, attention over one hop) for some steps, then validate on the whole graph."""
    torch.manual_seed(0)
    start = time.time()
    data = NodeData(Random(folder, nodes, edges), sampler=SAMPLERS[sampler](nodes))
    data.open([])
    open_seconds = time.time() - start
    block = partial(
        ParallelBlock, local=GatedGCN, attention=Attention, feed_forward=FeedForward, norm=nn.LayerNorm, dropout=0.1
    )
    net = GraphTransformer(data.schema, 64, 3, block, Hops(1))
    data.readings = net.readings
    measures, criterion = data.measures()
    task = Task(net, data.schema, measures, criterion, Optimisation())
    clock = Clock()
    trainer = pl.Trainer(
        max_steps=steps, limit_train_batches=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(task, datamodule=Feed(data))
    step_seconds = np.diff(clock.steps)
    return {
        "sampler": sampler,
        "open_s": open_seconds,
        "step_s": float(np.median(step_seconds[1:] if len(step_seconds) > 1 else step_seconds)),
        "nodes_a_step": int(np.mean(clock.nodes)),
        "validation_s": clock.validation,
        "valid_loss": float(trainer.callback_metrics["valid/loss"]),
        "training_gib": clock.peak,
        "peak_gib": peak(),
    }


if __name__ == "__main__":
    if len(sys.argv) != 6 or sys.argv[1] not in SAMPLERS:
        sys.exit(str(__doc__))
    sampler_name, *sizes, output = sys.argv[1:]
    Path(output).mkdir(parents=True, exist_ok=True)
    print(json.dumps(main(sampler_name, *map(int, sizes), output)))
