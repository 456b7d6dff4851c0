"""Code compiled for one instruction set must not be picked by the linker for machines that lack it.

An inline function or template instance is a weak symbol in every object that uses it, and the linker keeps
any one copy. So an object of an instruction set may define its entry point and nothing else that is visible
outside of it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import Built

ISA_OBJECT = re.compile(r"kernels_(avx2|avx512|avx512vnni|avx512bf16|amx)\.o")
# A function that gives the table; where only some products differ, the array of these (csrc/cpu/isa.cpp).
EXPORTS = {
    "avx2": ("T", "specee::kernels_avx2()"),
    "avx512": ("T", "specee::kernels_avx512()"),
    "avx512vnni": ("D", "specee::kAvx512VnniLinear"),
    "avx512bf16": ("D", "specee::kAvx512Bf16Linear"),
    "amx": ("D", "specee::kAmxLinear"),
}
LINE = re.compile(r"^[0-9a-f]* *([A-Za-z]) (.+)$")


def visible_symbols(path: Path) -> set[tuple[str, str]]:
    """(type, name) of everything an object defines that the linker may use elsewhere."""
    listing = subprocess.run(
        ["nm", "-C", "--defined-only", path], check=True, capture_output=True, text=True
    ).stdout
    found = [LINE.match(line) for line in listing.splitlines()]
    return {(m[1], m[2]) for m in found if m and (m[1].isupper() or m[1] in "uvw")}


def test_objects_of_an_instruction_set_export_their_table_and_nothing_else(built: Built) -> None:
    objects = {path.name: path for path in (built.tree / "build").rglob("*.o")}
    assert "kernels_portable.o" in objects
    isas = {m[1]: path for name, path in objects.items() if (m := ISA_OBJECT.fullmatch(name))}
    if not list(built.wheel.parent.glob("*linux_x86_64.whl")):
        assert isas == {}
        return
    assert set(isas) == set(EXPORTS)
    for isa, path in isas.items():
        assert visible_symbols(path) == {EXPORTS[isa]}, isa


@pytest.mark.parametrize(
    "leak",
    [
        "#include <vector>\nvoid f(std::vector<int>& v) { v.push_back(1); }",
        "inline int f(int x) { return x + 1; }\nauto g() { return &f; }",
        "int helper() { return 1; }",
    ],
)
def test_a_leak_is_noticed(leak: str, tmp_path: Path) -> None:
    source, output = tmp_path / "leak.cpp", tmp_path / "leak.o"
    source.write_text(f"namespace specee {{ int kernels() {{ return 0; }} }}\n{leak}\n")
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    subprocess.run([*compiler, "-std=c++17", "-O3", "-c", source, "-o", output], check=True)
    assert visible_symbols(output) > {("T", "specee::kernels()")}
