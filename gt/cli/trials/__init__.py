"""A sweep that chooses its own trials, by Optuna: ``python train.py sweep=NAME``."""

from gt.cli.trials.search import Search

__all__ = ["Search"]
