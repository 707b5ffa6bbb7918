"""Train a model: ``python train.py [group=option] [key=value ...]``, both listed by ``python train.py --help``."""

import math
import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gt.cli.command import prepare_arguments
from gt.cli.composing import remove_leftovers
from gt.cli.config_files import CONFIGS, Files
from gt.cli.program import importing, quick_exit
from gt.cli.sweep import ranking
from gt.errors import one_line
from gt.train.job import job, previous_score
from gt.train.launch import shared_folder_arguments
from gt.train.processes import end_with_parent, is_child


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def main(cfg: DictConfig) -> float:
    composed = HydraConfig.get()
    lines = [*composed.overrides.hydra, *composed.overrides.task]
    outdated = Files.from_hydra(composed).outdated(lines, str(composed.job.config_name))
    remove_leftovers(cfg, composed.overrides.task, outdated)  # first: `job` saves the configuration as it is
    if (score := previous_score()) is not None:
        return score
    with job(cfg):
        with importing():
            from gt.train.run import run  # late, so that --help and typos are answered at once

        return run(cfg)
    return math.nan  # a failed job of a sweep


def command() -> None:
    """Entry point: check the arguments, then start a run or a sweep."""
    if is_child():
        end_with_parent()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors through to `one_line`
    with one_line(), ranking():
        with importing():
            sys.argv[1:] = shared_folder_arguments(prepare_arguments(sys.argv[1:]))
        main()


if __name__ == "__main__":
    with quick_exit():
        command()
