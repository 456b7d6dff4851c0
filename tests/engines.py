"""The backends present, for tests that run against every one; and how tests build them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from specee.backends.protocol import Backend
from tests.random_model import FILES, RandomModel


@dataclass(frozen=True)
class Engine:
    """A backend, and for the native one the instruction set to run it with.

    For ``cuda`` it is the way to its kernels: ``emulated`` on the host, or ``device``.
    """

    backend: str
    isa: str = ""

    @property
    def plain(self) -> tuple[str, str]:
        """A shape of model that it can run, and a choice of weights, for tests that want any."""
        return ("tiles", "bf16") if self.backend == "cuda" else ("llama", "fp32")

    @property
    def id(self) -> str:
        """Name for test ids."""
        return f"{self.backend}-{self.isa}" if self.isa else self.backend

    def load(self, model: RandomModel, kind: str = "fp32", threads: int = 1) -> Backend:
        """``model`` in this backend; ``kind`` is that of :func:`.random_model`."""
        weights, formats = ("packed", model.formats) if kind in FILES else (kind, None)
        if self.backend == "reference":
            from specee.backends.reference import ReferenceBackend

            return ReferenceBackend(model.config, model.slabs(), weights, formats)
        if self.backend == "cuda":
            return _cuda(model, weights, formats, self.isa)
        from specee.backends.cpu import CpuBackend

        isa = self.isa or None
        return CpuBackend(model.config, model.slabs(), weights, formats, threads=threads, isa=isa)


def _cuda(model: RandomModel, weights: str, formats: dict[tuple[str, int], str] | None, way: str) -> Backend:
    from specee.backends.cuda import CudaBackend
    from tests.cuda.emulator import LibraryLauncher, fresh_seed

    if way == "device":
        return CudaBackend(model.config, model.slabs(), weights, formats)
    launcher = LibraryLauncher(fresh_seed("order of threads"))
    return CudaBackend(model.config, model.slabs(), weights, formats, device="cpu", launcher=launcher)


def cuda_engines() -> list[object]:
    """The CUDA backend over the emulator, and on a device where there is one, as pytest parameters."""
    from specee.backends import missing
    from tests.cuda.emulator import compiler

    marks = []
    if compiler() is None:
        marks = [pytest.mark.skip(reason="no C++ compiler: the kernels' logic is not run on the host")]
    found = [pytest.param(Engine("cuda", "emulated"), id="cuda-emulated", marks=marks)]
    reason = missing("cuda")
    marks = [] if reason is None else [pytest.mark.skip(reason=f"no device: {reason}")]
    return [*found, pytest.param(Engine("cuda", "device"), id="cuda-device", marks=marks)]


# bf16 products of these are left to the processor's instructions for pairs, one row's and sixteen rows'.
PAIRWISE = ("avx512bf16", "amx")


def supported_isas() -> list[str]:
    """Instruction sets that the C++ backend has on this machine, slowest first; [] if it is not built."""
    try:
        from specee import _cpu
    except ImportError:
        return []
    return _cpu.supported_isas()


def native_engines() -> list[object]:
    """The C++ backend once for each instruction set of this machine, as pytest parameters.

    Without the extension: one parameter that is skipped, or that fails if SPECEE_REQUIRE_CPU=1.
    """
    try:
        from specee import _cpu
    except ImportError as error:
        marks = []
        if os.environ.get("SPECEE_REQUIRE_CPU") != "1":
            marks = [pytest.mark.skip(reason=f"specee._cpu is not built: {error}")]
        return [pytest.param(Engine("cpu"), id="cpu", marks=marks)]
    return [pytest.param(Engine("cpu", isa), id=f"cpu-{isa}") for isa in _cpu.supported_isas()]


def all_engines() -> list[object]:
    """Reference and native, as pytest parameters."""
    return [pytest.param(Engine("reference"), id="reference"), *native_engines()]
