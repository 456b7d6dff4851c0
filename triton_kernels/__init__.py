"""Triton kernels, one op per file, installed as ``specee.triton_kernels``.

The bare name ``triton_kernels`` belongs to another distribution: never import this folder by it.
"""
