"""The claims of "Transformers are Graph Neural Networks" (Joshi 2025, arXiv 2506.22084), each a command."""
