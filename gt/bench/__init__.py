"""``python -m gt.bench``: what a training step costs, beside what one would run without this package."""
