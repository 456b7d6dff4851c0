"""Microbenchmarks of the Triton kernels beside torch, on an NVIDIA GPU; skipped, with the reason, where there
is none.

    pytest bench/kernels/triton [--quick] [--benchmark-json=FILE]

Each case first checks its result against :mod:`..torch_references`, then takes turns with torch. Calls are
captured in CUDA graphs, as a decoder's are, and go round copies of their weights that are twice the L2 cache
together, so that weights come from memory.
"""
