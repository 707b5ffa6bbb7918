"""Complete training runs within the test process, about a second each."""

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from gt.cli.config_files import CONFIGS
from gt.train.run import run

TINY = ("data=graph_files", "encoding=none", "model.width=8", "model.depth=1", "data.batch_size=8", "model/norm=batch",
        "logger=csv", "trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=1")  # fmt: skip


def write_graphs(folder: Path, train: int = 36, valid: int = 36, test: int = 20) -> list[str]:
    """Write random graphs of two classes, by default 5 training and 2 evaluation batches; return their overrides."""
    rng, lines = np.random.default_rng(0), []
    for split, count in {"train": train, "valid": valid, "test": test}.items():
        for _ in range(count):
            size = int(rng.integers(2, 8))
            nodes = [{"id": n, "kind": int(rng.integers(4))} for n in range(size)]
            edges = [{"source": n, "target": int(rng.integers(n))} for n in range(1, size)]
            attributes = {"split": split, "y": int(sum(node["kind"] for node in nodes) > 1.5 * size)}
            lines.append(json.dumps({"directed": False, "graph": attributes, "nodes": nodes, "edges": edges}))
    path = folder / "graphs.jsonl"
    path.write_text("\n".join(lines))
    return [f"data.source.path={path}", f"data.source.root={folder}", "data.source.target=y", "data.eval_batch_size=18"]


@contextmanager
def configured(folder: Path, *overrides: str):
    """The configuration of a run in a folder, as Hydra passes it to the program."""
    with initialize_config_dir(str(Path(CONFIGS).resolve()), version_base="1.3"):
        cfg = compose("train", overrides=[*TINY, *overrides], return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    try:
        yield cfg
    finally:
        HydraConfig.instance().cfg = None


def train(folder: Path, *overrides: str, resume: bool = False) -> float:
    """Train in a folder, or resume there, on one thread: several would wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with configured(folder, *overrides, *([f"resume={folder}"] if resume else [])) as cfg:
            return run(OmegaConf.create(cfg))
    finally:
        torch.set_num_threads(threads)


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
