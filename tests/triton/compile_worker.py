"""Runs ``bench/kernels/triton_resources.py`` with the arguments given, in a process that interprets
nothing."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose modules are none of the worker's
    if os.environ.get("SPECEE_TEST_INSTALLED") != "1":
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
        from tests import source_folders

        source_folders.provide()
    runpy.run_module("specee.bench.kernels.triton_resources", run_name="__main__", alter_sys=True)
