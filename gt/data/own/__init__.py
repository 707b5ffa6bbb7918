"""Graphs of one's own: PyG datasets, CSV files, GraphML and JSON."""
