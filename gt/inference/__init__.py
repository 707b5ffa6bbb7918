"""Uses of a trained network: exact inference on large graphs, decoding, analysis and attribution."""
