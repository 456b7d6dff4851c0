"""How each C++ file is compiled: read by setup.py and by scripts/native.py.

Code for one x86 instruction set is in files of its own, and only they get its flags. Everything else is
baseline code, so that one build runs on every processor.
"""

from __future__ import annotations

import sys
import sysconfig

INCLUDE = ["csrc/include", "csrc"]
COMMON = ["-std=c++17", "-pthread", "-ffp-contract=off", "-fvisibility=hidden", "-fvisibility-inlines-hidden"]
COMMON += ["-Wall", "-Wextra"]
RELEASE = ["-O3", "-g0"]
# Bindings that do no work of their own: most of what a compiler would do there is pybind11's templates.
UNHURRIED = ["-O1"]
X86_MACRO = ("SPECEE_X86", "1")

_AVX2 = ["-mavx2", "-mfma", "-mf16c"]
_AVX512 = [*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
# GCC 12 takes the undefined pass-through operand inside its own intrinsics for a mistake (GCC bug 105593);
# Clang does not know the warning.
_AVX512 += ["-Wno-unknown-warning-option", "-Wno-maybe-uninitialized", "-Wno-uninitialized"]
_VNNI = [*_AVX512, "-mavx512vnni"]
_ISA = {
    "_avx2.cpp": _AVX2,
    "_avx512.cpp": _AVX512,
    "_avx512vnni.cpp": _VNNI,
    "_avx512bf16.cpp": [*_VNNI, "-mavx512bf16"],
    "_amx.cpp": [*_VNNI, "-mamx-tile", "-mamx-bf16"],
}


def on_x86_64_linux() -> bool:
    """Whether the x86 instruction-set files are compiled; other platforms get the portable path."""
    return sysconfig.get_platform() == "linux-x86_64" and sys.maxsize > 2**32


def unhurried(source: str) -> list[str]:
    """Flags behind RELEASE of bindings whose speed does not matter, as their compilation's does."""
    return UNHURRIED if source.startswith("csrc/bindings/graph/") else []


def isa_flags(source: str) -> list[str] | None:
    """Flags of an x86 instruction-set file, by its suffix; None for a file of baseline code."""
    return next((flags for suffix, flags in _ISA.items() if source.endswith(suffix)), None)


def compiled(source: str) -> bool:
    """Whether this platform compiles ``source`` at all."""
    return on_x86_64_linux() or isa_flags(source) is None
