"""One large graph: targets at its nodes or links, sampled for training."""
