"""Train a model: ``python train.py [group=option] [key=value ...]``; ``python train.py --help`` lists both."""

import os
import sys

import hydra
from omegaconf import DictConfig

from gt.command import prepared
from gt.errors import one_line


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float:
    from gt.run import run  # imported late: --help and a typo answer at once

    with one_line():
        return run(cfg)


if __name__ == "__main__":
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come out as they are: `one_line` says what a user can mend
    with one_line():
        sys.argv[1:] = prepared(sys.argv[1:])
        main()
