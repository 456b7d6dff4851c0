"""How close decoding comes to the speed of memory, the limit of a single sequence."""

from __future__ import annotations

from specee import env
from specee.backends import Backend, missing

_SWEEP_BYTES = 512 << 20


def measure(threads: int | None = None) -> float | None:
    """Read-only memory bandwidth in GB/s with as many threads as the engine has; None without the engine."""
    if missing("cpu") is not None:
        return None
    from specee import _cpu

    return _cpu.measure_bandwidth(_SWEEP_BYTES, env.resolve_threads(threads), env.force_isa())


def share(backend: Backend, tokens_per_second: float, drafted: int) -> str | None:
    """Bandwidth that plain decoding at this speed uses, in words; None where it is not known.

    Counts the weights, which each token reads once; the KV cache comes on top. With ``drafted`` tokens it is
    not known: drafting reads some layers more often, and one verification serves several tokens.
    """
    if drafted:
        return None
    step_bytes = getattr(backend, "step_bytes", None)
    peak = measure(getattr(backend, "threads", None)) if backend.name == "cpu" else None
    if step_bytes is None or peak is None or tokens_per_second == 0:
        return None
    used = step_bytes * tokens_per_second / 1e9
    return f"{used:.1f} of {peak:.1f} GB/s, {used / peak:.0%} of measured memory bandwidth"
