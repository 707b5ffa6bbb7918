"""The Open Graph Benchmark, read from its raw files."""

import sys

# importing ogb starts a thread that asks PyPI for a newer release, without a time-out; lacking `outdated` it does not
sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
