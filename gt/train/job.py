"""The folder of one run, alone or of a sweep: what it says, what it comes to, and what goes wrong."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from gt.data.files import whole
from gt.errors import reason
from gt.train.paths import anchor
from gt.train.transcript import transcript

RESULT = "result.json"  # of a job that finished
FAILURE = "failure.json"  # of one that did not: what was wrong


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    with whole(path) as file:
        file.write(json.dumps(value, indent=1).encode())


@contextmanager
def job(cfg: DictConfig) -> Iterator[None]:
    """Around one run: what it says is kept in its folder; what goes wrong is one line there and on the terminal.

    That ends the program where the run stands alone. Of a sweep the failure is kept for the ranking; the others run.
    """
    hydra = HydraConfig.get()
    folder, of_sweep = Path(hydra.runtime.output_dir), hydra.mode == RunMode.MULTIRUN
    if of_sweep:
        for name in (RESULT, FAILURE):  # of an earlier sweep in the same folder
            (folder / name).unlink(missing_ok=True)
    log = folder / f"{hydra.job.name}.log"
    with transcript(log):
        try:
            anchor(cfg.data)
            if (kept := folder / str(hydra.output_subdir) / "config.yaml").is_file():
                with whole(kept) as file:
                    file.write(OmegaConf.to_yaml(cfg).encode())
            yield
        except Exception as error:
            line = reason(error, log)
            print(f"error: {line}", file=sys.stderr)
            if not of_sweep:
                raise SystemExit(1) from None
            write_json(folder / FAILURE, {"overrides": list(hydra.overrides.task), "reason": line})
