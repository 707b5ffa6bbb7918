"""The Open Graph Benchmark, read from its raw files."""
