"""The PTX in csrc/graph/condition_ptx.h is its source, compiled, and every target takes it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from specee.cuda import sources
from tests.cuda import nvrtc
from tests.cuda.emulator import ROOT

TARGETS = ("sm_80", "sm_89", "sm_90")


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("condition_ptx", ROOT / "scripts" / "condition_ptx.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def committed() -> str:
    """The header's PTX."""
    found = re.search(r'R"ptx\((.*)\)ptx"', script().RESULT.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_it_is_what_nvrtc_makes_of_the_source() -> None:
    library = nvrtc.library()
    if library is None:
        pytest.skip('no NVRTC: pip install "specee[test]" has it on x86-64 Linux')
    module = script()
    if nvrtc.version(library) != "13.0":
        pytest.skip(f"NVRTC {nvrtc.version(library)}: the header was made by 13.0")
    include = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}"]
    options = [*sources.OPTIONS, *include, f"--gpu-architecture=compute_{module.ARCHITECTURE}"]
    status, log, code = nvrtc.compile_program(library, options, module.PROGRAM)
    assert (status, log.strip()) == (0, "")
    assert module.header(code.decode()) == module.RESULT.read_text(), "scripts/condition_ptx.py --save"


def assembler() -> str | None:
    """ptxas of a toolkit, else triton's."""
    triton = importlib.util.find_spec("triton")
    places = triton.submodule_search_locations if triton else None
    folders = [Path(place) / "backends" / "nvidia" / "bin" for place in places or []]
    inside = [str(folder / "ptxas") for folder in folders if (folder / "ptxas").is_file()]
    return shutil.which("ptxas") or next(iter(inside), None)


@pytest.mark.parametrize("target", TARGETS)
def test_targets_take_it(target: str, tmp_path: Path) -> None:
    ptxas = assembler()
    if ptxas is None:
        pytest.skip("no ptxas: neither a toolkit nor triton is installed")
    source = tmp_path / "conditions.ptx"
    source.write_text(committed())
    command = [ptxas, f"-arch={target}", source, "-o", tmp_path / "conditions.cubin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = (tmp_path / "conditions.cubin").read_bytes()
    assert b"set_conditions" in code
    assert b"cudaGraphSetConditional" in code


def test_it_asks_the_driver_for_nothing_else() -> None:
    assert re.findall(r"\.extern \.func (\w+)", committed()) == ["cudaGraphSetConditional"]
    assert re.findall(r"\.visible \.entry (\w+)", committed()) == ["set_conditions"]
    assert re.findall(r"^\.version (.*)$", committed(), re.MULTILINE) == ["7.0"]
