"""C kernels for the CPU, which fuse what PyTorch computes in many passes over memory."""
