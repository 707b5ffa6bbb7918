"""Synthetic tasks, each of which isolates one capability of a mask, an encoding or a depth."""
