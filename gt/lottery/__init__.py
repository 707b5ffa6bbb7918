"""The hardware lottery: what each way to compute attention costs on this machine. ``python -m gt.lottery``."""
