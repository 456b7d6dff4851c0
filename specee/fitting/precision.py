"""What products of training are computed in."""

from __future__ import annotations

import platform

import torch

_X86 = ("x86_64", "amd64", "i386", "i686")


def halves_are_fast() -> bool:
    """Whether the processor multiplies bf16 by instructions of its own.

    oneDNN says that it supports bf16 wherever there is AVX-512, and emulates the instructions where they are
    missing: a fourth of the speed of fp32 on an Ice Lake. Releases of torch that cannot tell get fp32.
    """
    if platform.machine().lower() not in _X86:
        supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return supported
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(each is not None and each() for each in asked)


PRODUCTS = torch.bfloat16 if halves_are_fast() else torch.float32
"""bf16 where that is faster than fp32."""


def autocast(*, enabled: bool = True) -> torch.autocast:
    """Products in :data:`PRODUCTS`, in what is done inside."""
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled and torch.bfloat16 == PRODUCTS)
