"""Kernels in C for a CPU: what PyTorch computes in many passes over memory, in one."""
