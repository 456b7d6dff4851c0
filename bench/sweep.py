"""The bandwidth of memory just now: a read-only sweep over more than any cache holds."""

from __future__ import annotations

SWEEP_BYTES = 512 << 20


def bandwidth(threads: int) -> float:
    """GB/s."""
    from specee import _cpu, env

    return _cpu.measure_bandwidth(SWEEP_BYTES, threads, env.force_isa())
