"""How the kernels get onto the device of this machine: compiled, through NVRTC, or not at all and why."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from specee.cuda.launcher import Launcher
from specee.errors import BackendUnavailableError

WAYS = ("compiled", "nvrtc")  # the first that can be had is taken


@dataclass(frozen=True)
class Chosen:
    """``how``: one of ``WAYS``."""

    how: str
    launcher: Launcher


def missing(how: str) -> str | None:
    """Why kernels cannot be had that way, one of ``WAYS``, or None when they can."""
    return {"compiled": _compiled_missing, "nvrtc": _nvrtc_missing}[how]()


def choose() -> Chosen:
    """The compiled kernels, else those of NVRTC. Raises BackendUnavailableError, with a reason for each."""
    compiled = missing("compiled")
    if compiled is None:
        from specee.cuda.compiled import CompiledLauncher

        return Chosen("compiled", CompiledLauncher())
    nvrtc = missing("nvrtc")
    if nvrtc is None:
        from specee.cuda.nvrtc import NvrtcLauncher

        return Chosen("nvrtc", NvrtcLauncher())
    raise BackendUnavailableError(f"CUDA kernels are not available: {compiled}; {nvrtc}")


def _compiled_missing() -> str | None:
    try:
        module = importlib.import_module("specee._cuda")
    except (ImportError, OSError) as error:  # OSError: a library it was built with is gone
        return f"specee._cuda cannot be imported ({error}); reinstall specee with nvcc present"
    count, why = module.device_count()
    return None if count else f"specee._cuda finds no device ({why or 'none is there'})"


def _nvrtc_missing() -> str | None:
    try:
        cupy = importlib.import_module("cupy")
    except (ImportError, OSError) as error:
        return f'cupy cannot be imported ({error}); install it with: pip install "specee[cuda]"'
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"cupy finds no device ({error})"
    return None if count else "cupy finds no device"
