"""Triton kernels, one op per file, installed as ``specee.triton_kernels``.

The bare name ``triton_kernels`` belongs to another distribution: never import this folder by it. Each module
holds an op's formula, its kernels and a launcher that checks what it is given; importing one needs torch and
triton (``pip install "specee[triton]"``), importing this package needs neither.

What all of them promise: a row's result is the same to the bit whatever rows share its launch. Tiles depend
on dtypes and weight shapes, never on the number of rows; every sum has one order; no atomics.
"""
