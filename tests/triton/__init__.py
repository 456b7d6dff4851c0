"""Triton kernels against their references: interpreted on CPU tensors, and on a GPU where there is one."""
