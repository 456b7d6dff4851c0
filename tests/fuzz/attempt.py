"""One file loaded and run: success, a typed error, or a finding."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import specee
from specee.errors import (
    CapacityError,
    CheckpointError,
    NumericalError,
    OutOfMemoryError,
    SpeceeError,
)

# What a file may be to blame for. CapacityError: its context may be shorter than the text asked for.
BLAMED = (CheckpointError, NumericalError, OutOfMemoryError, CapacityError)

# One case may take this much, on a slow machine and under a sanitizer. The files are below a megabyte.
SECONDS = 20.0
MEGABYTES = 256.0
_TOKENS = 2


@dataclass(frozen=True)
class Outcome:
    """``result`` is "loaded" or the name of the typed error; ``fault`` what must not be, or empty."""

    result: str
    fault: str = ""


def attempt(path: Path) -> Outcome:
    """Load the file with the C++ backend and decode a little."""
    reset_peak()
    begin, before = time.monotonic(), peak_megabytes()
    try:
        model = specee.load(path, backend="cpu", threads=2)
        last = model.config.vocab_size - 1
        model.generate([0, last, last // 2], max_new_tokens=_TOKENS, do_sample=False)
        result, fault = "loaded", ""
    except SpeceeError as error:
        result = type(error).__name__
        fault = (
            "" if isinstance(error, BLAMED) and str(error) else f"not the file's: {traceback.format_exc()}"
        )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        return Outcome(type(error).__name__, f"not a typed error: {traceback.format_exc()}")
    seconds, megabytes = time.monotonic() - begin, peak_megabytes() - before
    if seconds > SECONDS:
        fault = f"took {seconds:.1f} s, more than {SECONDS:.0f}"
    if megabytes > MEGABYTES:
        fault = f"took {megabytes:.0f} MB, more than {MEGABYTES:.0f}"
    return Outcome(result, fault)


def reset_peak() -> None:
    """Start measuring the peak of resident memory anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> float:
    """The most that was resident since."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM: this runs on Linux only")
