"""Training: the run, its task and optimiser, checkpoints, callbacks and the report."""
