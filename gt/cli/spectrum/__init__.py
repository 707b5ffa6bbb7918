"""The map between GNN and Transformer: every mask radius with every blend weight, on any data."""

from gt.cli.spectrum.grid import Grid

__all__ = ["Grid"]
