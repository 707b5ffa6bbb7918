"""Classical baselines without a neural network, which a trained network should beat."""
