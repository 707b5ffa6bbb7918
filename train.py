"""Train a model: ``python train.py [group=option] [key=value ...]``; ``python train.py --help`` lists both."""

import math
import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gt.cli.command import prepared
from gt.cli.composing import settle
from gt.cli.config_files import CONFIGS, Files
from gt.cli.program import importing, quick_exit
from gt.cli.sweep import ranking
from gt.errors import one_line
from gt.train.job import job, kept_score
from gt.train.launch import one_of_several
from gt.train.processes import end_with_parent, is_child


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def main(cfg: DictConfig) -> float:
    composed = HydraConfig.get()
    lines = [*composed.overrides.hydra, *composed.overrides.task]
    outdated = Files.of(composed).outdated(lines, str(composed.job.config_name))
    settle(cfg, composed.overrides.task, outdated)  # first: `job` keeps the configuration as it then is
    if (score := kept_score()) is not None:
        return score
    with job(cfg):
        with importing():
            from gt.train.run import run  # late: --help and a typo answer at once

        return run(cfg)
    return math.nan  # one of a sweep, which failed


def command() -> None:
    """What is run from the command line: the arguments checked, then one run or a sweep."""
    if is_child():
        end_with_parent()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come out as they are: `one_line` says what a user can mend
    with one_line(), ranking():
        with importing():
            sys.argv[1:] = one_of_several(prepared(sys.argv[1:]))
        main()


if __name__ == "__main__":
    with quick_exit():
        command()
