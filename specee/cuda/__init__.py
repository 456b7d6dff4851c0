"""CUDA kernels (csrc/cuda) from Python: compiled by nvcc into ``specee._cuda``, or by NVRTC when needed.

Nothing here allocates: every op writes into arrays that it is given, so that it can be captured into a graph.
Arrays are torch tensors, CuPy arrays or whatever has ``__cuda_array_interface__``; bf16 may come as uint16.
"""

from __future__ import annotations

from specee.cuda.choice import WAYS, Chosen, choose, missing

__all__ = ["WAYS", "Chosen", "choose", "missing"]
