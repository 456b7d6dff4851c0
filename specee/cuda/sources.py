"""Where the device code is, and how it is compiled at run time."""

from __future__ import annotations

from pathlib import Path

from specee.errors import BackendUnavailableError

PROGRAM = '#include "kernels.cuh"\n'
# Nothing is contracted: a fused multiply-add is written out (docs/numerics.md).
OPTIONS = ("--std=c++17", "--fmad=false")


def folders() -> tuple[Path, Path]:
    """The folder of kernels.cuh, and the one that ``specee/tiles.h`` is in: the package's, or the checkout's.

    Raises BackendUnavailableError.
    """
    here = Path(__file__).resolve().parent
    checkout = here.parents[1] / "csrc"
    for found in ((here / "kernels", here / "include"), (checkout / "cuda", checkout / "include")):
        if (found[0] / "kernels.cuh").is_file() and (found[1] / "specee" / "tiles.h").is_file():
            return found
    raise BackendUnavailableError(f"kernels.cuh is neither in {here} nor in {checkout}: reinstall specee")


def include_options() -> tuple[str, ...]:
    """Compiler options that make ``PROGRAM`` find its files."""
    return tuple(f"-I{folder}" for folder in folders())
