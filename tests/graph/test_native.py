"""The builder's C++ by itself: under sanitizers, and its declarations beside CUDA's own header."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from tests.cuda.emulator import ROOT, compiler, fresh_seed
from tests.graph.fake_driver import FLAGS, SOURCES, Built, call_compiler

# Of the builder and of what calls it; the fake driver is what it is elsewhere, and keeps account by itself.
SANITIZED = ["-O0", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address", "-fno-sanitize-recover=all"]
SANITIZED += ["-fsanitize=undefined"]
BUILDER = sorted((ROOT / "csrc" / "graph").glob("*.cpp"))
pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


def soak(folder: Path, sources: list[Path], built: Built) -> Path:
    """The program of soak.cpp."""
    program = folder / "soak"
    flags = [flag for flag in FLAGS if flag not in ("-fPIC", "-fvisibility=hidden")]
    call_compiler(
        *flags, *SANITIZED, "-rdynamic", SOURCES / "soak.cpp", *sources, *built.objects, "-o", program, "-ldl"
    )
    return program


def test_nothing_leaks_whichever_call_fails(built: Built, tmp_path: Path) -> None:
    seed = fresh_seed("programs")
    program = soak(tmp_path, BUILDER, built)
    done = subprocess.run([program, str(seed), "12"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    failures = re.fullmatch(r"(\d+) failures\n", done.stdout)
    assert failures is not None
    assert int(failures[1]) > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("~OwnedGraph() { driver_->graph_destroy(graph_); }", "~OwnedGraph() {}"),
        ("::~RoundGraph() { ", "::~RoundGraph() { (*driver_)->executable_destroy(executable_); "),
    ],
)
def test_a_leak_and_a_second_free_are_noticed(built: Built, tmp_path: Path, right: str, wrong: str) -> None:
    text = (ROOT / "csrc" / "graph" / "builder.cpp").read_text()
    assert text.count(right) == 1
    spoiled = tmp_path / "builder.cpp"
    spoiled.write_text(text.replace(right, wrong))
    program = soak(tmp_path, [spoiled, *(path for path in BUILDER if path.name != "builder.cpp")], built)
    done = subprocess.run([program, "1", "3"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "0 modules, 0 graphs" in done.stdout or "misuse" in done.stdout


def cuda_header() -> Path | None:
    """The folder of a cuda.h that knows conditional nodes: triton's, or a toolkit's."""
    triton = importlib.util.find_spec("triton")
    places = triton.submodule_search_locations if triton else None
    folders = [Path(place) / "backends" / "nvidia" / "include" for place in places or []]
    for folder in [*folders, Path("/usr/local/cuda/include")]:
        if (folder / "cuda.h").is_file() and "cuGraphConditionalHandleCreate" in (
            folder / "cuda.h"
        ).read_text():
            return folder
    return None


# Each pair is a member here and in cuda.h.
MEMBERS = {
    ("KernelNode", "CUDA_KERNEL_NODE_PARAMS_v2"): [
        *(
            ("function", "func"),
            ("grid", "gridDimX"),
            ("block", "blockDimX"),
            ("shared_bytes", "sharedMemBytes"),
        ),
        *(("arguments", "kernelParams"), ("extra", "extra"), ("kernel", "kern"), ("context", "ctx")),
    ],
    ("ConditionalNode", "CUDA_CONDITIONAL_NODE_PARAMS"): [
        *(
            ("handle", "handle"),
            ("kind", "type"),
            ("size", "size"),
            ("bodies", "phGraph_out"),
            ("context", "ctx"),
        ),
    ],
    ("NodeParameters", "CUgraphNodeParams"): [
        *(("kind", "type"), ("reserved", "reserved0"), ("conditional", "conditional")),
        ("reserved_end", "reserved2"),
    ],
}
NUMBERS = [
    ("kIf", "CU_GRAPH_COND_TYPE_IF"),
    ("kWhile", "CU_GRAPH_COND_TYPE_WHILE"),
    ("kConditionalNode", "CU_GRAPH_NODE_TYPE_CONDITIONAL"),
]


def test_what_is_declared_is_what_cuda_declares(tmp_path: Path) -> None:
    """Layouts, numbers and, of every function, how many parameters there are and how large each is."""
    folder = cuda_header()
    if folder is None:
        pytest.skip("no cuda.h of CUDA 12.4 or newer: neither triton nor a toolkit is installed")
    lines = [f"static_assert(sizeof({ours}) == sizeof({theirs}));" for ours, theirs in MEMBERS]
    for (ours, theirs), members in MEMBERS.items():
        lines += [f"static_assert(offsetof({ours}, {a}) == offsetof({theirs}, {b}));" for a, b in members]
    lines += [f"static_assert({ours} == {theirs});" for ours, theirs in NUMBERS]
    source = tmp_path / "declared.cpp"
    source.write_text(DECLARED.replace("CHECKS", "\n".join(lines)))
    call_compiler(*FLAGS, f"-isystem{folder}", "-fsyntax-only", source)
    wrong = source.read_text().replace("offsetof(KernelNode, kernel)", "offsetof(KernelNode, extra)")
    source.write_text(wrong)
    with pytest.raises(AssertionError, match="static assertion failed"):
        call_compiler(*FLAGS, f"-isystem{folder}", "-fsyntax-only", source)


# Symbols with a version are macros of the plain name in cuda.h, which here are the declared functions.
DECLARED = """
#include <cstddef>
#include <type_traits>
#include <cuda.h>
#include "graph/driver_api.h"
using namespace specee::graph;

template <class... Types> struct Sizes {};
template <size_t... Numbers> struct Same {};
template <class Ours, class Theirs> struct Alike;
template <class... Ours, class... Theirs>
struct Alike<Status (*)(Ours...), CUresult (*)(Theirs...)> {
  static constexpr bool value = std::is_same_v<Same<sizeof(Ours)...>, Same<sizeof(Theirs)...>>;
};
#define CHECK_FUNCTION(name, symbol, parameters) \\
  static_assert(Alike<decltype(Functions::name), decltype(&symbol)>::value, #symbol);
SPECEE_DRIVER_FUNCTIONS(CHECK_FUNCTION)
SPECEE_CONDITIONAL_FUNCTIONS(CHECK_FUNCTION)
CHECKS
"""
