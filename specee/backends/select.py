"""Which backend to use, and why another cannot be: the one place that knows them all."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from specee import cuda, env
from specee.backends.protocol import Backend
from specee.errors import BackendUnavailableError, ConfigurationError
from specee.models.table import Key, Slab
from specee.types import ModelConfig, WeightFormat

if TYPE_CHECKING:
    from torch import Tensor


def missing(name: str) -> str | None:
    """Why backend ``name`` cannot run here, or None when it can. Raises ConfigurationError if unknown."""
    if _known(name) == "cuda":
        return cuda_missing() or _kernels_missing()
    module, advice = {
        "cpu": ("specee._cpu", "reinstall specee from a wheel, or with a C++17 compiler present"),
        "reference": ("torch", 'install it with: pip install "specee[hf]"'),
    }[name]
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a library it was built with is gone
        return f"{module} cannot be imported ({error}); {advice}"
    return None


def choose(device: str = "cpu", backend: str | None = None) -> str:
    """The backend's name: the argument, else SPECEE_BACKEND, else that of the kind of device.

    Raises ConfigurationError for a name or device that does not exist, BackendUnavailableError for one
    that this machine or build does not have.
    """
    kind = device.partition(":")[0]
    if re.fullmatch(r"cpu|cuda(:\d+)?", device) is None:
        raise ConfigurationError(f"device={device!r}: allowed are 'cpu', 'cuda' and 'cuda:<index>'")
    name = _known(backend) if backend is not None else env.backend()
    name = name or kind
    if name not in (kind, "reference"):
        source, advice = "backend", "use backend='reference'"
        if backend is None:
            source, advice = "SPECEE_BACKEND", "unset it, set it to 'reference', name another backend="
        raise ConfigurationError(
            f"{source}={name!r} cannot run on device={device!r}: {advice} or device={name!r}"
        )
    reason = missing(name) or (cuda_missing() if kind == "cuda" else None)
    if reason is not None:
        other = "" if name == "reference" or cuda_missing() or kind == "cpu" else _OTHER
        raise BackendUnavailableError(
            f"backend {name!r} on device {device!r} is not available: {reason}{other}"
        )
    return name


def numbered(device: str) -> str:
    """``device`` by its index: ``cuda`` is the one that is torch's current device now."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{torch.cuda.current_device()}"


def make_backend(
    config: ModelConfig,
    slabs: Iterable[Slab],
    weights: WeightFormat,
    formats: Mapping[Key, str] | None = None,
    *,
    device: str = "cpu",
    backend: str | None = None,
    threads: int | None = None,
    given: Mapping[Key, Tensor] | None = None,
) -> Backend:
    """Load ``slabs`` into the backend that :func:`choose` picks. ``threads`` is for the native one.

    ``formats``: what every matrix is stored in, needed for ``packed`` weights. ``given``: tensors on the
    device, which the cuda backend uses where they are; ``slabs`` has the others then.
    """
    name = choose(device, backend)
    if name == "reference":
        from specee.backends.reference import ReferenceBackend

        return ReferenceBackend(config, slabs, weights, formats, device=device)
    if name == "cuda":
        from specee.backends.cuda import CudaBackend

        return CudaBackend(config, slabs, weights, formats, device=device, given=given)
    from specee.backends.cpu import CpuBackend

    return CpuBackend(config, slabs, weights, formats, threads=threads)


_OTHER = "; backend='reference' runs there with torch alone"


def _kernels_missing() -> str | None:
    """Why the kernels cannot be had, or None when they can in some way."""
    reasons = [cuda.missing(way) for way in cuda.WAYS]
    return None if None in reasons else "; ".join(reason for reason in reasons if reason is not None)


def _known(name: str) -> str:
    if name not in env.BACKENDS:
        raise ConfigurationError(f"backend={name!r}: allowed are {', '.join(env.BACKENDS)}")
    return name


def cuda_missing() -> str | None:
    """Why device ``cuda`` cannot be used, or None when it can."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library it was built with is gone
        return f'torch cannot be imported ({error}); install it with: pip install "specee[hf]"'
    if torch.cuda.is_available():
        return None
    return "torch finds no CUDA device" if torch.version.cuda else "this torch is built without CUDA"
