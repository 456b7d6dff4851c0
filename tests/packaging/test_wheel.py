"""What the wheel and the sdist hold, and that both work away from the source tree."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.cleanenv import CleanEnv, wheel_requirements
from tests.packaging.conftest import Built
from tests.packaging.project import ROOT, build, copy_project, run, written_version

TASK = {f"specee/bench/harness/{name}" for name in ("copy_and_add.yaml", "questions.jsonl")}


def test_wheel_installs_specee_and_nothing_else_at_top_level(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    dist_info = {top for top in tops if top.endswith(".dist-info")}
    assert tops - dist_info == {"specee"}
    assert len(dist_info) == 1


def test_wheel_holds_every_module_the_extension_and_the_licence(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "specee").rglob("*.py")}
    moved = [*(ROOT / "triton_kernels").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    modules |= {f"specee/{p.relative_to(ROOT).as_posix()}" for p in moved}
    assert modules | {"specee/py.typed", "specee/bench/prompts.jsonl", *TASK} <= names
    assert {n for n in names if n.startswith("specee/") and n.endswith(".py")} == modules
    # The graphs' driver is Linux's alone.
    extensions = ["_cpu", *(["_graph"] if sys.platform == "linux" else [])]
    for extension in extensions:
        assert [n for n in names if n.startswith(f"specee/{extension}.") and n.endswith(".so")], extension
    assert [n for n in names if n.endswith(".dist-info/licenses/LICENSE")]


def test_both_hold_the_speculator_files(built: Built) -> None:
    files = [p.relative_to(ROOT).as_posix() for p in (ROOT / "specee" / "speculators").glob("*.safetensors")]
    assert "specee/speculators/smollm2-135m-instruct.safetensors" in files
    with zipfile.ZipFile(built.wheel) as archive:
        for name in files:
            assert archive.read(name) == (ROOT / name).read_bytes()
            assert archive.getinfo(name).file_size <= 16_000_000
    with tarfile.open(built.sdist) as archive:
        assert set(files) <= {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}


def test_sdist_holds_every_native_source(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    native = {p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".cpp", ".h", ".cuh", ".cu", ".py"}}
    assert {p.relative_to(ROOT).as_posix() for p in native} <= names


def test_both_hold_the_device_code_that_nvrtc_compiles(built: Built, clean_env: CleanEnv) -> None:
    """Byte for byte, and specee.cuda finds it where it is installed."""
    files = {f"specee/cuda/kernels/{p.name}": p for p in (ROOT / "csrc" / "cuda").glob("*.cuh")}
    include = ROOT / "csrc" / "include" / "specee"
    files |= {
        f"specee/cuda/include/specee/{n}.h": include / f"{n}.h"
        for n in ("block_record", "device", "exit_record", "given_record", "philox", "round_record", "tiles")
    }
    assert "specee/cuda/kernels/kernels.cuh" in files
    with zipfile.ZipFile(built.wheel) as archive:
        for name, source in files.items():
            assert archive.read(name) == source.read_bytes()
    code = "from specee.cuda import sources; print(*sources.folders())"
    done = run(clean_env.bin / "python", "-c", code, cwd=clean_env.cwd)
    assert done.returncode == 0, done.stdout
    assert all("site-packages" in folder for folder in done.stdout.split())


def test_heavy_packages_are_extras_only(built: Built) -> None:
    lines = wheel_requirements(built.wheel)
    for name in ("torch", "transformers", "triton", "llama-cpp-python", "matplotlib", "cupy-cuda13x"):
        mentions = [line for line in lines if line.startswith(name)]
        assert mentions
        assert all("extra ==" in line for line in mentions)


def test_imports_with_core_requirements_only_from_another_folder(clean_env: CleanEnv) -> None:
    code = (
        "import sys, importlib.util as u, specee, specee._cpu, specee.triton_kernels\n"
        "assert callable(specee.load)\n"
        "assert 'site-packages' in specee.__file__, specee.__file__\n"
        "for name in ('torch', 'transformers', 'triton', 'triton_kernels'):\n"
        "    assert u.find_spec(name) is None and name not in sys.modules, name\n"
        "print(specee.__version__)\n"
    )
    done = run(clean_env.bin / "python", "-c", code, cwd=clean_env.cwd)
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip() == written_version()


def test_info_command_works_with_core_requirements_only(clean_env: CleanEnv) -> None:
    done = run(clean_env.bin / "specee", "info", cwd=clean_env.cwd)
    assert done.returncode == 0, done.stdout
    assert "cpu" in done.stdout


def test_the_bench_command_says_what_is_missing_and_reports_without_it(clean_env: CleanEnv) -> None:
    """Without matplotlib, torch and llama.cpp: an earlier run as tables, and reasons for the rest."""
    recorded = clean_env.cwd / "run.json"
    recorded.write_text('{"machine": {}, "parts": {"kernels": {"left_out": "no pytest-benchmark"}}}')
    done = run(clean_env.bin / "specee", "bench", "--from", recorded, cwd=clean_env.cwd)
    assert done.returncode == 0, done.stdout
    assert "no pytest-benchmark" in done.stdout
    assert "specee[bench]" in done.stdout
    assert not list(clean_env.cwd.rglob("*.html"))
    done = run(clean_env.bin / "specee", "bench", "--contender", "llama.cpp", cwd=clean_env.cwd)
    assert done.returncode == 2, done.stdout
    assert "specee[peers]" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("value", ["sse9", "AVX2", "avx512f"])
def test_unknown_isa_is_refused_with_the_possible_ones(clean_env: CleanEnv, value: str) -> None:
    done = run(clean_env.bin / "specee", "info", cwd=clean_env.cwd, env={"SPECEE_FORCE_ISA": value})
    assert done.returncode != 0, done.stdout
    assert f"'{value}'" in done.stdout
    assert "portable" in done.stdout
    assert "Traceback" not in done.stdout


def test_possible_isa_is_used(clean_env: CleanEnv) -> None:
    done = run(clean_env.bin / "specee", "info", cwd=clean_env.cwd, env={"SPECEE_FORCE_ISA": "portable"})
    assert done.returncode == 0, done.stdout
    assert re.search(r"^isa +portable\b", done.stdout, re.MULTILINE), done.stdout


def test_failed_compile_fails_the_build_with_the_compilers_words(tmp_path: Path) -> None:
    tree = copy_project(tmp_path / "broken")
    for source in (tree / "csrc").rglob("*.cpp"):  # one file is enough, and quicker
        source.unlink()
    module = tree / "csrc" / "bindings" / "broken.cpp"
    module.write_text('int broken_on_purpose = "not a number";\n')
    done = build("wheel", tree, tmp_path / "dist")
    assert done.returncode != 0
    assert "broken.cpp:1" in done.stdout
    assert "error:" in done.stdout
    assert not list(tmp_path.glob("dist/*.whl"))
