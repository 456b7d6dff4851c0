"""The folders bench/ and triton_kernels/ under the names they are installed by, for tests of the source
tree."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("bench", "triton_kernels")


def provide() -> None:
    """Make ``specee.bench`` and ``specee.triton_kernels`` importable where specee is the source tree itself.

    Does nothing where they are installed, and nothing where an installed package is under test: one that
    lacks them must fail.
    """
    import specee

    if os.environ.get("SPECEE_TEST_INSTALLED") == "1":
        return
    for folder in FOLDERS:
        name = f"specee.{folder}"
        if importlib.util.find_spec(name) is not None:
            continue
        path = ROOT / folder
        spec = importlib.util.spec_from_file_location(
            name, path / "__init__.py", submodule_search_locations=[str(path)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        setattr(specee, folder, module)
