"""The Open Graph Benchmark, read from its raw files."""

import sys

# importing ogb starts a thread that queries PyPI for a newer release, without a timeout, unless `outdated` is missing
sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
