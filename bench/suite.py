"""What ``specee bench`` runs, part by part; what is done is on disk, whatever becomes of the rest.

A part that cannot run here is left out with its reason; one that fails is recorded as failed, and the others
still run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specee.errors import BackendUnavailableError, ConfigurationError, SpeceeError
from specee.models.checkpoint import open_checkpoint

from . import kernel_suite, machine, prompts
from .decode import batch, contenders, formats, rows, speed
from .report.document import Report, reason


@dataclass(frozen=True)
class Settings:
    """What the user chose. ``contenders`` None means all that are installed.

    ``device`` "cuda" measures there, which the parts in ``ON_DEVICE`` can.
    """

    threads: int
    model: str | None = None
    prompts: tuple[Path, ...] = ()
    contenders: tuple[str, ...] | None = None
    quick: bool = False
    device: str = "cpu"

    @property
    def files(self) -> list[Path] | None:
        """Prompt files as the measurements take them."""
        return list(self.prompts) or None


def check(settings: Settings) -> None:
    """Find out what cannot work before anything is measured. Raises a SpeceeError."""
    contenders_here(settings)
    prompts.load(settings.files)
    open_checkpoint(settings.model)


def parts_of(device: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Those that were asked for, or all that measure ``device``. Raises ConfigurationError for others."""
    able = tuple(PARTS) if device == "cpu" else ON_DEVICE
    if wrong := [name for name in asked or () if name not in able]:
        raise ConfigurationError(
            f"--part {wrong[0]} measures the CPU: allowed with --device {device} is {', '.join(able)}"
        )
    return tuple(dict.fromkeys(asked or able))


def run(settings: Settings, names: tuple[str, ...], output: Path) -> Report:
    """Run the named parts, writing ``output`` (JSON) after each. Raises what :func:`check` raises."""
    check(settings)
    described, parts = machine.describe(), {}
    output.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        start = time.perf_counter()
        _say(f"{name} ...")
        parts[name] = _part(name, settings)
        recorded = {"machine": described, "quick": settings.quick, "parts": parts}
        output.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
        _say(f"{name} {reason(parts[name]) or f'took {time.perf_counter() - start:.0f} s'}")
    return Report(described, parts)


def _part(name: str, settings: Settings) -> dict[str, Any]:
    try:
        return PARTS[name](settings)
    except BackendUnavailableError as error:
        return {"left_out": str(error)}
    except (SpeceeError, RuntimeError) as error:
        return {"error": str(error)}


def contenders_here(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Who takes part, and why others do not.

    Raises ConfigurationError for a name that means nothing, BackendUnavailableError for one that was asked
    for and cannot run.
    """
    usual = contenders.DEFAULT if settings.device == "cpu" else contenders.ON_DEVICE
    good, missing = contenders.usable(settings.contenders or usual)
    if missing and (settings.contenders or not good):
        raise BackendUnavailableError("; ".join(missing.values()))
    return good, missing


def _speed(settings: Settings) -> dict[str, Any]:
    good, missing = contenders_here(settings)
    result = speed.measure(
        good,
        model=settings.model,
        threads=settings.threads,
        rounds=1 if settings.quick else 3,
        tokens=48 if settings.quick else 96,
        files=settings.files,
        most_prompts=4 if settings.quick else None,
        with_memory=settings.device == "cpu",  # it is the host's that is measured
        lenient=settings.contenders is None,
    )
    return {**result, "missing": missing | result["missing"]}


def _rows(settings: Settings) -> dict[str, Any]:
    return rows.measure(
        _weights(settings),
        model=settings.model,
        threads=settings.threads,
        repeats=16 if settings.quick else 60,
        contexts=rows.CONTEXTS[:2] if settings.quick else rows.CONTEXTS,
    )


def _batch(settings: Settings) -> dict[str, Any]:
    return batch.measure(
        _weights(settings),
        model=settings.model,
        threads=settings.threads,
        rounds=2 if settings.quick else 5,
        tokens=32 if settings.quick else 64,
        files=settings.files,
    )


def _weights(settings: Settings) -> list[str]:
    return ["auto"] if settings.quick else ["auto", "bf16"]


def _formats(settings: Settings) -> dict[str, Any]:
    return formats.measure(
        formats.default_weights(settings.model),
        model=settings.model,
        threads=settings.threads,
        rounds=1 if settings.quick else 2,
        new_tokens=32 if settings.quick else 64,
        tokens=2_048 if settings.quick else 20_000,
        files=settings.files,
        most_prompts=3 if settings.quick else None,
    )


def _kernels(settings: Settings) -> dict[str, Any]:
    return kernel_suite.measure(threads=settings.threads, quick=settings.quick)


def _say(text: str) -> None:
    print(f"specee bench: {text}", file=sys.stderr)


ON_DEVICE = ("speed",)
PARTS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "speed": _speed,
    "rows": _rows,
    "batch": _batch,
    "formats": _formats,
    "kernels": _kernels,
}
