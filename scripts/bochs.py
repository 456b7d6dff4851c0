"""The processor of the Bochs emulator (package bochscpu-python), as a model that has AVX-512 BF16."""

from __future__ import annotations

import ctypes
import importlib
import struct
import subprocess
from pathlib import Path
from types import ModuleType

# The package always makes the first of these models; the second has all the instruction sets we compile for.
BUILT_IN_MODEL = "_Z23create_corei3_cnl_cpuidP8BX_CPU_C"
WANTED_MODEL = "_Z28create_sapphire_rapids_cpuidP8BX_CPU_C"

# C23 names that glibc has from 2.38 on, and that the package was linked against.
COMPATIBILITY = """
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
unsigned long long __isoc23_strtoull(const char* text, char** end, int base) {
  return strtoull(text, end, base);
}
int __isoc23_sscanf(const char* text, const char* format, ...) {
  va_list list;
  va_start(list, format);
  const int count = vsscanf(text, format, list);
  va_end(list);
  return count;
}
"""


def provide_c23_names(work: Path) -> None:
    """Make the C23 names known to libraries loaded from here on, if the C library lacks them."""
    if hasattr(ctypes.CDLL(None), "__isoc23_strtoull"):
        return
    source, library = work / "c23.c", work / "c23.so"
    source.write_text(COMPATIBILITY)
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library], check=True)
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def choose_model(module: ModuleType) -> None:
    """Put a jump to the wanted model's constructor over the start of the built-in one's."""
    library = ctypes.CDLL(module._bochscpu.__file__)

    def address(name: str) -> int:
        value = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        assert value is not None
        return value

    at, to = address(BUILT_IN_MODEL), address(WANTED_MODEL)
    page, read_write_execute = at & ~0xFFF, 7
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), ctypes.c_size_t(2 * 4096), read_write_execute) != 0:
        raise OSError("the system does not let Bochs's code be changed")
    ctypes.memmove(at, b"\xe9" + struct.pack("<i", to - (at + 5)), 5)


def load_bochs(work: Path) -> ModuleType:
    """The ``bochscpu`` module; ``work`` is a folder for what has to be built on the way."""
    provide_c23_names(work)
    module = importlib.import_module("bochscpu")
    for part in ("cpu", "memory"):
        importlib.import_module(f"bochscpu.{part}")
    choose_model(module)
    return module
