"""Settings of the whole suite."""

from __future__ import annotations

import importlib.util
import os
import signal

import hypothesis
import pytest

from tests import source_folders

source_folders.provide()

if all(importlib.util.find_spec(name) is not None for name in ("torch", "triton")):
    from tests.triton import mode

    mode.prepare()  # before transformers, or anything else, imports Triton

# A shell starts what it puts into the background deaf to Ctrl-C, and everything started from there.
signal.signal(signal.SIGINT, signal.default_int_handler)

# With a process of tests on every core, threads of one would wait for those of another. For fixtures, too.
SHARED = "PYTEST_XDIST_WORKER" in os.environ
if SHARED:
    os.environ["SPECEE_NUM_THREADS"] = "1"

# Wall-clock limits on examples make tests depend on the machine's load.
hypothesis.settings.register_profile("specee", deadline=None, print_blob=True)
hypothesis.settings.load_profile("specee")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's settings must not steer a test; those of the test run itself stay."""
    for name in ("SPECEE_BACKEND", "SPECEE_FORCE_ISA", *(() if SHARED else ("SPECEE_NUM_THREADS",))):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def few_torch_threads() -> None:
    """Tiny models gain nothing from torch's threads and suffer when tests share the machine."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
