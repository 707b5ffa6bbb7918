"""Train a model: ``python train.py [group=option] [key=value ...]``; ``python train.py --help`` lists both."""

import sys

import hydra
from omegaconf import DictConfig

from gt.command import one_line, prepared


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float:
    with one_line():
        from gt.run import run  # imported late: --help and a typo answer at once

        return run(cfg)


if __name__ == "__main__":
    with one_line():
        sys.argv[1:] = prepared(sys.argv[1:])
        main()
