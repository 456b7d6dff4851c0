"""Every kernel compiles for every target under nvcc and NVRTC, without a warning and without a spill."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from specee.cuda import sources, tiles
from tests.cuda import nvrtc

ROOT = Path(__file__).resolve().parents[2]
HEADERS = ("block_record", "device", "exit_record", "given_record", "philox", "round_record", "tiles")
TARGETS = ("sm_80", "sm_89", "sm_90")
# NVRTC cannot take warnings for errors, so that its words are read.
WARNED = re.compile(r"warning|error", re.IGNORECASE)


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cuda_resources", ROOT / "scripts" / "cuda_resources.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed() -> list[str]:
    """The kernels of kernels.cuh's list."""
    text = (ROOT / "csrc" / "cuda" / "kernels.cuh").read_text()
    return re.findall(r"\bX\((\w+)\)", text.partition("#define SPECEE_CUDA_KERNELS(X)")[2])


def entries() -> set[str]:
    """Every ``__global__`` function of the .cuh files, macros for tiles and dimensions written out."""
    found: set[str] = set()
    for path in (ROOT / "csrc" / "cuda").glob("*.cuh"):
        text = path.read_text()
        names = re.findall(r"__global__ void __launch_bounds__\([^)]*\)\s*\\?\s*(\w+(?:##\w+)*)\(", text)
        tiles_, heads = (
            re.findall(r"^SPECEE_LINEAR\((\d)\)", text, re.M),
            re.findall(r"^SPECEE_ATTENTION\((\w+), \w+, (\d+)\)", text, re.M),
        )
        turns = re.findall(r"^SPECEE_TURN\((\w+), \w+\)", text, re.M)
        for name in names:
            if name == "turn_heads_##name":
                found |= {f"turn_heads_{kind}" for kind in turns}
            elif "##tiles" in name:
                found |= {name.replace("##tiles", tile) for tile in tiles_}
            elif "##dim" in name:
                found |= {name.replace("##name##", kind).replace("_##dim", f"_{d}") for kind, d in heads}
            else:
                found.add(name)
    return found


def test_the_list_has_every_kernel() -> None:
    names = {name.replace("##", "") for name in entries()}
    assert len(listed()) == len(set(listed()))
    assert names == set(listed())


def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "bench" / "results" / "cuda_resources.json").read_text())
    return found


def test_the_committed_table_has_every_kernel_and_no_spill() -> None:
    table = committed()
    for target in TARGETS:
        assert set(table[target]) == set(listed())
        for name, used in table[target].items():
            assert used["spill_bytes"] == 0, f"{name} on {target}"
            assert used["shared_bytes"] <= 48 * 1024, f"{name} on {target}: more needs to be asked for"


def test_nvcc_compiles_every_kernel_without_warnings_or_spills() -> None:
    module = script()
    nvcc = module.cuda_build.find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc: compiled by NVRTC alone")
    report = module.report(nvcc)
    for target in TARGETS:
        assert set(report[target]) == set(listed())
        assert {name for name, used in report[target].items() if used["spill_bytes"]} == set(), target
    if report["nvcc"] == committed()["nvcc"]:
        assert report == committed(), "scripts/cuda_resources.py --save writes the table anew"


def test_a_spill_is_noticed() -> None:
    log = (
        "ptxas info    : Compiling entry function 'f' for 'sm_80'\n"
        "    16 bytes stack frame, 12 bytes spill stores, 4 bytes spill loads\n"
        "ptxas info    : Used 128 registers, used 1 barriers, 16 bytes cumulative stack, 9000 bytes smem\n"
    )
    expected = {"stack_bytes": 16, "spill_bytes": 16, "registers": 128, "shared_bytes": 9000}
    assert script().parse(log) == {"sm_80": {"f": expected}}


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    found = nvrtc.library()
    if found is None:
        pytest.skip('no NVRTC: pip install "specee[test]" has it on x86-64 Linux')
    return found


# nvcc compiles for the others every time.
@pytest.mark.parametrize(
    "target",
    ["sm_80", *(pytest.param(target, marks=pytest.mark.slow) for target in ("sm_89", "sm_90")), "compute_90"],
)
def test_nvrtc_compiles_every_kernel_without_warnings_or_spills(library: ctypes.CDLL, target: str) -> None:
    options = [*sources.OPTIONS, *sources.include_options(), f"--gpu-architecture={target}"]
    machine_code = target.startswith("sm_")
    # What CuPy adds to the options of its own.
    options.append("--ptxas-options=-v" if machine_code else "--device-as-default-execution-space")
    status, log, code = nvrtc.compile_program(library, options)
    assert status == 0, log
    assert not WARNED.search(log), log
    for name in listed():
        assert name.encode() in code
    if machine_code:
        report = script().parse(log)[target]
        assert set(report) == set(listed())
        assert {name for name, used in report.items() if used["spill_bytes"]} == set()


def test_nvrtc_tells_of_warnings(library: ctypes.CDLL) -> None:
    """The negative control of the log's check."""
    program = "__global__ void f(int* x) { int unused = 1; x[0] = 2u > -1 ? 1 : 0; return; x[1] = 3; }\n"
    status, log, _ = nvrtc.compile_program(library, ["--gpu-architecture=sm_80"], program)
    assert status == 0
    assert WARNED.search(log)


def test_device_code_includes_nothing_else() -> None:
    """NVRTC finds no header of the host or of CUDA: kernels include each other and the package's headers."""
    kernels, include = sources.folders()
    for path in [
        *kernels.glob("*.cuh"),
        *(include / "specee" / f"{name}.h" for name in HEADERS),
    ]:
        for name in re.findall(r'^#include [<"]([^>"]+)[>"]', path.read_text(), re.M):
            inside = (kernels / name).is_file() or (include / name).is_file()
            assert inside or (path.name == "device.h" and name in ("cmath", "cstdint")), (
                f"{path.name}: {name}"
            )


def test_python_knows_the_headers_numbers() -> None:
    text = (sources.folders()[1] / "specee" / "tiles.h").read_text()
    numbers = {name: int(value) for name, value in re.findall(r"inline constexpr int k(\w+) = (\d+);", text)}
    ours = {name: value for name, value in vars(tiles).items() if name.isupper() and name != "LANES"}
    assert {name.title().replace("_", "") for name in ours} <= set(numbers)
    for name, value in ours.items():
        assert numbers[name.title().replace("_", "")] == value, name
    for rows in range(1, 65):
        needed = -(-rows // 8)
        assert tiles.row_tiles(rows) == min(tile for tile in (1, 2, 4, 8) if tile >= needed)
