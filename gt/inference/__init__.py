"""What a trained network is used for: exact inference on large graphs, decoding, the look into attention."""
