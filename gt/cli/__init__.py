"""Command lines: their checks, configuration files, sweeps and tables of predictions."""
