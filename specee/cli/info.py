"""``specee info``: what this installation can do on this machine, and why it cannot do the rest."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator

from specee import cuda, env
from specee._version import __version__
from specee.backends import missing
from specee.backends.select import cuda_missing
from specee.cli import bandwidth
from specee.cuda import graph
from specee.models.default_model import DEFAULT_MODEL, cache_folder

_OPTIONAL = {"torch": "hf", "transformers": "hf"}


def run() -> int:
    """Run the command; returns the exit code."""
    lines = [
        (
            "specee",
            f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        ),
        *_backends(),
        *_instruction_sets(),
        ("threads", _threads()),
        ("bandwidth", _bandwidth()),
        ("default model", _default_model()),
        *_packages(),
    ]
    for name, value in lines:
        print(f"{name:<18} {value}")
    return 0


def _backends() -> Iterator[tuple[str, str]]:
    forced = env.backend()
    for name in env.BACKENDS:
        reason = missing(name)
        state = "available" if reason is None else f"missing: {reason}"
        yield f"backend {name}", state + (" (forced by SPECEE_BACKEND)" if forced == name else "")
    yield (
        "device cuda",
        f"missing: {reason}" if (reason := cuda_missing()) else "available",
    )
    yield "kernels cuda", _cuda_kernels()
    reason = graph.missing()
    yield "graphs cuda", "available" if reason is None else f"missing: {reason}"


def _cuda_kernels() -> str:
    reasons: list[str] = []
    for how in cuda.WAYS:
        reason = cuda.missing(how)
        if reason is None:
            return f"{how} ({'; '.join(reasons) or 'specee._cuda'})"
        reasons.append(reason)
    return f"missing: {'; '.join(reasons)}"


def _instruction_sets() -> Iterator[tuple[str, str]]:
    if missing("cpu") is not None:
        return
    from specee import _cpu

    forced = env.force_isa()
    yield "isa", _cpu.select_isa(forced) + (" (forced by SPECEE_FORCE_ISA)" if forced else "")
    yield "  compiled", ", ".join(_cpu.compiled_isas())
    yield "  supported", ", ".join(_cpu.supported_isas())


def _threads() -> str:
    count = env.resolve_threads()
    return f"{count} ({'SPECEE_NUM_THREADS' if env.num_threads() else 'physical cores of this process'})"


def _bandwidth() -> str:
    speed = bandwidth.measure()
    return "not measured without the cpu backend" if speed is None else f"{speed:.1f} GB/s, read-only"


def _default_model() -> str:
    path = cache_folder() / "models" / DEFAULT_MODEL.file
    if not path.is_file():
        return f"not fetched yet; the first use fetches it to {path}"
    size = path.stat().st_size
    return (
        str(path)
        if size == DEFAULT_MODEL.size
        else f"damaged ({size} bytes), fetched anew on next use: {path}"
    )


def _packages() -> Iterator[tuple[str, str]]:
    for name in ("numpy", "tokenizers", "safetensors", "gguf", *_OPTIONAL):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            extra = _OPTIONAL.get(name)
            yield name, f'missing; pip install "specee[{extra}]"' if extra else "missing; reinstall specee"
