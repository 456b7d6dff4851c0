"""NVRTC from its pip wheel, or from a toolkit: compiles device code with neither headers nor a device."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

PROGRAM = '#include "kernels.cuh"\n'


def library() -> ctypes.CDLL | None:
    """libnvrtc of the wheel nvidia-cuda-nvrtc, else the system's; None without one."""
    found = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in (found.submodule_search_locations or [])] if found else []
    # NVRTC looks for its builtins by bare name: loaded here, they are found wherever the wheel is.
    for builtins in (p for folder in folders for p in folder.glob("*/lib/libnvrtc-builtins.so.*")):
        ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
    wheels = [str(p) for folder in folders for p in sorted(folder.glob("*/lib/libnvrtc.so.1*"))]
    for name in [*wheels, "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def version(nvrtc: ctypes.CDLL) -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    assert nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)) == 0
    return f"{major.value}.{minor.value}"


def compile_program(nvrtc: ctypes.CDLL, options: list[str], program: str = PROGRAM) -> tuple[int, str, bytes]:
    """Status (0 is success), the compiler's words, and the cubin or PTX, as ``--gpu-architecture`` has it."""
    handle = ctypes.c_void_p()
    source = program.encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(handle), source, b"kernels.cu", 0, None, None) == 0
    try:
        values = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        status: int = nvrtc.nvrtcCompileProgram(handle, len(options), values)
        log = fetch(nvrtc, handle, "ProgramLog").rstrip(b"\0").decode()
        if status != 0:
            return status, log, b""
        binary = any(o.startswith("--gpu-architecture=sm_") for o in options)
        return status, log, fetch(nvrtc, handle, "CUBIN" if binary else "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(handle))


def fetch(nvrtc: ctypes.CDLL, handle: ctypes.c_void_p, what: str) -> bytes:
    """One of NVRTC's pairs nvrtcGet<what>Size, nvrtcGet<what>."""
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(handle, ctypes.byref(size)) == 0
    data = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(handle, data) == 0
    return data.raw
