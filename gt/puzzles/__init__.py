"""Which mask, encoding and depth solve which puzzle: a small grid, trained and drawn. ``python -m gt.puzzles``."""
