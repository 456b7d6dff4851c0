"""Dependencies point one way; read from the sources, so that imports inside functions count too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.project import ROOT

# Package -> what no module of it may import, anywhere. A package that is not listed may import all.
OUTER = ["specee.integrations", "specee.fitting", "specee.cli"]
OTHERS = ["specee.drafting", "specee.engine", "specee.replay"]
LOOP = ["specee.acceptance", *OTHERS]
HEAVY = ["numpy", "torch", "transformers"]
FORBIDDEN = {
    "specee.errors": ["specee", *HEAVY],
    "specee.types": [
        *("specee.models", "specee.sampling", "specee.policies", "specee.backends", *LOOP),
        *OUTER,
        *HEAVY,
    ],
    "specee.policies": [
        "specee.models",
        "specee.sampling",
        "specee.backends",
        *LOOP,
        *OUTER,
        *HEAVY,
    ],
    "specee.models": ["specee.policies", "specee.backends", *LOOP, *OUTER],
    "specee.backends": ["specee.policies", *LOOP, *OUTER],
    "specee.cuda": [
        *("specee.models", "specee.policies", "specee.backends", "specee.sampling", *LOOP),
        *("torch", "transformers", *OUTER),
    ],
    "specee.ngrams": ["specee", *HEAVY],
    "specee.sampling": ["specee.models", "specee.policies", "specee.backends", *LOOP, *OUTER],
    "specee.acceptance": ["specee.models", "specee.policies", "specee.backends", *OTHERS, *OUTER],
    "specee.clock": ["specee.models", "specee.backends", *LOOP, *OUTER],
    "specee.stopping": ["specee.models", "specee.policies", "specee.backends", *LOOP, *OUTER],
    "specee.options": ["specee.models", "specee.policies", "specee.backends", *OTHERS, *OUTER],
    "specee.drafting": ["specee.engine", "specee.replay", *OUTER],
    "specee.engine": ["specee.replay", *OUTER],
    "specee.replay": OUTER,
    **{
        f"specee.replay.{name}": [
            *("specee.models", "specee.backends", "specee.acceptance", "specee.engine"),
            *("torch", "transformers", *OUTER),
        ]
        for name in ("trace", "files", "drafts", "looks", "prices", "result", "simulate", "statics", "splice")
    },
    "specee.integrations": ["specee.cli"],
    "specee.fitting": ["specee.cli", "specee.integrations", "transformers"],
    # Below everything but errors: a launcher sees tensors and nothing else.
    "specee.triton_kernels": [
        *("specee.types", "specee.models", "specee.sampling", "specee.policies", "specee.backends", *LOOP),
        *("specee.env", "numpy", "transformers", *OUTER),
    ],
    # Relative imports only: the folder bench/ has two names. Tests are not installed.
    "specee.bench": ["specee.cli", "bench", "tests"],
}
# The suite is above everything: nothing knows of it but its command.
SUITE, ITS_COMMAND = "specee.bench", "specee.cli.bench"
# What policies may have of the extension: decisions, not what computes.
DECISIONS = ("specee._cpu.ExitDrafts", "specee._cpu.RoundCosts")
# Modules that may import the optional extras when they are imported themselves.
NEEDS_EXTRAS = re.compile(
    r"specee\.(backends\.(reference|cuda|head_verbs|drafter_verbs)|cuda\.nvrtc|integrations|bench\.kernels|bench\.decode\.exactness"
    r"|triton_kernels\.|fitting\.(adapter_judging|adapter_samples|adapter_training|adapters|batches|block|distillation|drafter|exit_samples|exit_training|exits|frozen)"
    r"|fitting\.(judging|kept_training|pipeline|precision|training))"
)
EXTRAS = ("torch", "triton", "transformers", "matplotlib", "llama_cpp", "cupy")
# The bare name belongs to another distribution.
NEVER = "triton_kernels"


def inside(name: str, package: str) -> bool:
    """Whether module ``name`` is ``package`` or in it."""
    return name == package or name.startswith(package + ".")


def imported(node: ast.AST, module: str) -> list[str]:
    """Absolute names of the modules that one node imports (``from a import b`` gives a and a.b)."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parents = module.split(".")[: -node.level]
        base = ".".join([*parents, *([node.module] if node.module else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def at_import_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: not inside functions, not for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from at_import_time(node)


def violations(module: str, source: str) -> list[str]:
    """What ``module`` imports against the rules."""
    tree = ast.parse(source)
    banned = [f for package, names in FORBIDDEN.items() if inside(module, package) for f in names]
    banned.append(NEVER)
    if not inside(module, SUITE) and module != ITS_COMMAND:
        banned.append(SUITE)
    every = [name for node in ast.walk(tree) for name in imported(node, module)]
    wrong = [name for name in every if any(inside(name, package) for package in banned)]
    if inside(module, "specee.policies"):
        decided = {name for name in every if name in DECISIONS}
        allowed = {*decided, "specee._cpu"} if decided else set()  # the module is named with what is of it
        wrong += [name for name in every if inside(name, "specee._cpu") and name not in allowed]
    if not NEEDS_EXTRAS.match(module):
        early = [name for node in at_import_time(tree) for name in imported(node, module)]
        wrong += [name for name in early if any(inside(name, extra) for extra in EXTRAS)]
    return wrong


def modules() -> dict[str, Path]:
    """Every module of the package by dotted name (an ``__init__`` keeps its last part)."""
    files = sorted((ROOT / "specee").rglob("*.py"))
    found = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in files}
    moved = [*(ROOT / "bench").rglob("*.py"), *(ROOT / "triton_kernels").rglob("*.py")]  # installed in specee
    return found | {
        ".".join(("specee", *p.relative_to(ROOT).with_suffix("").parts)): p for p in sorted(moved)
    }


@pytest.mark.parametrize("module", modules())
def test_imports_point_one_way(module: str) -> None:
    assert violations(module, modules()[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("specee.policies.greedy", "import numpy as np"),
        ("specee.policies.greedy", "def f():\n    from specee.backends import cpu"),
        ("specee.policies.greedy", "from ..backends import cpu"),
        ("specee.policies.greedy", "from specee import engine"),
        ("specee.policies.greedy", "def f():\n    from specee._cpu import Engine"),
        ("specee.policies.greedy", "def f():\n    from specee import _cpu"),
        ("specee.types", "import numpy"),
        ("specee.ngrams", "from specee.policies import NgramLookup"),
        ("specee.cuda.linear", "import cupy"),
        ("specee.cuda.linear", "def f():\n    import torch"),
        ("specee.backends.cpu", "from specee.engine.loop import Loop"),
        ("specee.backends.cpu", "import torch.nn"),
        ("specee.engine.loop", "from specee import cli"),
        ("specee.drafting.tree", "from specee.engine import Request"),
        ("specee.acceptance", "from specee.backends.protocol import Backend"),
        ("specee.models.hf", "class A:\n    import transformers"),
        ("specee.cli.info", "def f():\n    from specee.bench import machine"),
        ("specee.replay.simulate", "from specee.engine import Request"),
        ("specee.fitting.writer", "import torch"),
        ("specee.fitting.training", "from specee.cli import common"),
        ("specee.bench.decode.speed", "from bench import machine"),
        ("specee.bench.decode.llama_peer", "import llama_cpp"),
        ("specee.bench.kernels.triton.gpu", "import triton_kernels.scoring"),
        ("specee.engine.loop", "import triton"),
        ("specee.triton_kernels.scoring", "from specee.types import Sampling"),
        ("specee.triton_kernels.__init__", "import triton_kernels"),
    ],
)
def test_a_wrong_import_is_noticed(module: str, source: str) -> None:
    assert violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("specee.engine.loop", "from specee.backends.protocol import Backend"),
        ("specee.models.hf", "def f():\n    import torch"),
        ("specee.models.hf", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("specee.backends.reference.ops", "import torch"),
        ("specee.fitting.training", "import torch"),
        ("specee.replay.record", "from specee.engine import LatencyMeter"),
        ("specee.replay.drafts", "from specee.ngrams import NgramIndex"),
        ("specee.policies.greedy", "from specee.types import Sampling"),
        ("specee.policies.greedy", "def f():\n    from specee._cpu import ExitDrafts"),
        ("specee.cli.bench", "def f():\n    from specee.bench import suite"),
        ("specee.bench.decode.speed", "from .. import machine"),
        ("specee.triton_kernels.scoring", "import triton\nfrom specee.errors import KernelArgumentError"),
        ("specee.bench.kernels.triton.test_cache", "from specee.triton_kernels.compaction import compact"),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    assert violations(module, source) == []


INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
NATIVE_FORBIDDEN = {
    "csrc/include": r"cpu/|policy/|bindings/|cuda/|\.\./|Python\.h|pybind11|torch/|ATen/|c10/",
    "csrc/policy": r"cpu/|bindings/|cuda/|graph/|\.\./|Python\.h|pybind11|torch/|ATen/|c10/",
    "csrc/cpu": r"policy/|bindings/|cuda/|Python\.h|pybind11|torch/|ATen/|c10/",
    "csrc/graph": r"cpu/|policy/|bindings/|cuda/|cuda\.h|\.\./|Python\.h|pybind11|torch/|ATen/|c10/",
    "csrc/cuda": r"graph/|policy/|cpu/|bindings/|\.\./|Python\.h|pybind11|torch/|ATen/|c10/",
    "csrc/bindings": r"torch/|ATen/|c10/|cuda_runtime|.*\.cuh",
}


def wrong_includes(folder: str, text: str) -> list[str]:
    """Headers that a file in ``folder`` may not include."""
    return [name for name in INCLUDE.findall(text) if re.match(NATIVE_FORBIDDEN[folder], name)]


@pytest.mark.parametrize("folder", NATIVE_FORBIDDEN)
def test_native_includes_point_one_way(folder: str) -> None:
    files = [p for p in (ROOT / folder).rglob("*") if p.suffix in {".h", ".hpp", ".cpp", ".cuh", ".cu"}]
    assert files
    wrong = {p.name: wrong_includes(folder, p.read_text()) for p in files}
    assert {name: headers for name, headers in wrong.items() if headers} == {}


def test_a_wrong_include_is_noticed() -> None:
    assert wrong_includes("csrc/include", '#include "cpu/kernels.h"\n') == ["cpu/kernels.h"]
    assert wrong_includes("csrc/cpu", "#  include <pybind11/pybind11.h>\n") == ["pybind11/pybind11.h"]
    assert wrong_includes("csrc/policy", '#include "cpu/sequence.h"\n') == ["cpu/sequence.h"]
    assert wrong_includes("csrc/include", '#include "specee/numerics.h"\n#include <vector>\n') == []
