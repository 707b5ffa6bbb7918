"""``python -m gt.bench``: the cost of a training step, compared with standard PyG and PyTorch alternatives."""
