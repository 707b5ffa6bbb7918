"""Sweeps whose trials are chosen by Optuna: ``python train.py sweep=NAME``."""

from gt.cli.trials.search import Search

__all__ = ["Search"]
