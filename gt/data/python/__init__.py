"""Functions of Python's standard library, as trees or as tokens."""
