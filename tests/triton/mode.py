"""Whether this process interprets kernels or runs them on a device: Triton decides that once, when it is
imported.

On a machine with a GPU the tests run there; ``SPECEE_TEST_TRITON=interpret`` has them interpreted instead.
"""

from __future__ import annotations

import os
import sys

import torch

MODES = ("interpret", "cuda")


def mode() -> str:
    """``interpret`` or ``cuda``."""
    asked = os.environ.get("SPECEE_TEST_TRITON")
    if asked is not None and asked not in MODES:
        raise ValueError(f"SPECEE_TEST_TRITON={asked!r}: allowed are {' and '.join(MODES)}")
    return asked or ("cuda" if torch.cuda.is_available() else "interpret")


def prepare() -> None:
    """Set what Triton reads; before anything imports it.

    Raises RuntimeError where something has, and Triton's own functions would be compiled ones.
    """
    if mode() == "interpret":
        early = "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1"
        if early:
            raise RuntimeError(
                "triton was imported before tests/triton could have it interpret: import it later"
            )
        os.environ["TRITON_INTERPRET"] = "1"
    else:
        os.environ.pop("TRITON_INTERPRET", None)


def why_not(device: str) -> str | None:
    """Why tests on that device do not run in this process; None if they do."""
    if device == mode():
        return None
    if device == "interpret":
        return "the kernels run on the GPU here: SPECEE_TEST_TRITON=interpret interprets them"
    if not torch.cuda.is_available():
        return "needs an NVIDIA GPU that torch can use, and there is none"
    return "the kernels are interpreted here: unset SPECEE_TEST_TRITON to run them on the GPU"
